"""What runs carry from one iteration to the next: as data and back, for every backend; data of
something else are refused.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.analysis.structure import Structure
from bilevelpy.backends import registry
from bilevelpy.backends.whole import ProgramBackend
from bilevelpy.lowering.domains.product import Face
from bilevelpy.numerics.driver.carried import Carried, Damaged, InStep, NotCarried, Reader, taken
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.driver.packed import packed, unpacked
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature
from bilevelpy.numerics.lower.preconditioner import PairPreconditioner
from bilevelpy.numerics.lower.solve import LowerSolution
from bilevelpy.numerics.quasi_newton import BFGS, SR1
from bilevelpy.options import SolveOptions
from bilevelpy.system import storage
from bilevelpy.testing import CASES

Vec = torch.Tensor

DRIVEN = [n for n in registry.names() if not isinstance(registry.get(n), ProgramBackend)]
SHORT = 4
# One of these for every backend, and those that take special parts of the package.
FIRST = (
    "quadratic, kappa = 10", "ridge as a finite sum", "gap function", "merely convex",
    "semidefinite with a row", "coupled inequality",
)  # fmt: skip
SPECIAL = [
    ("direct", "kink"),
    ("direct", "simplex"),
    ("direct", "group lasso"),
    ("direct", "semidefinite"),
    ("aid", "lasso"),
    ("aid", "kink"),
    ("qnbo", "ridge"),
    ("f2ba", "ridge"),
]
# Loops that a penalty follows after so many iterations, and a case with one upper variable.
GIVEN: dict[str, tuple[str, dict[str, Any]]] = {
    "bome": ("quadratic, kappa = 10", {"first": 10**6}),
    "lvhba": ("gap function", {"first": 10**6, "stride": 10}),
    "pzobo": ("quadratic, kappa = 1", {"lower_steps": 5}),
}
OPTIONS = [
    ("aid", "ridge", {"variant": "shine", "lower": "lbfgs"}),
    ("aid", "ridge", {"upper": "gd", "upper_step": 0.1}),
    ("qnbo", "ridge", {"update": "sr1"}),
    ("nbo", "ridge", {"upper": "gd"}),
    ("itd", "ridge", {"upper": "adam", "upper_step": 0.1}),
    ("gaffa", "gap function", {"loop": "single"}),
    ("zo", "ridge", {"loop": "smoothing", "stride": 5, "count": 4}),
    ("f2sa", "ridge as a finite sum", {"metric": "rough", "prepare": "none"}),
    ("soba", "ridge as a finite sum", {"sampling": "random", "controller": "bisls"}),
]


def _model(case: str) -> bl.Model:
    known = next(c for c in CASES if c.name == case)
    return bl.parse(known.text, data=dict(known.data))


@cache
def _facts(case: str) -> Structure:
    return solving.structure(_model(case), 0)


def through_a_file(known: Carried) -> Carried:
    """As it comes back."""
    arrays, meta = packed(known)
    return unpacked({n: a.copy() for n, a in arrays.items()}, json.loads(storage.dumps(meta)))


@dataclass
class Seen:
    """An iteration: the point, and what the run carries on from there."""

    x: Vec
    y: Vec
    F: float
    carried: Carried | None


def drive(name: str, case: str, most: int, start: Seen | None = None, **options: Any) -> list[Seen]:
    """The iterations of a run in an oracle of its own."""
    facts, oracle, seen = _facts(case), solving.oracle(_model(case)), list[Seen]()

    def keep(record: Any, m: Any, capture: Callable[[], Carried | None]) -> None:
        found = capture()
        kept = None if found is None else through_a_file(found)
        seen.append(Seen(m.x.clone(), m.y.clone(), m.F, kept))

    settings = SolveOptions(name, tol=1e-10, max_iter=most, backend_options=options)
    at = None if start is None else (start.x, start.y)
    carried = None if start is None else start.carried
    run(oracle, registry.get(name), facts, settings, start=at, keep=keep, carried=carried)
    return seen


def _accepted(name: str) -> str:
    for case in FIRST:
        if registry.get(name).accepts(_facts(case)):
            return case
    raise AssertionError(f"`{name}` takes none of {FIRST}")


def check(name: str, case: str, **options: Any) -> None:
    """A run that goes on from the middle, and one from the end, take the same points."""
    whole = drive(name, case, SHORT, **options)
    assert len(whole) > 1
    for at in {len(whole) // 2, len(whole) - 1}:
        assert whole[at].carried is not None
        rest = drive(name, case, SHORT - at, whole[at], **options)
        assert len(rest) == len(whole) - at
        for a, b in zip(rest, whole[at:], strict=True):
            assert torch.equal(a.x, b.x)
            assert torch.equal(a.y, b.y)
            assert a.F == b.F


@pytest.mark.parametrize("name", DRIVEN)
def test_a_run_goes_on_as_if_it_had_not_been_ended(name: str) -> None:
    """To the last bit, what is random included."""
    case, options = GIVEN.get(name) or (_accepted(name), {})
    check(name, case, **options)


@pytest.mark.parametrize(("name", "case"), SPECIAL)
def test_faces_supports_and_sets(name: str, case: str) -> None:
    check(name, case)


@pytest.mark.parametrize(("name", "case", "options"), OPTIONS)
def test_further_forms_of_methods(name: str, case: str, options: dict[str, Any]) -> None:
    check(name, case, **options)


def test_a_method_that_goes_on_by_another_one_says_so() -> None:
    """The loop of ``bome`` is followed by a penalty, which a new run does not begin with."""
    seen = drive("bome", "ridge", 4, first=20)
    first, last = seen[1].carried, seen[-1].carried
    assert first is not None
    assert "later" not in first.tree
    assert last is not None
    assert "later" in last.tree


def test_nothing_is_taken_in_the_middle_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    backend, said = registry.get("direct"), list[bool]()

    def step(oracle: Any, state: Any, options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(backend, "step", step)
    model = bl.parse(
        "upper { var x; minimize (x - 1)^2 + y^2; } lower g { var y; minimize (y - x)^2; }"
    )
    captures: list[Callable[[], Carried | None]] = []
    run(
        solving.oracle(model), backend, None, SolveOptions(),
        keep=lambda record, m, capture: captures.append(capture),
    )  # fmt: skip
    try:
        captures[-1]()
    except InStep:
        said.append(True)
    assert said == [True]


# --- parts ----------------------------------------------------------------------------------------


def back(value: Any, fresh: Any = None, oracle: Any = None) -> Any:
    """A value that has been through a file."""
    known = taken({"it": value})
    assert known is not None
    return Reader(through_a_file(known)).read("it", fresh, oracle)


def test_plain_values() -> None:
    x = torch.tensor([1.0, 2.0], dtype=torch.float64)
    found = back({"a": [1, True, None, "s"], 2: (float("inf"), -0.0), "x": [x, x], "n": [0.1, 0.2]})
    assert found["a"] == [1, True, None, "s"]
    assert found[2] == (float("inf"), -0.0)
    assert found["x"][0] is found["x"][1], "what is shared stays shared"
    assert torch.equal(found["x"][0], x)
    assert found["n"] == [0.1, 0.2]
    queue = back(deque([1, 2], maxlen=5), deque(maxlen=5))
    assert (list(queue), queue.maxlen) == ([1, 2], 5)
    assert back(np.asfortranarray([[1.0, 2], [3, 4]])).flags.f_contiguous


def test_large_arrays_are_not_copied() -> None:
    large = np.asfortranarray(np.arange(300_000.0).reshape(300, 1000))
    known = taken({"it": [large, np.ones(2)]})
    assert known is not None
    arrays, _ = packed(known)
    assert any(part is large for part in arrays.values())
    np.testing.assert_array_equal(back([large, np.ones(2)])[0], large)


def test_a_source_of_random_numbers() -> None:
    rng = torch.Generator().manual_seed(3)
    torch.rand(5, generator=rng)
    found = back(rng, torch.Generator())
    assert torch.equal(torch.rand(4, generator=found), torch.rand(4, generator=rng))


@pytest.mark.parametrize("size", [3, 1200])
def test_quasi_newton_memories(size: int) -> None:
    """Beyond 1000 variables there is no table of products."""
    rng = torch.Generator().manual_seed(0)
    for memory in (BFGS(0.0, 4, rescale=True), SR1(1.0, 4)):
        for _ in range(6):
            s = torch.randn(size, generator=rng, dtype=torch.float64)
            memory.update(s, 2.0 * s + 0.1 * s.flip(0))
        found, v = back(memory), torch.randn(size, generator=rng, dtype=torch.float64)
        assert torch.equal(found.apply(v), memory.apply(v))
        memory.update(v, 3.0 * v)
        found.update(v, 3.0 * v)
        assert torch.equal(found.apply(s), memory.apply(s))


def test_a_preconditioner() -> None:
    rng = torch.Generator().manual_seed(0)
    memory = PairPreconditioner(5)
    for _ in range(10):
        p = torch.randn(8, generator=rng, dtype=torch.float64)
        memory.observe(p, 2.0 * p)
    memory.learn()
    v = torch.randn(8, generator=rng, dtype=torch.float64)
    assert torch.equal(back(memory)(v), memory(v))


class _Moving:
    """A Hessian that depends on where it is."""

    def hessian(self, x: Vec, y: Vec) -> Vec:
        return torch.diag(1.0 + y * y) + x.sum()


def test_a_matrix_is_computed_again_where_it_was() -> None:
    curvature, v = DenseCurvature(), torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    oracle: Any = _Moving()
    curvature.refresh(oracle, v[:2], v)
    curvature.settle(Face(3, torch.tensor([True, False, True])))
    curvature.rent = 2.5
    found = back(curvature, DenseCurvature(), oracle)
    assert found.rent == 2.5
    assert torch.equal(found.solve(v), curvature.solve(v))
    known = taken({"it": curvature})
    assert known is not None
    assert max(a.size for a in known.arrays) == 3, "no matrix is kept"


# --- refused --------------------------------------------------------------------------------------


def solution() -> LowerSolution:
    y = torch.ones(2, dtype=torch.float64)
    return LowerSolution(y, 1.0, y, 0.5, Face(2, None), 3, "reached")


def _changed(change: Callable[[dict[str, Any]], object]) -> Carried:
    known = taken({"it": solution()})
    assert known is not None
    content = json.loads(storage.dumps(dict(known.tree)))
    change(content["it"])
    return Carried(content, known.arrays)


@pytest.mark.parametrize(
    "change",
    [
        lambda it: it.update({"class": "subprocess:Popen"}),
        lambda it: it.update({"class": "bilevelpy.numerics.lower.solve:finish"}),
        lambda it: it.update({"class": "bilevelpy.numerics.driver.deadline:DeadlineOracle"}),
        lambda it: it.update({"class": "bilevelpy.options:SolveOptions"}),
        lambda it: it.update({"class": "bilevelpy.numerics.lower.solve:Step"}),
        lambda it: it.pop("class"),
        lambda it: it["with"].update({"__class__": 1}),
        lambda it: it["with"].update({"more": 1}),
        lambda it: it["with"].update({"y": 1.0}),
        lambda it: it["with"].update({"y": {"vector": 7}}),
        lambda it: it["with"].update({"y": {"vector": -1}}),
        lambda it: it["with"].update({"y": {"same": 9}}),
        lambda it: it["with"].update({"face": {**it, "object": 9}}),
        lambda it: it["with"].update({"face": [1]}),
        lambda it: it["with"].update({"f": "much"}),
        lambda it: it["with"].update({"ended": {"unheard": 1}}),
        lambda it: it["with"].update({"residual": {"number": "one"}}),
    ],
)
def test_what_no_run_has_left_is_refused(change: Callable[[dict[str, Any]], object]) -> None:
    with pytest.raises(Damaged):
        Reader(_changed(change)).read("it", solution())


def test_vectors_of_another_length_are_refused() -> None:
    known = taken({"it": solution()})
    assert known is not None
    longer = Carried(known.tree, tuple(np.append(a, 1.0) for a in known.arrays))
    with pytest.raises(Damaged, match="size"):
        Reader(longer).read("it", solution())
    with pytest.raises(Damaged):
        Reader(Carried({}, ())).read("it", solution())


def test_what_a_new_run_does_not_have_is_told() -> None:
    known = taken({"it": [print, 1]})
    assert known is not None
    assert Reader(known).read("it", [len, 2]) == [len, 1]
    with pytest.raises(NotCarried):
        Reader(known).read("it", None)


def test_states_that_are_nothing_but_wiring_or_no_numbers_are_not_taken() -> None:
    assert taken({"it": print}) is None
    assert taken({"it": np.array([1.0, np.nan])}) is None
    assert taken({"it": np.array([1j])}) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda a, m: m["arrays"].append(["float64", [1], False, False]),
        lambda a, m: m["arrays"][0].__setitem__(3, True),
        lambda a, m: a.update(carried_7=np.zeros(2)),
        lambda a, m: m["arrays"].pop(),
        lambda a, m: m["arrays"][0].__setitem__(1, [-1]),
        lambda a, m: m["arrays"][0].__setitem__(0, "object"),
        lambda a, m: a.update(carried_float64=a["carried_float64"] * np.nan),
        lambda a, m: a.update(carried_float64=a["carried_float64"].astype(np.float32)),
        lambda a, m: a.pop("carried_float64"),
        lambda a, m: m.update(tree=3),
    ],
)
def test_arrays_that_do_not_fit_are_refused(change: Callable[..., object]) -> None:
    known = taken({"it": solution()})
    assert known is not None
    arrays, meta = packed(known)
    meta = json.loads(storage.dumps(meta))
    change(arrays, meta)
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        unpacked(arrays, meta)
