"""Commands that solve: exit codes, JSON, files, interruption and resume. All in one process."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.cli.main import main
from bilevelpy.cli.templates import TEMPLATES

# F(x) = (a x - 3)^2 + x^2 with a = 2 / 1.1, so x = 3 a / (a^2 + 1).
TOY = """\
model toy;
param weight in [0, inf] = 1;
upper {
  var x in [-10, 10] start 0;
  minimize (y - 3)^2 + weight * x^2;
}
lower follower {
  var y;
  minimize (y - 2 * x)^2 / 2 + 0.05 * y^2;
}
report distance = abs(y - 3);
expect x == 1.266795 within 1e-5;
expect upper.objective == 2.090211 within 1e-5;
"""
X = 3 * (2 / 1.1) / ((2 / 1.1) ** 2 + 1)
CURVED = """\
model curved;
dim p = 3;
param t[p] = [1, 2, 3];
upper {
  var lam[p] in [-5, 5] start 0;
  minimize sum((w - t)^2) + 0.01 * sum(lam^2);
}
lower fit {
  var w[p];
  minimize sum((w - 2 * t - 1)^2) + sum((exp(lam) + softplus(lam)) * w^2);
}
"""
# No method takes whole numbers beside semidefinite variables.
REFUSED = """\
model refused;
dim k = 2;
upper {
  var x in integers(0, 1);
  minimize x + trace(S);
}
lower follower {
  var S[k, k] in psd;
  minimize sumsq(S - x * eye(k));
}
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NO_COLOR", "1")
    for name, text in (("toy", TOY), ("curved", CURVED), ("refused", REFUSED)):
        Path(f"{name}.blv").write_text(text)


