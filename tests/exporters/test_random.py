"""Random linear and quadratic bilevel programs: every way out gives the same optimum."""

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
