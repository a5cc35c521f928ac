"""Real consumers find the known optimum in what was written, and not the high point."""

import json

import problems
import pytest

import bilevelpy as bl

CASES = list(problems.KNOWN)


def sign(text):
    return -1 if "maximize" in text.partition("\nlower")[0] else 1


def solved(name, to, tmp_path, solve, **options):
    text, expected, high_point = problems.KNOWN[name]
    path = tmp_path / f"{name}.{to}"
    bl.export(bl.parse(text), to=to, path=path, options=options)
    status, value = solve(path)
    assert status == "optimal"
    assert sign(text) * value == pytest.approx(expected, rel=1e-5)
    assert high_point is None or sign(text) * value != pytest.approx(high_point, rel=1e-3)


@pytest.mark.parametrize("form", ["sos1", "indicators"])
@pytest.mark.parametrize("to", ["lp", "mps"])
@pytest.mark.parametrize("name", CASES)
def test_scip_on_matrix_formats(name, to, form, tmp_path, scip):
    solved(name, to, tmp_path, scip, reformulation=form)


@pytest.mark.parametrize("name", CASES)
def test_scip_on_nl(name, tmp_path, scip):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    solved(name, "nl", tmp_path, scip)


def test_scip_on_a_nonlinear_follower(tmp_path, scip):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    bl.export(bl.parse(problems.EXP), to="nl", path=tmp_path / "e.nl")
    assert scip(tmp_path / "e.nl")[1] == pytest.approx(0.37143982, abs=1e-5)


def test_scip_on_quadratic_rows(tmp_path, scip):
    # y = (x1, x2 + 1) / its norm: a grid over x gives the optimum.
    import numpy as np

    a, b = np.meshgrid(np.linspace(-1, 1, 801), np.linspace(-1, 1, 801))
    norm = np.hypot(a, b + 1) + 1e-12
    best = np.min((a - 1) ** 2 + (a / norm - 0.6) ** 2 + ((b + 1) / norm - 0.8) ** 2 + b**2)
    bl.export(bl.parse(problems.BALL), to="lp", path=tmp_path / "ball.lp")
    assert scip(tmp_path / "ball.lp")[1] == pytest.approx(best, abs=1e-4)


def test_scip_on_a_family_of_followers(tmp_path, scip):
    import numpy as np

    price = np.linspace(0, 1, 100001)
    best = 0.1 * price + sum(((price * w + 1) / 2 - w) ** 2 for w in (0.2, 0.5, 0.9))
    bl.export(bl.parse(problems.FAMILY), to="lp", path=tmp_path / "family.lp")
    assert scip(tmp_path / "family.lp")[1] == pytest.approx(best.min(), abs=1e-6)


@pytest.mark.parametrize(("name", "bound"), [("p1", 20.0), ("dempe", 20.0), ("flow", 3.0)])
def test_big_m_in_highs_glpk_and_scip(name, bound, tmp_path, highs, glpk, scip):
    text, expected, _ = problems.KNOWN[name]
    options = {"reformulation": "big-m", "dual_bound": bound}
    for to in ("lp", "mps"):
        bl.export(bl.parse(text), to=to, path=tmp_path / f"m.{to}", options=options)
        assert sign(text) * highs(tmp_path / f"m.{to}") == pytest.approx(expected)
        assert sign(text) * scip(tmp_path / f"m.{to}")[1] == pytest.approx(expected)
    bl.export(bl.parse(text), to="ampl", path=tmp_path / "m.mod", options=options)
    assert sign(text) * glpk(tmp_path / "m.mod") == pytest.approx(expected)
    assert sign(text) * glpk(tmp_path / "m.lp") == pytest.approx(expected)


def test_a_big_m_that_is_too_small_is_written_where_it_can_be_seen(tmp_path, highs):
    options = {"reformulation": "big-m", "dual_bound": 0.4}
    bl.export(bl.parse(problems.P1), to="lp", path=tmp_path / "m.lp", options=options)
    # The file is wrong, silently, as the format has it: hence the header.
    assert highs(tmp_path / "m.lp") == pytest.approx(-2.0)
    assert "f.c4: P = 24, D = 0.40" in (tmp_path / "m.lp").read_text()


def test_readers_without_sos_say_so(tmp_path, highs):
    bl.export(bl.parse(problems.P1), to="lp", path=tmp_path / "s.lp")
    assert highs(tmp_path / "s.lp") is None


def test_mps_aux_pairs(tmp_path, scip, shared):
    values = json.loads((shared / "mps_aux" / "values.json").read_text())
    for record in values:
        model = bl.read(shared / "mps_aux" / f"{record['name']}.mps")
        for to in ("lp", "mps"):
            bl.export(model, to=to, path=tmp_path / f"m.{to}")
            status, value = scip(tmp_path / f"m.{to}")
            assert status == record["status"], record["name"]
            assert value == (None if record["F"] is None else pytest.approx(record["F"], rel=1e-6))
