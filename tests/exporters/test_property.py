"""Random programs with every trap of writers and readers in them: two readers for each format give
the same optimum, which is computed here from the vertices.
"""

import warnings

import gmpl_reader
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bilevelpy as bl
from bilevelpy.exporters import consumers
from bilevelpy.ir.serial import digest
from bilevelpy.reductions.rows import system

LABELS = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters='"\\{}'),
    min_size=1, max_size=8,
)  # fmt: skip
SETTINGS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def programs(draw):
    """A leader's box program with a copying follower: (text, optimum, data).

    max or min of c'x + d'y + constant with y = x: each entry lies at one of its ends.
    """
    labels = draw(st.lists(LABELS, min_size=1, max_size=4, unique_by=lambda s: s.strip()))
    labels = [label for label in labels if label.strip()] or ["a"]
    long = draw(st.booleans())
    if long:
        labels = [f"{label}{'-' * 300}{k}" for k, label in enumerate(labels)]
    count = len(labels)
    numbers = st.integers(-50, 50).map(lambda v: v / 8)
    c = np.array([draw(numbers) for _ in range(count)])
    low = np.array([float(draw(st.integers(-9, 3))) for _ in range(count)])
    high = low + np.array([float(draw(st.integers(0, 6))) for _ in range(count)])
    constant = draw(numbers)
    whole = draw(st.booleans())
    sense = draw(st.sampled_from(["minimize", "maximize"]))
    open_end = draw(st.booleans())
    domain = "integers(lo, hi)" if whole else "[lo, hi]"
    if open_end:
        # The bounds stand in rows: the columns themselves have none.
        domain = "integers(-inf, inf)" if whole else "[-inf, inf]"
    rows = "subject to least[s in S]: x[s] >= lo[s]; most[s in S]: x[s] <= hi[s];" * open_end
    text = f"""
    model traps "constant, sense, bounds and names";
    set S; param c[S], lo[S], hi[S], k;
    upper {{ var x[S] in {domain}; {sense} sum(c[s]*y[s] for s in S) + k; {rows} }}
    lower f {{ var y[S] in [-20, 20]; minimize sum(y); subject to copy[s in S]: y[s] >= x[s]; }}
    """
    pick = np.minimum if sense == "minimize" else np.maximum
    value = float(np.sum(pick(c * low, c * high)) + constant)
    # NumPy scalars are data like any other.
    data = {"S": labels, "c": c, "lo": low, "hi": high, "k": np.float64(constant)}
    return text, value, data, -1.0 if sense == "maximize" else 1.0, open_end


def big_m(model, to, path, open_end):
    """Write the form with constants; a column without bounds has none."""
    options = {"reformulation": "big-m", "dual_bound": 5}
    if open_end:
        with pytest.raises(bl.ExportError, match="BLV0708"):
            bl.export(model, to=to, path=path, options=options)
        return False
    bl.export(model, to=to, path=path, options=options)
    return True


@pytest.mark.parametrize("to", ["lp", "mps"])
@SETTINGS
@given(made=programs())
def test_matrix_formats(to, made, tmp_path, scip, highs, glpk):
    text, value, data, sign, open_end = made
    model = bl.parse(text, data=data)
    path = tmp_path / f"m.{to}"
    bl.export(model, to=to, path=path)
    status, found = scip(path)
    assert status == "optimal"
    assert sign * found == pytest.approx(value, abs=1e-6)
    if not big_m(model, to, path, open_end):
        return
    assert sign * highs(path) == pytest.approx(value, abs=1e-6)
    if to == "lp":
        assert sign * glpk(path) == pytest.approx(value, abs=1e-6)


@SETTINGS
@given(made=programs())
def test_gmpl_and_nl(made, tmp_path, scip, glpk):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    text, value, data, sign, open_end = made
    model = bl.parse(text, data=data)
    bl.export(model, to="nl", path=tmp_path / "m.nl")
    assert sign * scip(tmp_path / "m.nl")[1] == pytest.approx(value, abs=1e-6)
    if big_m(model, "ampl", tmp_path / "m.mod", open_end):
        assert sign * glpk(tmp_path / "m.mod") == pytest.approx(value, abs=1e-6)
        if consumers.beside("gmpl") is not None:
            found, _ = gmpl_reader.optimum((tmp_path / "m.mod").read_text(), gmpl_reader.parser())
            assert sign * found == pytest.approx(value, abs=1e-6)
    ca = pytest.importorskip("casadi", reason="needs casadi (pip install casadi)")
    bl.export(model, to="nl", path=tmp_path / "p.nl", options={"reformulation": "products"})
    read = ca.NlpBuilder()
    read.import_nl(str(tmp_path / "p.nl"))
    # Only the order of columns is a file's own: at a point with equal entries it does not matter.
    point = np.full(len(read.x), 0.75)
    objective = ca.Function("f", [ca.vertcat(*read.x)], [read.f])
    expected = system(model.bound).objective.value(point[: 2 * len(data["S"])])[0]
    assert float(objective(point)) == pytest.approx(expected)


@SETTINGS
@given(made=programs())
def test_mps_aux_and_json(made, tmp_path, scip):
    text, value, data, sign, _ = made
    model = bl.parse(text, data=data)
    bl.export(model, to="json", path=tmp_path / "m.json")
    assert digest(bl.read(tmp_path / "m.json").bound) == digest(model.bound)
    options = {"force": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        bl.export(model, to="mps-aux", path=tmp_path / "m.mps", options=options)
    again = bl.read(tmp_path / "m.mps")
    bl.export(again, to="lp", path=tmp_path / "again.lp")
    assert scip(tmp_path / "again.lp")[1] == pytest.approx(sign * value, abs=1e-6)
