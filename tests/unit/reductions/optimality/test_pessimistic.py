"""The worst of the best responses, against values by hand and by brute force."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import bilevelpy as bl

pytest.importorskip("pyscipopt")


def test_ties_of_a_linear_follower() -> None:
    # y1 + y2 = x, the leader pays y1: the worst split is y1 = x, so (x - 1)^2 + x is minimised.
    text = """
    upper pessimistic { var x in [0, 4]; minimize (x - 1)^2 + y[1]; }
    dim k = 2;
    lower d { var y[k] in [0, 2]; minimize y[1] + y[2]; subject to a: y[1] + y[2] >= x; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success
    assert result["x"] == pytest.approx(0.5, abs=1e-3)
    assert pytest.approx(0.75, abs=1e-5) == result.F
    assert result["y"] == pytest.approx([0.5, 0.0], abs=1e-3)
    assert result.certificate is not None
    details = result.certificate.details
    assert details["F_optimistic"] == pytest.approx(0.25, abs=2e-3)
    assert details["F_pessimistic"] == pytest.approx(0.75, abs=1e-5)


def test_ties_of_a_quadratic_follower() -> None:
    text = """
    upper pessimistic { var x in [0, 4]; minimize (x - 1)^2 + 0.5 * y[1] - 0.2 * y[2]; }
    dim k = 2;
    lower d { var y[k] in [0, 2]; minimize (y[1] + y[2] - x)^2; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    x = np.linspace(0, 4, 4001)
    first = np.minimum(x, 2.0)  # all the worst responses have y1 as large as it can be
    worst = (x - 1) ** 2 + 0.5 * first - 0.2 * (x - first)
    assert result.success
    assert pytest.approx(worst.min(), abs=1e-5) == result.F


def test_a_unique_response_makes_the_stances_agree() -> None:
    text = """
    upper pessimistic { var x in [0, 3]; minimize (x - 2)^2 + w; }
    lower g { var w in [0, 1]; minimize (w - x)^2; }
    """
    result = bl.solve(bl.parse(text), backend="exact")
    assert result.success
    assert pytest.approx(1.0, abs=1e-9) == result.F


GAME = """
upper pessimistic { var x in DOMAIN; minimize x - y; }
lower a nash { var y in [0, 4]; minimize (y - SLOPE * z)^2; }
lower b nash { var z in [0, 4]; minimize (z - SLOPE * y)^2 + 0 * x; }
"""


@pytest.mark.parametrize(("domain", "slope"), [("integers(0, 2)", "1"), ("[0, 2]", "0.5")])
def test_the_worst_equilibrium(domain: str, slope: str) -> None:
    """Each player has one best response; with slope 1 all y = z are equilibria, 0 the worst."""
    model = bl.parse(GAME.replace("DOMAIN", domain).replace("SLOPE", slope))
    result = bl.solve(model, backend="exact")
    assert result.success
    assert pytest.approx(0.0, abs=1e-6) == result.F


def test_several_equilibria_are_no_unique_response() -> None:
    model = bl.parse(GAME.replace("DOMAIN", "[0, 2]").replace("SLOPE", "1"))
    with pytest.raises(bl.BackendError, match="games"):
        bl.solve(model, backend="exact")


@pytest.mark.parametrize(
    ("upper", "words"),
    [
        ("minimize (y - 1)^2;", "not concave"),
        ("minimize y; subject to a: y <= x;", "`a` reads responses"),
    ],
)
def test_what_is_not_covered_is_refused_with_the_reason(upper: str, words: str) -> None:
    text = f"""
    upper pessimistic {{ var x in [0, 1]; {upper} }}
    lower d {{ var y in [0, 1]; minimize x * y; }}
    """
    with pytest.raises(bl.BackendError, match=words):
        bl.solve(bl.parse(text), backend="exact")


def test_the_page_of_what_is_not_covered(tmp_path, monkeypatch) -> None:
    page = (Path(__file__).parents[4] / "docs" / "errors" / "BLV0604.md").read_text()
    wrong, right = re.findall(r"```blv\n(.*?)```", page, re.DOTALL)
    (message,) = re.findall(r"```text\n(.*?)\n```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    Path("model.blv").write_text(wrong)
    with pytest.raises(bl.BackendError) as caught:
        bl.solve("model.blv", progress=False)
    assert str(caught.value).rstrip() == message
    assert bl.solve(bl.parse(right), progress=False).success
