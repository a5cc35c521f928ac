"""Followers whose objective falls for ever, whatever the leader does."""

import pytest

import bilevelpy as bl
from bilevelpy.backends.exact.certificate.infeasible import boundless
from bilevelpy.reductions.rows import system

MODEL = "upper {{ var x in [0, 1]; minimize x + y; }} lower f {{ var {var}; {rest} }}"


@pytest.mark.parametrize(
    ("var", "rest", "falls"),
    [
        ("y", "minimize -y^2 + x * y;", True),
        ("y in [0, inf]", "minimize -y^2 + x * y;", True),
        ("y in [-1, 5]", "minimize -y^2 + x * y;", False),
        ("y in [0, inf]", "minimize -y^2 + x * y; subject to a: y <= 3 + x;", False),
        ("y in [0, inf]", "minimize -y^2 + x * y; subject to a: y >= 3 + x;", True),
        ("y, z", "minimize y^2 + z^2 - 3 * y * z;", True),  # along y = z
        ("y, z", "minimize y^2 + z^2 - y * z;", False),
        ("y, z in [0, 1]", "minimize y^2 + z^2 - 3 * y * z;", False),
        ("y in integers(0, inf)", "minimize x * y - 2 * y^2;", True),
        ("y", "minimize -x * y^2;", False),  # what x does to it is not looked at
    ],
)
def test_curvature_that_has_no_end(var, rest, falls):
    model = bl.parse(MODEL.format(var=var, rest=rest))
    assert boundless(system(model.bound)) == (0 if falls else None)


def test_a_follower_that_falls_for_ever_leaves_no_answer():
    """It took all of a time limit, and ended with F = -4e20."""
    model = bl.parse(MODEL.format(var="y", rest="minimize -y^2 + x * y;"))
    for backend in ("exact", "auto"):
        result = bl.solve(model, backend=backend, time_limit=30)
        assert result.status.value == "infeasible"
        assert "unbounded at every x" in result.message
        assert result.certificate.kind == "global"
