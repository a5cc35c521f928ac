"""AMPL with `complements`: no free reader has that keyword (AMPL itself is proprietary and in no
package index), so that GLPK reads linear models with every pair as two halves, and functions that
are not linear are evaluated from the text.
"""

import families
import numpy as np
import problems
import pytest
from ampl_reader import evaluated, gmpl, solved

import bilevelpy as bl
from bilevelpy.exporters.conditions import slack_tree
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.rows import system

NONLINEAR = [text for text, *_ in families.QUADRATIC[:4]]
NONLINEAR += [problems.B88, problems.EXP, problems.BALL, problems.FAMILY, problems.NASH]
NONLINEAR += [problems.STACKELBERG, problems.BIDDING, problems.INVESTMENT]


@pytest.fixture(params=["rows", "loops"])
def large(request, monkeypatch):
    """Both ways of writing a model; True for loops with a data file."""
    if request.param == "loops":
        monkeypatch.setattr("bilevelpy.exporters.loops.LARGE", -1)
    return request.param == "loops"


def texts(text, tmp_path, large):
    path = tmp_path / "m.mod"
    bl.export(bl.parse(text), to="ampl", path=path)
    return path.read_text(), path.with_suffix(".dat").read_text() if large else None


def test_glpk_finds_the_optimum_of_linear_models(tmp_path, large):
    pytest.importorskip("swiglpk", reason="needs GLPK (pip install swiglpk)")
    cases = [*families.LINEAR, problems.KNOWN["p1"], problems.KNOWN["flow"]]
    for text, expected, high_point in cases:
        model, data = gmpl(*texts(text, tmp_path, large))
        (tmp_path / "g.mod").write_text(model)
        if large:
            (tmp_path / "g.dat").write_text(data)
        value = solved(tmp_path / "g.mod", tmp_path / "g.dat" if large else None)
        sign = -1 if "maximize" in text.partition("\nlower")[0] else 1
        assert sign * value == pytest.approx(expected, abs=1e-6)
        assert abs(sign * value - high_point) > 1e-3


@pytest.mark.parametrize("text", NONLINEAR, ids=lambda t: t.split()[1])
def test_every_row_is_that_of_the_conditions(text, tmp_path, large):
    model, data = texts(text, tmp_path, large)
    found = kkt(system(bl.parse(text).bound))
    rng = np.random.default_rng(4)
    for _ in range(3):
        point = rng.uniform(0.1, 2.0, found.columns.count)
        objective, rows, slacks = evaluated(model, point.tolist(), data)
        assert objective == pytest.approx(found.objective.value(point)[0], rel=1e-9, abs=1e-9)
        expected = sorted(sc.evaluate(slack_tree(found, p), point.tolist()) for p in found.pairs)
        assert sorted(slacks.values()) == pytest.approx(expected, rel=1e-9, abs=1e-9)
        paired = {p.row for p in found.pairs}
        values = found.rows.functions.value(point)
        kept = [r for r in range(found.rows.count) if r not in paired]
        inside = [(found.rows.lower[r], values[r], found.rows.upper[r]) for r in kept]
        # A constant may stand on either side.
        distance = [(v - a, b - v) for a, v, b in inside]
        shown = [(v - a, b - v) for a, v, b in rows.values()]
        assert np.array(sorted(shown)) == pytest.approx(np.array(sorted(distance)), rel=1e-9)


def test_names_stand_in_the_data(tmp_path, monkeypatch):
    monkeypatch.setattr("bilevelpy.exporters.loops.LARGE", -1)
    bl.export(bl.parse(problems.TOLL), to="ampl", path=tmp_path / "m.mod")
    assert "'k[12]'" in (tmp_path / "m.dat").read_text()
    assert "'lam.flow.room[12]'" in (tmp_path / "m.dat").read_text()
    text = (tmp_path / "m.mod").read_text()
    assert "var w{j in WHOLE} integer, >= low[j], <= high[j];" in text
    assert "data 'm.dat';" in text
