"""The scalars of a bound program: every entry of a variable, or of a shadow price in use."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.ir.elements import label_at
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.types import DomainKind
from bilevelpy.ir.walk import duals, level_roots
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram, Variable
    from bilevelpy.ir.types import Axes

Array = np.ndarray[Any, np.dtype[Any]]

UPPER = 0
"""Owner of the upper variables; shadow prices are nobody's choice and have the owner -1."""
PRICE = -1
# Entries of one variable up to which their names are looked up.
MAX_ENTRIES = 2000


@dataclass(frozen=True, slots=True)
class Block:
    """A variable, or the shadow prices of a constraint: columns ``offset .. offset + size``."""

    level: str
    name: str
    shape: tuple[int, ...]
    offset: int
    is_dual: bool = False
    span: Span | None = None

    @property
    def size(self) -> int:
        """The number of columns."""
        return int(np.prod(self.shape, dtype=np.int64))


@dataclass(frozen=True, slots=True)
class Columns:
    """All columns, in the order of declaration: upper variables, lower ones, shadow prices.

    ``names[j]`` is readable (``x``, ``w[3]``, ``flow.f[a-b,13]``); a lower variable shows its level
    where another level has the same name. ``lower``/``upper`` are bounds (infinite where there are
    none), ``integer`` marks whole numbers (binary ones have the bounds 0 and 1), ``start`` the
    values to start from. ``owner[j]`` is 0 for an upper variable, k for a variable of the k-th
    follower (every element of a family is one, see ``System.followers``) and -1 for a shadow price.
    """

    names: tuple[str, ...]
    lower: Array
    upper: Array
    integer: Array
    start: Array
    owner: Array
    blocks: tuple[Block, ...]

    @property
    def count(self) -> int:
        """The number of columns."""
        return len(self.names)

    def block_of(self, column: int) -> Block | None:
        """The block that a column belongs to (None for one that a reformulation added)."""
        k = bisect_right(self.blocks, column, key=lambda block: block.offset)
        found = self.blocks[k - 1] if k else None
        return found if found is not None and column < found.offset + found.size else None

    def extended(
        self, names: list[str], lower: Array, upper: Array, integer: Array, owner: int = PRICE
    ) -> Columns:
        """With further columns at the end."""
        count = len(names)
        inside = np.clip(np.zeros(count), lower, upper)
        return replace(
            self,
            names=(*self.names, *names),
            lower=np.concatenate([self.lower, lower]),
            upper=np.concatenate([self.upper, upper]),
            integer=np.concatenate([self.integer, integer]),
            start=np.concatenate([self.start, inside]),
            owner=np.concatenate([self.owner, np.full(count, owner)]),
        )


def label_text(bound: BoundProgram, axes: Axes, place: tuple[int, ...]) -> str:
    """``[a-b,13]`` for an entry, nothing for a scalar."""
    if not axes:
        return ""
    parts: list[str] = []
    for axis, k in zip(axes, place, strict=True):
        label = label_at(axis, k, bound.data, lambda e: evaluate(e, bound.data))
        for part in label if isinstance(label, tuple) else (label,):
            parts.append(f"{part:g}" if isinstance(part, float) else str(part))
    return f"[{','.join(parts)}]"


def entry_names(bound: BoundProgram, name: str, axes: Axes) -> list[str]:
    """The name of every entry of a tensor, row by row."""
    shape = tuple(bound.data.sizes[a] for a in axes)
    return [name + label_text(bound, axes, place) for place in np.ndindex(*shape)]


def labels_of(bound: BoundProgram) -> dict[str, list[str]]:
    """``level.variable`` (``variable`` above) -> the names of its entries, row by row.

    Variables over dims and ranges are left out: their entries are counted from 1, which everybody
    can do.
    """
    found: dict[str, list[str]] = {}
    for level in bound.program.levels:
        prefix = "" if level is bound.program.upper else f"{level.name}."
        for v in level.variables:
            size = prod(bound.data.sizes[a] for a in v.axes)
            if not v.axes or size > MAX_ENTRIES:
                continue
            names = [n.strip("[]") for n in entry_names(bound, "", v.axes)]
            if any(not c.isdigit() for name in names for c in name.replace(",", "")):
                found[prefix + v.name] = names
    return found


