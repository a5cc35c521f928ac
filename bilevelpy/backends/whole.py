"""Backends that take a program as a whole and bring their own certificate, and what they answer."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard, runtime_checkable

import numpy as np

from bilevelpy.errors import BackendError
from bilevelpy.options import SolveOptions
from bilevelpy.result import Certificate, Status
from bilevelpy.system.deadline import TooLong, until

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram, Program
    from bilevelpy.numerics.driver.carried import Carried
    from bilevelpy.reductions.columns import Block, Columns
    from bilevelpy.reductions.rows import System

Named = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True)
class ProgramAnswer:
    """What a :class:`ProgramBackend` found: ``values`` of the columns of ``system`` (NaN without a
    point), shadow prices by ``level.constraint``, the final status and the certificate. ``seconds``
    passed before the certificate.
    """

    system: System
    values: np.ndarray
    duals: Mapping[str, np.ndarray]
    status: Status
    message: str
    certificate: Certificate | None
    iterations: int
    warnings: tuple[str, ...]
    seconds: float

    @property
    def has_point(self) -> bool:
        """Whether there are values."""
        return bool(np.isfinite(self.values).all())

    def variables(self) -> tuple[Named, dict[str, Named]]:
        """Upper variables by name, lower ones by level and name."""
        return by_name(self.system.bound.program, self.system.columns.blocks, self.values)

    def objectives(self) -> tuple[float, dict[str, float]]:
        """F and the objective of every follower, in the senses of the model; of a family, the
        sum.
        """
        s = self.system
        totals = dict.fromkeys((level.name for level in s.bound.program.lowers), math.nan)
        if not self.has_point:
            F = -math.inf if self.status is Status.UNBOUNDED else math.nan
            return s.sign * F, totals
        totals = dict.fromkeys(totals, 0.0)
        below = s.lower_objectives.value(self.values)
        for k, follower in enumerate(s.followers):
            totals[follower.level] += follower.sign * float(below[k])
        return s.sign * float(s.objective.value(self.values)[0]) + 0.0, totals


Observer = Callable[["System", np.ndarray, float, float, float], bool]
"""Sees every better point: system, values of its columns, F and bound (minimised), seconds since
the beginning. What it returns says whether the run has to stop."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a caller gives to a run: values of variables by name to ``start`` from, and who
    ``observe``s better points. ``known`` is what an earlier run has told ``keep`` of last: this one
    goes on as it would have. ``followed``: another method takes over where a proof is given up.
    """

    start: Mapping[str, Any] = field(default_factory=dict)
    observe: Observer | None = None
    keep: Callable[[Carried], None] | None = None
    known: Carried | None = None
    followed: bool = False


# How the message of a proof begins that another method takes over from.
GIVEN_UP = "given up"


@contextmanager
def writing(name: str, seconds: float) -> Iterator[None]:
    """A model is written out for a backend, which may take longer than the time that it has.

    Raises
    ------
    BackendError
        Where it does.
    """
    try:
        with until(time.perf_counter() + seconds):
            yield
    except TooLong as error:
        raise BackendError(
            f"the backend `{name}` could not write the model out row by row within {seconds:.3g} s"
        ) from error


def with_start(system: System, values: Mapping[str, Any]) -> System:
    """The program with other start values, as :func:`started` takes them."""
    return replace(system, columns=started(system.columns, values)) if values else system


def started(columns: Columns, values: Mapping[str, Any]) -> Columns:
    """Columns with other start values: arrays in their shapes by name (``x``, ``fit.w``)."""
    start = columns.start.copy()
    places = {b.name: b for b in columns.blocks if not b.is_dual}
    places |= {f"{b.level}.{b.name}": b for b in columns.blocks if not b.is_dual}
    for name, value in values.items():
        block = places[name]
        start[block.offset : block.offset + block.size] = np.reshape(value, -1)
    return replace(columns, start=np.clip(start, columns.lower, columns.upper))


def by_name(
    program: Program, blocks: Sequence[Block], values: np.ndarray
) -> tuple[Named, dict[str, Named]]:
    """Upper variables by name, lower ones by level and name."""
    upper: Named = {}
    lower: dict[str, Named] = {level.name: {} for level in program.lowers}
    for block in blocks:
        if not block.is_dual:
            part = values[block.offset : block.offset + block.size] + 0.0  # no -0
            (upper if block.level == "upper" else lower[block.level])[block.name] = part.reshape(
                block.shape
            )
    return upper, lower


def parts_of(blocks: Sequence[Block], values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The leader's and the followers' variables, as a checkpoint holds them."""
    own = [b for b in blocks if not b.is_dual]
    parts = [
        [values[b.offset : b.offset + b.size] for b in own if (b.level == "upper") is above]
        for above in (True, False)
    ]
    x, y = (np.concatenate([np.zeros(0), *part]) for part in parts)
    return x, y


def start_from(blocks: Sequence[Block], x: np.ndarray, y: np.ndarray) -> Named:
    """Values to start from by the names of variables; what ``parts_of`` took apart."""
    found: Named = {}
    rest = {True: x, False: y}
    for block in blocks:
        if not block.is_dual:
            above = block.level == "upper"
            part, rest[above] = rest[above][: block.size], rest[above][block.size :]
            found[f"{block.level}.{block.name}"] = part.reshape(block.shape)
    return found


@runtime_checkable
class ProgramBackend(Protocol):
    """A backend that takes a program as a whole and brings its own certificate."""

    def solve(
        self,
        bound: BoundProgram,
        options: SolveOptions,
        settings: Any,
        verify: bool,
        hooks: Hooks | None = None,
    ) -> ProgramAnswer:
        """Solve a bound program."""
        ...


def takes_programs(backend: Any) -> TypeGuard[ProgramBackend]:
    """Whether a backend is one of these."""
    return _takes_programs(type(backend))  # type: ignore[arg-type]


@cache
def _takes_programs(kind: type) -> bool:
    return issubclass(kind, ProgramBackend)  # looks at every attribute
