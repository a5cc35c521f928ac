"""Messages speak of objectives in the sense of the model: those of a model that maximises are those
of its mirror image, with the other words.
"""

import pytest
import torch

import bilevelpy as bl
from bilevelpy.numerics.certificate.examine import certify
from bilevelpy.numerics.certificate.local import certify_local
from bilevelpy.numerics.certificate.local_probe import Probe
from bilevelpy.options import SolveOptions
from bilevelpy.reductions.rows import system
from bilevelpy.solving import oracle

LEADER = "upper {{ var x; {F}; }} lower l {{ var y; minimize (y - x)^2; }}"
FOLLOWER = "upper {{ var x; minimize (x - 1)^2 + y; }} lower l {{ var y in [-9, 9]; {f}; }}"


def both(frame: str, name: str, expr: str) -> tuple[bl.Model, bl.Model]:
    """A model whose level minimises ``expr``, and its mirror image."""
    words = f"minimize {expr}", f"maximize -({expr})"
    least, most = (bl.parse(frame.format(**{name: w})) for w in words)
    return least, most


def told(model: bl.Model, x: float, y: float) -> str:
    functions = oracle(model)
    rng = torch.Generator().manual_seed(1)
    at = (torch.tensor([v], dtype=torch.float64) for v in (x, y))
    found = certify(functions, *at, None, SolveOptions(), rng)
    assert found.kind == "none"
    return "; ".join(found.reasons)


def test_an_objective_without_a_bound() -> None:
    falls, rises = (
        bl.solve(model, backend="direct", progress=False) for model in both(LEADER, "F", "x + y")
    )
    assert falls.status == rises.status == "unbounded"
    assert "F falls without bound: -" in falls.message
    assert rises.message == falls.message.replace("falls", "rises").replace(": -", ": ")
    assert [r.F for r in rises.history] == [-r.F for r in falls.history]


def test_a_better_point_beside_x() -> None:
    falls, rises = (told(model, 0.0, 0.0) for model in both(LEADER, "F", "(x - 1)^2 + y^2"))
    assert "F(x, y(x)) falls by" in falls
    assert rises == falls.replace("falls", "rises")


def test_a_better_response() -> None:
    falls, rises = (told(model, 0.5, 0.6) for model in both(FOLLOWER, "f", "(y - x)^2"))
    assert "the lower objective still falls by" in falls
    assert rises == falls.replace("falls", "rises")


@pytest.mark.parametrize(
    ("frame", "name", "expr", "words"),
    [
        (LEADER, "F", "x^2 + y", ("falls", "rises")),
        (FOLLOWER, "f", "(y - x)^2", ("still falls by", "still rises by")),
    ],
)
def test_followers_that_are_solved_as_programs(
    frame: str, name: str, expr: str, words: tuple[str, str]
) -> None:
    for model, word in zip(both(frame, name, expr), words, strict=True):
        rows = system(model.bound)
        v = rows.columns.start.copy()
        v[:] = 0.5 if name == "F" else (0.5, 0.7)
        seen = Probe(4, 0.25, None) if name == "F" else Probe(4, 0.0, None)
        found = certify_local(rows, v, seen, convex=True, known=None, seed=1, deadline=1e12)
        assert any(word in reason for reason in found.reasons), found.reasons