def make_columns(bound: BoundProgram, *, matrices: bool = False) -> Columns:
    """Number the scalars of a program; entries of ``matrices`` are free where they are let in."""
    program = bound.program
    names: list[str] = []
    parts: list[tuple[Array, Array, Array, Array, Array]] = []
    blocks: list[Block] = []
    offset, first = 0, 1
    taken: dict[str, int] = {}
    for level in program.levels:
        for variable in level.variables:
            taken[variable.name] = taken.get(variable.name, 0) + 1
    for level in program.levels:
        members = int(np.prod([bound.data.sizes[a] for a in level.family], dtype=np.int64))
        for variable in level.variables:
            shape = tuple(bound.data.sizes[a] for a in variable.axes)
            block = Block(level.name, variable.name, shape, offset, span=variable.span)
            below = level is not program.upper
            shown = f"{level.name}." if below and taken[variable.name] > 1 else ""
            names += entry_names(bound, f"{shown}{variable.name}", variable.axes)
            low, high, whole = _domain(bound, variable, shape, matrices)
            each = block.size // members if members else 0
            owner = first + np.repeat(np.arange(members), each) if below else np.zeros(block.size)
            parts.append((low, high, whole, _start(bound, variable, low, high), owner))
            blocks.append(block)
            offset += block.size
        if level is not program.upper:
            first += members
    for level_name, constraint in sorted(_prices(bound)):
        level = program.level(level_name)
        found = next(c for c in level.constraints if c.name == constraint)
        shape = tuple(bound.data.sizes[a] for a in found.axes)
        block = Block(level_name, constraint, shape, offset, True, found.span)
        names += entry_names(bound, f"dual.{level_name}.{constraint}", found.axes)
        low, high = _price_bounds(bound, level_name, constraint, block.size)
        zero = np.clip(np.zeros(block.size), low, high)
        flags = np.zeros(block.size, dtype=bool)
        parts.append((low, high, flags, zero, np.full(block.size, PRICE)))
        blocks.append(block)
        offset += block.size
    columns = [np.concatenate([p[k] for p in parts]) if parts else np.zeros(0) for k in range(5)]
    low, high, whole, start, owner = columns
    return Columns(
        tuple(names), low, high, whole.astype(bool), start, owner.astype(np.int64), tuple(blocks)
    )


def without_prices(bound: BoundProgram) -> BoundProgram:
    """The same without declared bounds of shadow prices, which have columns of their own."""
    lowers = tuple(
        replace(v, assumptions=tuple(a for a in v.assumptions if a.constraint is None))
        for v in bound.program.lowers
    )
    return replace(bound, program=replace(bound.program, lowers=lowers))


def _prices(bound: BoundProgram) -> set[tuple[str, str]]:
    """Constraints whose shadow prices occur in the upper level, or are bounded by an assumption."""
    found = duals(level_roots(bound.program.upper))
    for level in bound.program.lowers:
        found |= {(level.name, a.constraint) for a in level.assumptions if a.constraint is not None}
    return found


def _price_bounds(
    bound: BoundProgram, level: str, constraint: str, size: int
) -> tuple[Array, Array]:
    low, high = np.full(size, -np.inf), np.full(size, np.inf)
    for fact in bound.program.level(level).assumptions:
        if fact.constraint == constraint:
            ends = [float(np.asarray(evaluate(a, bound.data))) for a in fact.arguments]
            low, high = np.maximum(low, ends[0]), np.minimum(high, ends[1])
    return low, high


def _domain(
    bound: BoundProgram, variable: Variable, shape: tuple[int, ...], matrices: bool
) -> tuple[Array, Array, Array]:
    """Bounds and integrality of every entry."""
    domain = variable.domain
    size = int(np.prod(shape, dtype=np.int64))
    low, high = np.full(size, -np.inf), np.full(size, np.inf)
    if domain.kind is DomainKind.PSD and not matrices:
        raise refuse(
            bound.program,
            "BLV0701",
            domain.span or variable.span,
            "a semidefinite variable has no scalar rows",
            target="a program of scalar rows",
            what=f"the domain of `{variable.name}`",
        )
    if domain.kind is DomainKind.BINARY:
        low, high = np.zeros(size), np.ones(size)
    elif domain.kind is DomainKind.SIMPLEX:
        low = np.zeros(size)
    else:
        if domain.lower is not None:
            low = (
                np.broadcast_to(evaluate(domain.lower, bound.data), shape).reshape(-1).astype(float)
            )
        if domain.upper is not None:
            high = (
                np.broadcast_to(evaluate(domain.upper, bound.data), shape).reshape(-1).astype(float)
            )
    return low, high, np.full(size, domain.is_discrete)


def _start(bound: BoundProgram, variable: Variable, low: Array, high: Array) -> Array:
    if variable.start is None:
        start = np.zeros(low.size)
    else:
        shape = tuple(bound.data.sizes[a] for a in variable.axes)
        start = np.broadcast_to(evaluate(variable.start, bound.data), shape).reshape(-1)
    return np.asarray(np.clip(start.astype(float), low, high))