def solved(capsys: Capture, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The object that ``solve --json`` prints."""
    assert main(["solve", *arguments, "--json"]) == code
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_json_object(capsys: Capture) -> None:
    content = solved(capsys, "toy.blv")
    assert content["model"] == "toy"
    assert content["status"] == "converged"
    assert content["success"] is True
    assert content["upper"]["x"] == pytest.approx(X, abs=1e-6)
    assert content["lower"]["follower"]["y"] == pytest.approx(2 * X / 1.1, abs=1e-6)
    assert set(content["objective"]) == {"upper", "lower"}
    assert set(content["objective"]["lower"]) == {"follower"}
    assert content["reports"]["distance"] == pytest.approx(3 - 2 * X / 1.1, abs=1e-6)
    certificate = content["certificate"]
    assert certificate["kind"] in ("local", "global")
    assert certificate["reasons"]
    numbers = ("lower_gap", "lower_stationarity", "lower_feasibility", "upper_feasibility")
    for name in (*numbers, "hypergradient_norm"):
        assert isinstance(certificate[name], (int, float))
    assert {"F", "f", "grad_F", "grad_f", "hvp"} <= set(content["counts"])
    assert {"compile", "solve", "verify", "total"} <= set(content["time"])
    assert content["version"] == bl.__version__
    assert isinstance(content["iterations"], int)


def test_text_goes_where_it_belongs(capsys: Capture) -> None:
    assert main(["solve", "toy.blv"]) == 0
    captured = capsys.readouterr()
    assert "converged" in captured.out
    assert "certificate" in captured.out
    assert "lower convexity" in captured.err
    assert "backend" in captured.err
    assert all(len(line) <= 80 for line in (captured.out + captured.err).splitlines())
    assert main(["solve", "toy.blv", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_params_and_options(capsys: Capture) -> None:
    assert solved(capsys, "toy.blv", "--param", "weight=0")["objective"]["upper"] < 1e-9
    assert solved(capsys, "toy.blv", "--backend", "aid")["backend"] == "aid"
    content = solved(capsys, "curved.blv", "--param", "t=[1, 1, 1]", "--seed", "3", "--tol", "1e-4")
    assert len(content["upper"]["lam"]) == 3
    assert main(["solve", "toy.blv", "--backend", "aids"]) == 2
    assert "did you mean `aid`" in capsys.readouterr().err
    assert main(["solve", "toy.blv", "--backend", "direct", "--option", "lowertol=1"]) == 2
    assert "did you mean `lower_tol`" in capsys.readouterr().err


def test_data_files(capsys: Capture) -> None:
    np.savez("d.npz", weight=np.array(2.0))
    content = solved(capsys, "toy.blv", "--data", "d.npz")
    assert content["upper"]["x"] < X
    again = solved(capsys, "toy.blv", "--data", "d.npz", "--param", "weight=1")
    assert again["upper"]["x"] == pytest.approx(X, abs=1e-6)
    assert main(["solve", "toy.blv", "--data", "absent.npz"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_externs(capsys: Capture) -> None:
    text = TOY.replace("upper {", "extern penalty(v[]) -> [] : smooth, convex(v);\nupper {", 1)
    if main(["check", "toy.blv"]) == 0:
        text = text.replace("v[]", "v").replace("weight * x^2", "weight * penalty(x)")
    Path("e.blv").write_text(text)
    Path("code.py").write_text("def square(v):\n    return v * v\n")
    capsys.readouterr()
    content = solved(capsys, "e.blv", "--extern", "penalty=code.py:square")
    assert content["upper"]["x"] == pytest.approx(X, abs=1e-6)
    assert main(["solve", "e.blv"]) == 2
    assert "penalty" in capsys.readouterr().err


def test_out_plot_and_start(capsys: Capture) -> None:
    for suffix in ("json", "npz"):
        assert main(["solve", "curved.blv", "--out", f"r.{suffix}", "--plot", "r.svg"]) == 0
        result = bl.load_result(f"r.{suffix}")
        assert result.success
        assert result.provenance["data_hash"].keys() == {"t"}
        assert result.decision["backend"] == result.backend
        assert len(result.history) == result.iterations + 1
        content = (
            solved(capsys, "curved.blv", "--start", f"r.{suffix}") if capsys.readouterr() else {}
        )
        assert content["iterations"] <= 2
    assert Path("r.svg").read_text().startswith("<?xml")
    Path("start.json").write_text('{"lam": [1, 1, 1], "fit.w": 0}')
    assert main(["solve", "curved.blv", "--start", "start.json"]) == 0
    Path("start.json").write_text('{"lamb": 1}')
    assert main(["solve", "curved.blv", "--start", "start.json"]) == 2
    assert "did you mean `lam`" in capsys.readouterr().err


def test_limits_exit_1(capsys: Capture) -> None:
    content = solved(capsys, "curved.blv", "--max-iter", "1", code=1)
    assert content["status"] == "iteration_limit"
    assert content["success"] is False
    content = solved(capsys, "curved.blv", "--time-limit", "1e-9", code=1)
    assert content["status"] == "time_limit"


def test_a_refused_model_exits_2(capsys: Capture) -> None:
    assert main(["solve", "refused.blv"]) == 2
    err = capsys.readouterr().err
    assert "BLV0601" in err
    assert "discrete upper variable" in err
    assert "error: error" not in err
    assert main(["check", "refused.blv"]) == 0
    assert main(["explain", "refused.blv"]) == 0


def interrupt_at(monkeypatch: pytest.MonkeyPatch, iteration: int) -> None:
    """Press Ctrl-C in the given iteration, which is where a signal would arrive."""
    from bilevelpy.numerics.driver import bookkeeping

    observe = bookkeeping.Loop.observe

    def pressed(self: Any, number: int, measure: Any) -> Any:
        found = observe(self, number, measure)
        if number == iteration:
            raise KeyboardInterrupt
        return found

    monkeypatch.setattr(bookkeeping.Loop, "observe", pressed)


def test_interruption_and_resume(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    arguments = ("curved.blv", "--checkpoint", "run.ckpt")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 2)
        content = solved(capsys, *arguments, "--out", "r.json", code=130)
    assert content["status"] == "interrupted"
    assert bl.load_result("r.json").upper["lam"].tolist() == content["upper"]["lam"]
    whole = solved(capsys, "curved.blv")
    rest = solved(capsys, *arguments, "--resume")
    assert rest["status"] == "converged"
    assert rest["objective"]["upper"] == pytest.approx(whole["objective"]["upper"], rel=1e-6)
    assert rest["iterations"] > 2, "iterations go on"
    assert rest["counts"]["grad_f"] > content["counts"]["grad_f"]


def test_resume_is_refused_for_another_problem(capsys: Capture) -> None:
    arguments = ["solve", "curved.blv", "--checkpoint", "run.ckpt", "--quiet"]
    assert main([*arguments, "--resume"]) == 0, "nothing to go on from yet"
    assert main([*arguments, "--resume", "--param", "t=[1, 2, 4]"]) == 2
    assert "the data has changed" in capsys.readouterr().err
    Path("curved.blv").write_text(CURVED.replace("0.01", "0.02"))
    assert main([*arguments, "--resume"]) == 2
    assert "the text of the model has changed" in capsys.readouterr().err
    Path("run.ckpt").write_bytes(Path("run.ckpt").read_bytes()[:50])
    assert main([*arguments, "--resume"]) == 2
    assert "damaged" in capsys.readouterr().err
    assert main(["solve", "curved.blv", "--resume"]) == 2
    assert "needs the checkpoint" in capsys.readouterr().err


def test_explain(capsys: Capture) -> None:
    assert main(["explain", "curved.blv"]) == 0
    out = capsys.readouterr().out
    assert "strongly convex" in out
    assert "proved" in out
    assert main(["explain", "curved.blv", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["dimensions"] == {
        "upper": 3,
        "lower": 3,
        "upper_constraints": 0,
        "lower_constraints": 0,
        "followers": 1,
    }
    assert content["lower"]["class"] == "quadratic"
    assert content["lower"]["convexity"] == "strongly convex"
    assert content["lower"]["modulus"] >= 2.0
    assert {"class", "bounds", "coupling_constraints"} <= set(content["upper"])
    assert {"backend", "options", "why", "rejected"} <= set(content["decision"])


def test_backends(capsys: Capture) -> None:
    assert main(["backends"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == bl.backends()
    assert main(["backends", "refused.blv", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["backends"]
    assert all(row["verdict"].startswith("rejects") for row in rows.values())
    assert main(["backends", "nlp"]) == 0
    assert "options: starts = 8, form = auto" in capsys.readouterr().out
    assert main(["backends", "nlp", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["backends"].values()
    assert row["options"] == {"starts": 8, "form": "auto"}


def test_compare(capsys: Capture) -> None:
    assert main(["compare", "curved.blv", "--backends", "direct,aid", "--plot", "c.png"]) == 0
    out = capsys.readouterr().out
    assert out.count("converged") == 2
    assert Path("c.png").exists()
    assert main(["compare", "curved.blv", "--backends", "direct,nobody"]) == 2
    capsys.readouterr()
    assert main(["compare", "refused.blv", "--json"]) == 1
    content = json.loads(capsys.readouterr().out)
    assert content["results"] == {}
    assert set(content["refused"]) == set(bl.backends())


def test_test(capsys: Capture) -> None:
    assert main(["test", "toy.blv", "curved.blv"]) == 0
    out = capsys.readouterr().out
    assert "2 expectations" in out
    assert "2 of 2 passed" in out
    Path("wrong.blv").write_text(TOY.replace("1.266795", "1.3"))
    assert main(["test", "."]) == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "found 1.266794" in out
    assert main(["test", "wrong.blv", "--json"]) == 1
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert [e["passed"] for e in row["expectations"]] == [False, True]
    Path("empty").mkdir()
    assert main(["test", "empty"]) == 2


def test_a_model_without_data_is_left_out_of_a_test(capsys: Capture) -> None:
    Path("bare.blv").write_text(TOY.replace("[0, inf] = 1", "[0, inf]"))
    assert main(["test", "toy.blv", "bare.blv"]) == 0
    out = capsys.readouterr().out
    assert "skip  bare.blv" in out
    assert "1 of 2 passed, 1 without data" in out


@pytest.mark.parametrize("template", TEMPLATES)
def test_templates_are_solved_as_they_stand(template: str, capsys: Capture) -> None:
    assert main(["new", "mine", "--template", template]) == 0
    assert main(["test", "mine.blv"]) == 0


def test_nan_is_null(capsys: Capture) -> None:
    Path("nan.blv").write_text(TOY.replace("abs(y - 3)", "log(-1 - y^2)"))
    assert solved(capsys, "nan.blv")["reports"]["distance"] is None
    assert math.isfinite(X)


def test_a_saved_result_with_prices_is_a_start(capsys: Capture) -> None:
    Path("priced.blv").write_text(
        'set R = {"a", "b"}; upper { var t[R] in [0, 3]; maximize t["a"] * q; }'
        'lower low { var q in [0, 5]; minimize (q - 3 + t["a"])^2; subject to cap: q <= 2; }'
        "report price = dual(low.cap);"
    )
    for suffix in ("json", "npz"):
        assert main(["solve", "priced.blv", "--out", f"p.{suffix}", "-q"]) == 0
        assert main(["solve", "priced.blv", "--start", f"p.{suffix}", "-q"]) == 0
    Path("start.json").write_text('{"t": {"b": 1, "a": 2}}')
    assert main(["solve", "priced.blv", "--start", "start.json", "-q"]) == 0
    capsys.readouterr()
    Path("start.json").write_text('{"t": {"b": 1}}')
    assert main(["solve", "priced.blv", "--start", "start.json", "-q"]) == 2
    assert 'no value for "a"' in capsys.readouterr().err
