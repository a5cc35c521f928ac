"""Two runs from one start where Phi is quadratic in pieces: the better end counts, and what is
carried on from between them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends import registry
from bilevelpy.numerics.driver.carried import Carried, Damaged
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.driver.runs import RunResult
from bilevelpy.numerics.upper import eliminated, two_ways
from bilevelpy.options import SolveOptions
from bilevelpy.system import storage
from tests.unit.lowering.programs import oracle as oracle_of
from tests.unit.numerics.test_carried import Seen, through_a_file
from tests.unit.numerics.test_pieces import Enumerated, data, model, text

Change = Callable[[Carried], Carried]
# Problems with 6 and 8 variables, and which of their two runs ends lower.
TWICE = [
    ("simplex", 7, "second"), ("box", 6, "second"), ("simplex", 0, "first"), ("box", 11, "first"),
]  # fmt: skip


def course(domain: str, seed: int, size: int = 6, **given: Any) -> RunResult:
    """A run among ``size`` and a third more variables."""
    callback = given.pop("callback", None)
    oracle = oracle_of(text(domain), **data(seed, size, size + size // 3))
    options = SolveOptions("direct", **given)
    return run(oracle, registry.get("direct"), None, options, callback=callback)


@pytest.mark.parametrize("domain", ["simplex", "box"])
def test_ends_are_lower_than_without_pieces(domain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And never higher, for the second run is one without them."""
    with_pieces = [course(domain, seed) for seed in range(15)]
    monkeypatch.setattr(eliminated, "LARGEST_IN_PIECES", 0)
    without = [course(domain, seed) for seed in range(15)]
    ratios = np.array([a.F / b.F for a, b in zip(with_pieces, without, strict=True)])
    assert ratios.max() <= 1.0 + 1e-9
    assert np.exp(np.log(ratios).mean()) < 0.999
    assert sum(r.iterations for r in with_pieces) < 1.5 * sum(r.iterations for r in without)


