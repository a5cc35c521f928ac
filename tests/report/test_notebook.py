"""Notebooks: rich representations and the cell magic."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("latex2mathml", reason="formulas need the extra `report`")

import bilevelpy as bl
from bilevelpy.notebook import model_of_cell
from tests.report.test_report import outline

ROOT = Path(__file__).parents[2]
CELL = """\
model toy;
dim n;
param a[n];
upper { var x in [0, 4] start 1; minimize mean((y - a)^2) + x^2 / 10; }
lower follow { var y; minimize (y - x)^2; }
"""


def test_rich_representations() -> None:
    model = bl.load(ROOT / "models/box_kink.blv")
    structure, result = bl.analyze(model), bl.solve(model)
    assert model._repr_latex_().startswith("$$\n\\begin{aligned}")
    shown = {
        "model": model._repr_html_(),
        "structure": structure._repr_html_(),
        "decision": result.decision._repr_html_(),
        "certificate": result.certificate._repr_html_() if result.certificate else "",
        "result": result._repr_html_(),
    }
    words = {
        "model": "argmin",
        "structure": "strongly convex",
        "decision": result.backend,
        "certificate": "hypergradient norm",
        "result": "converged",
    }
    for name, text in shown.items():
        assert text is not None
        assert words[name] in outline(text).text, name
    assert "data:image/svg+xml" in str(shown["result"])  # the convergence


def test_a_cell_takes_its_data_from_the_notebook() -> None:
    variables: dict[str, Any] = {"a": np.ones(3)}
    model = model_of_cell("", CELL, variables)
    assert variables["toy"] is model
    assert model.bound.data.arrays["a"].shape == (3,)
    variables["table"] = {"a": [1.0, 2.0]}
    model_of_cell("mine --data table", CELL, variables)
    assert variables["mine"].bound.data.arrays["a"].shape == (2,)
    with pytest.raises(bl.UsageError, match="is not understood"):
        model_of_cell("two names", CELL, variables)
    with pytest.raises(bl.ModelError, match="BLV0101"):
        model_of_cell("", CELL.replace("dim n;", "dim n"), variables)


def test_the_magic_in_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("IPython", reason="the magic needs the extra `notebook`")
    from IPython.core.interactiveshell import InteractiveShell

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython's own deprecations
        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "bilevelpy.notebook")
        shell.push({"a": np.ones(3)})
        shell.run_cell("%%blv\n" + CELL)
        shell.run_cell("import bilevelpy as bl\nr = bl.solve(toy)")
        assert shell.user_ns["r"].success
        shell.run_cell("%%blv\n" + CELL.replace("y - x", "y - z"))
    printed = capsys.readouterr()
    assert "error[BLV0201]: unknown name `z`" in printed.out + printed.err
    InteractiveShell.clear_instance()
