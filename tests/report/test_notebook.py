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


def test_print_shows_what_a_terminal_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    model = bl.load("models/breast_cancer.blv")
    structure, result = bl.analyze(model), bl.solve(model, max_iter=1)
    assert repr(result).startswith("<Result of breast_cancer: iteration_limit, F = 0.")
    assert repr(result).endswith("direct, certificate none>")
    assert result.decision is not None
    shown = {
        "result": (str(result), "breast_cancer: iteration_limit (direct, 1 iterations)"),
        "structure": (str(structure), "strongly convex (proved): every term is convex"),
        "decision": (str(result.decision), "backend direct"),
        "certificate": (str(result.certificate), "certificate none"),
    }
    for name, (text, part) in shown.items():
        assert part in text, name
        assert max(map(len, text.splitlines())) <= 80, name
    assert "lam[30]" in str(result)
    assert str(result.certificate) in str(result)


def test_a_cell_takes_its_data_from_the_notebook() -> None:
    variables: dict[str, Any] = {"a": np.ones(3)}
    model = model_of_cell("", CELL, variables)
    assert variables["toy"] is model
    assert model.bound.data.arrays["a"].shape == (3,)
    variables["table"] = {"a": [1.0, 2.0]}
    model_of_cell("mine --data table", CELL, variables)
    assert variables["mine"].bound.data.arrays["a"].shape == (2,)
    for line, why in (
        ("two names", "`names` is not understood"),
        ("mine --data", "`--data` needs a name"),
        ("'mine", "No closing quotation"),
    ):
        with pytest.raises(bl.UsageError, match=why):
            model_of_cell(line, CELL, variables)
    with pytest.raises(bl.ModelError, match="BLV0101"):
        model_of_cell("", CELL.replace("dim n;", "dim n"), variables)


def test_the_magic_in_a_shell(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("IPython", reason="the magic needs the extra `notebook`")
    from IPython.core.interactiveshell import InteractiveShell

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # IPython's own deprecations
        shell = InteractiveShell.instance()
        shell.run_line_magic("load_ext", "bilevelpy")
        shell.push({"a": np.ones(3)})
        shell.run_cell("%%blv\n" + CELL)
        shell.run_cell("import bilevelpy as bl\nr = bl.solve(toy)")
        assert shell.user_ns["r"].success
        shell.run_cell("%%blv\n" + CELL.replace("y - x", "y - z"))
    printed = capsys.readouterr()
    assert "error[BLV0201]: unknown name `z`" in printed.out + printed.err
    InteractiveShell.clear_instance()


def test_long_models_are_shown_in_short() -> None:
    names = [f"x{k}" for k in range(300)]
    text = f"model m; upper {{ {' '.join(f'var {n} in [0, 1];' + chr(10) for n in names)}"
    model = bl.parse(f"{text} minimize {' + '.join(f'({n} - 0.3)^2' for n in names)}; }}")
    assert len(repr(model).splitlines()) < 100
    assert "lines more)" in repr(model)
    html = model._repr_html_()
    assert html is not None
    assert "lines more)" in html
    assert len(html) < 20_000
    assert model._repr_latex_() is None or len(model._repr_latex_()) < 21_000