def test_steps_between_pieces_end_where_they_lead_no_further(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They went on to the limit on iterations, and left none to the second run."""
    found = course("box", 6, 40)
    monkeypatch.setattr(two_ways, "STILL", 0.0)
    assert found.F < 0.7 * course("box", 6, 40).F


def test_a_second_run_that_flattens_out_above_the_first_ends() -> None:
    def behind(latest: float) -> bool:
        values = [9.0, *np.linspace(8.0, latest, two_ways.WINDOW + 1)]
        rival = SimpleNamespace(end=SimpleNamespace(F=6.0))
        return two_ways._is_behind(SimpleNamespace(values=values), rival)

    assert behind(8.0 - 1e-4)
    assert not behind(8.0 - 1e-3)
    assert not behind(5.0)


def back_at_start(Fs: list[float]) -> int:
    """The iteration at which the second run begins."""
    return Fs.index(Fs[0], 1)


@pytest.mark.parametrize(("domain", "seed", "lower"), TWICE)
def test_the_better_end_counts(domain: str, seed: int, lower: str) -> None:
    """Also where a limit or a callback stops the second run."""
    whole = course(domain, seed)
    Fs = [record.F for record in whole.history]
    begins = back_at_start(Fs)
    first = course(domain, seed, max_iter=begins)
    assert first.status == "converged" == course(domain, seed, max_iter=begins - 1).status
    assert Fs[begins - 1] == first.F
    second = min(Fs[begins:-1])
    assert {"first": first.F, "second": whole.F}[lower] == whole.F
    assert (second > first.F) == (lower == "first")
    problem = Enumerated(domain, data(seed, 6, 8))
    for most in {*range(begins + 1, len(Fs) - 1, 9), len(Fs) - 2}:
        limited = course(domain, seed, max_iter=most)
        stopped = course(domain, seed, callback=lambda now, most=most: now.iteration == most)
        status = "converged" if Fs[most] > first.F else "iteration_limit"
        assert (limited.status, stopped.status) == (status, "interrupted")
        for found in (limited, stopped):
            assert min(first.F, Fs[most]) == found.F
            assert [record.F for record in found.history] == Fs[: most + 1]
            assert problem.F(found.x.numpy()) == pytest.approx(found.F, rel=1e-9)
            y = problem.respond(found.x.numpy())[0]
            np.testing.assert_allclose(found.y.numpy(), y, atol=1e-9)


def test_no_second_run_without_pieces_in_the_first() -> None:
    """Shares above: their face is no choice of coordinates, and both runs would be the same."""
    simplex = text("box").replace("var x[n]", "var x[n] in simplex")
    oracle = oracle_of(simplex, **data(1, 6, 8))
    found = run(oracle, registry.get("direct"), None, SolveOptions("direct"))
    Fs = [record.F for record in found.history]
    assert found.status == "converged"
    assert Fs[0] not in Fs[1:]


def test_runs_are_the_same_again() -> None:
    first, again = (bl.solve(model("box", 3, 6, 8), backend="direct") for _ in range(2))
    assert first.F == again.F
    assert first.counts == again.counts


# --- carried on -----------------------------------------------------------------------------------


def drive(most: int, start: Seen | None = None, change: Change | None = None) -> list[Seen]:
    """The iterations of a run among 12 shares."""
    oracle, seen = oracle_of(text("simplex"), **data(7, 12, 12)), list[Seen]()

    def keep(record: Any, m: Any, capture: Callable[[], Carried | None]) -> None:
        found = capture()
        assert found is not None
        seen.append(Seen(m.x.clone(), m.y.clone(), m.F, through_a_file(found)))

    carried = None if start is None else start.carried
    if change is not None:
        assert carried is not None
        carried = change(carried)
    run(
        oracle, registry.get("direct"), None, SolveOptions("direct", tol=1e-8, max_iter=most),
        start=None if start is None else (start.x, start.y), keep=keep, carried=carried,
    )  # fmt: skip
    return seen


@pytest.fixture(scope="module")
def whole() -> list[Seen]:
    return drive(200)


def test_from_every_moment_the_same_points(whole: list[Seen]) -> None:
    """In the first run, at the start of the second one, in it, and at the end."""
    back = back_at_start([s.F for s in whole])
    assert 4 < back < len(whole) - 4
    for at_ in (1, back // 2, back - 1, back, back + 2, (back + len(whole)) // 2, len(whole) - 1):
        rest = drive(200, whole[at_])
        assert len(rest) == len(whole) - at_
        for a, b in zip(rest, whole[at_:], strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)
            assert a.F == b.F


def test_cut_again_and_again(tmp_path: Path) -> None:
    """By limits in the first run."""
    path, whole = tmp_path / "run.ckpt", bl.solve(model("simplex", 5, 6, 8), backend="direct")
    for limits in ({"max_iter": 1}, {"max_iter": 2}, {}):
        part = bl.solve(model("simplex", 5, 6, 8), backend="direct", checkpoint=path, resume=True,
                        **limits)  # fmt: skip
        assert part.status == ("iteration_limit" if limits else "converged")
    assert np.array_equal(part["x"], whole["x"])
    assert [r.F for r in part.history] == [r.F for r in whole.history]


def _newton(tree: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = tree["state"]["with"]["response"]["with"]["newton"]["with"]
    return found


def _other_size(place: int) -> Change:
    """The pieces with an array of another size in one place."""

    def change(known: Carried) -> Carried:
        tree, arrays = json.loads(storage.dumps(dict(known.tree))), list(known.arrays)
        for piece in _newton(tree)["pieces"]["list"]:
            arrays.append(np.delete(arrays[piece["tuple"][place]["array"]], -1, 0))
            piece["tuple"][place] = {"array": len(arrays) - 1}
        return Carried(tree, tuple(arrays))

    return change


def _other(name: str, value: Any) -> Change:
    def change(known: Carried) -> Carried:
        tree = json.loads(storage.dumps(dict(known.tree)))
        _newton(tree)[name] = value
        return Carried(tree, known.arrays)

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(_other_size(place) for place in (1, 3, 4)),
        _other("pieces", 3),
        _other("pieces", {"list": [{"tuple": [1, 2]}]}),
        _other("short", "a"),
        _other("on", None),
    ],
)
def test_damaged_pieces_are_refused(change: Change, whole: list[Seen]) -> None:
    with pytest.raises(Damaged):
        drive(200, whole[3], change)
