"""Random linear and quadratic bilevel programs: every way out gives the same optimum."""

import random
import warnings

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.exporters.verify import verify
from bilevelpy.importers.blv_text import linear
from bilevelpy.ir.serial import digest


def random_text(seed):
    """A bounded program with two variables at each level; odd seeds have a quadratic follower."""
    rng = np.random.default_rng(seed)
    names = ["x1", "x2", "y1", "y2"]

    def body(entries):
        return linear(list(zip(entries, rng.integers(-4, 5, len(entries)).tolist(), strict=True)))

    rows = [f"    r{k}: {body(names)} <= {int(rng.integers(2, 12))};" for k in range(3)]
    quadratic = " + y1^2 + 2*y2^2 - y1*y2" if seed % 2 else ""
    sense = ["minimize", "maximize"][seed // 2 % 2]
    lower = f"{body(names)} + x1*y2" + quadratic
    if sense == "maximize":
        lower = f"-({lower})"
    return f"""
    model random{seed};
    upper {{
      var x1 in [0, 5], x2 in integers(-3, 4);
      {["minimize", "maximize"][seed // 4 % 2]} {body(names)} + {int(rng.integers(-9, 9))};
    }}
    lower f {{
      var y1 in [-2, 6], y2 in [0, 5];
      {sense} {lower};
      subject to
    {chr(10).join(rows)}
    }}
    """


@pytest.mark.parametrize("seed", range(12))
def test_all_ways_agree(seed, tmp_path, scip):
    model = bl.parse(random_text(seed))
    found = {}
    for to, form in [("lp", "sos1"), ("lp", "indicators"), ("mps", "sos1"), ("mps", "indicators")]:
        path = tmp_path / f"{form}.{to}"
        bl.export(model, to=to, path=path, options={"reformulation": form})
        found[to, form] = scip(path)
    statuses = {status for status, _ in found.values()}
    assert len(statuses) == 1
    values = [value for _, value in found.values()]
    if statuses == {"infeasible"}:
        return
    assert values == pytest.approx([values[0]] * len(values), rel=1e-5, abs=1e-5)
    report = verify(model.bound, "lp", tmp_path / "sos1.lp")
    assert report.passed, report.message


@pytest.mark.parametrize("seed", range(12))
def test_json_of_random_models(seed, tmp_path):
    model = bl.parse(random_text(seed))
    bl.export(model, to="json", path=tmp_path / "m.json")
    assert digest(bl.read(tmp_path / "m.json").bound) == digest(model.bound)


LABELS = ["a", "b c", "x+y", "é:%&", "Ω", "1e5", "free", "end", "[", "a]b", "n" * 300 + "1",
          "n" * 300 + "2", "st", "$x", "#c"]  # fmt: skip


def hostile(seed):
    """Text and data with what readers stumble over: odd names, scalars and empty sets, bounds below
    zero and fixed variables, whole numbers, constants, squares and products with the coefficient 0,
    rows with one end, two or none, an upper objective that reads no follower, a second follower.
    """
    pick = random.Random(seed)
    labels, n = pick.sample(LABELS, pick.randint(1, 3)), pick.randint(1, 3)

    def numbers(count):
        return np.array([pick.choice([0, 1, -1, 2, -3, 0.5, -2.25]) for _ in range(count)])

    low, (sense, lower) = pick.choice([-9, -4, 0]), pick.choices(["minimize", "maximize"], k=2)
    x = pick.choice([f"[{low}, {low + 5}]", f"integers({low}, {low + 5})", "binary", "[-9, -2]"])
    z = pick.choice(["[-4, 4]", "integers(-2, 3)", "[-3, -1]"])
    y = pick.choice(["[-6, 9]", "[-20, -1]", "[0, 4]", "[2, 2]"])
    square = pick.choice(["0*sum(y^2)", "sum(q*y^2)", "0*z*sum(y)", "sum(q*y^2) + 0.5*sum(y)^2"])
    objective = f"{square} + sum((d[i] + 0.5*z)*y[i] for i in 1..n) + 3"
    above = ["sum(c[s]*x[s] for s in S) + z - sum(y) + k", "z", "sum(d*y) + k*z + 5"]
    rows = [
        "r1[s in S]: sum(A[s, i]*y[i] for i in 1..n) <= u[s] + x[s] + 30",
        "r2: -8 <= sum(y) + z <= 12",
        "r3[s in NONE]: y[1] + c[s]*x[s] <= 40",
        "r4: z <= 50",
        "r5[i in 1..n where i > 5]: y[i] <= 1",
        "r6[s in S]: y[1] - x[s] <= open[s]",
    ]
    chosen = "; ".join(pick.sample(rows, pick.randint(1, 4)))
    second = "lower g { var v in [-3, 5]; minimize v^2 - z*v + v; }" if seed % 3 == 0 else ""
    text = f"""
    model hostile{seed};
    set S; set NONE within S; dim n;
    param c[S], d[n], k, q[n], A[S, n], u[S], open[S] in [0, inf];
    upper {{ var x[S] in {x}, z in {z}; {sense} {pick.choice(above)}; }}
    lower f {{ var y[n] in {y}; {lower} {"-" * (lower == "maximize")}({objective});
      subject to {chosen}; }}
    {second}
    """
    count = len(labels)
    data = {
        "S": labels, "NONE": [], "c": numbers(count), "d": numbers(n), "k": float(numbers(1)[0]),
        "q": np.abs(numbers(n)) + 0.5, "A": numbers(count * n).reshape(count, n),
        "u": numbers(count), "open": np.array([np.inf, 40.0, np.inf])[:count],
    }  # fmt: skip
    return text, data


@pytest.mark.parametrize("seed", range(24))
def test_hostile_models(seed, tmp_path, scip, highs, glpk):
    pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    text, data = hostile(seed)
    model = bl.parse(text, data=data)
    big_m = {"reformulation": "big-m", "dual_bound": 1000}
    found = {}
    for to in ("lp", "mps", "nl"):
        bl.export(model, to=to, path=tmp_path / f"m.{to}")
        found[to] = scip(tmp_path / f"m.{to}")
    assert {status for status, _ in found.values()} == {"optimal"}
    value = found["lp"][1]
    assert [v for _, v in found.values()] == pytest.approx([value] * 3, rel=1e-5, abs=1e-5)
    report = verify(model.bound, "lp", tmp_path / "m.lp")
    assert report.passed, report.message
    bl.export(model, to="json", path=tmp_path / "m.json")
    assert digest(bl.read(tmp_path / "m.json").bound) == digest(model.bound)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        try:
            bl.export(model, to="mps-aux", path=tmp_path / "a.mps", options={"force": True})
        except bl.ExportError:
            linear = False
        else:
            linear = True
    if linear:
        bl.export(bl.read(tmp_path / "a.mps"), to="lp", path=tmp_path / "again.lp")
        assert scip(tmp_path / "again.lp")[1] == pytest.approx(value, rel=1e-5, abs=1e-5)
    try:
        bl.export(model, to="ampl", path=tmp_path / "m.mod", options=big_m)
    except bl.ExportError:
        return
    bl.export(model, to="mps", path=tmp_path / "b.mps", options=big_m)
    assert glpk(tmp_path / "m.mod") == pytest.approx(value, rel=1e-5, abs=1e-5)
    assert highs(tmp_path / "b.mps") == pytest.approx(value, rel=1e-5, abs=1e-5)
