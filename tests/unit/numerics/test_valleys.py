"""Runs whose response turns out to be no best one: f(x, .) has two minima, one lower on each side
of x = 0.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends.rescaled import Rescaled, RescaledState
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.scaled import Units

# The left minimum ends at x = 2 / sqrt(27) = 0.385, the right one at -0.385.
TEXT = """upper {{ var x start {start}; minimize (x - 1)^2 + {weight} * (y - {aim})^2; }}
lower fit {{ var y start -1; minimize y^4/4 - y^2/2 - x*y; }}"""
BACKENDS = ("direct", "aid")


# F falls to the end of the left minimum; along the right one it has a minimum, above that at x = 0.
OVER = {"start": -0.05, "weight": 1.0, "aim": -0.3}
# F falls to x > 0 along the left one and to x < 0 along the right one: to ends, or over edges.
BETWEEN = {"start": -1.0, "weight": 5.0, "aim": -1.0}
EDGES = {"start": -0.1, "weight": 3.0, "aim": 0.0}


def solved(numbers: dict[str, float], backend: str, **options) -> bl.Result:
    model = bl.parse(TEXT.format(**numbers))
    return bl.solve(model, backend=backend, progress=False, time_limit=20, **options)


def best(x: float) -> np.ndarray:
    """The best responses: roots of f_y where f is least."""
    roots = np.roots([1.0, 0.0, -1.0, -x])
    y = roots[np.abs(roots.imag) < 1e-9].real
    f = y**4 / 4 - y**2 / 2 - x * y
    return y[f <= f.min() + 1e-9]


def least(numbers: dict[str, float], low: float = -2.0) -> float:
    """F at the best response, over a grid; at x = 0 the leader chooses between both."""
    weight, aim, grid = numbers["weight"], numbers["aim"], np.linspace(low, 2, 1001)
    return min(((x - 1) ** 2 + weight * (best(x) - aim) ** 2).min() for x in grid)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_leaves_a_valley_before_it_ends_for_the_better_response(backend: str) -> None:
    found = solved(OVER, backend)
    assert found.success
    assert pytest.approx(least(OVER, 0.01), abs=1e-4) == found.F
    assert any("F rose where the run went on" in text for text in found.warnings)
    beside = next(text for text in found.warnings if "beside a jump" in text)
    assert pytest.approx(least(OVER), rel=0.1) == float(beside.split()[2])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("numbers", "why"), [(BETWEEN, "led back"), (EDGES, "in turn")])
def test_valleys_that_lead_to_each_other_end_at_the_best_point(numbers, why, backend) -> None:
    found = solved(numbers, backend)
    assert found.status == "stalled"
    assert why in found.message
    assert np.abs(best(float(found["x"])) - float(found["y"])).min() < 1e-5
    assert pytest.approx(least(numbers), rel=0.02) == found.F


def test_what_is_kept_is_carried(tmp_path) -> None:
    path = tmp_path / "run"
    first = solved(BETWEEN, "direct", checkpoint=path, max_iter=18)
    assert first.status == "iteration_limit"
    again = solved(BETWEEN, "direct", checkpoint=path, resume=True)
    whole = solved(BETWEEN, "direct")
    assert again.message == whole.message
    assert (again.F, again.iterations) == (whole.F, whole.iterations)


def test_what_a_scaled_run_keeps_is_in_the_units_of_the_model() -> None:
    one, two = torch.ones(1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64)
    kept = Measure(one, one, 0.0, 0.0, 0.0, 0.0)

    class Inner:
        name = title = reference = "inner"
        options = None

        def measure(self, oracle, state):
            return Measure(one, one, 1.0, 0.0, 0.0, 0.0, rival=kept)

    scaled = Rescaled(Inner(), Units(two, 3.0 * two))
    found = scaled.measure(None, RescaledState(None, None))
    assert (float(found.x), float(found.y)) == (2.0, 6.0)
    assert (float(found.rival.x), float(found.rival.y)) == (2.0, 6.0)
