"""What the writers of equations share: the optimality conditions as texts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bilevelpy.exporters.expressions import TEXT_LIMIT, Style, text, unsupported
from bilevelpy.exporters.families import written_size
from bilevelpy.exporters.naming import Namer
from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.optimality.conditions import KKT, Pair
from bilevelpy.reductions.optimality.kkt import kkt
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rows import Functions, Rows, system
from bilevelpy.reductions.trees import tree_of

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.exporters.base import Options
    from bilevelpy.ir.program import BoundProgram


@dataclass(frozen=True, slots=True)
class Line:
    """A row as text: ``low <= body <= high`` (infinite where open)."""

    name: str
    body: str
    low: float
    high: float
    kind: str
    row: int


class Writer:
    """Texts of the functions of a program in one style, with the names of a target."""

    def __init__(
        self, bound: BoundProgram, target: str, style: Style, namer: Namer, names: tuple[str, ...]
    ) -> None:
        self.bound, self.target, self.style = bound, target, style
        self.namer = namer
        self.names = namer.names(names)

    def function(self, functions: Functions, row: int, span: Span | None) -> str:
        """One function."""
        return self.tree(tree_of(functions, row), span)

    def tree(self, tree: sc.Scalar, span: Span | None) -> str:
        """A tree; a function that the target does not have is an error with its place."""
        self.require(tree, span)
        try:
            return text(self.style, tree, self.names)
        except MemoryError as error:
            raise refuse(
                self.bound.program,
                "BLV0706",
                span,
                "has to be written out in one expression",
                hint="formats that keep tensors (json, latex, torch, onnx) take the model as it is",
                count=f"{written_size([tree]):,}",
                limit=f"{TEXT_LIMIT:,} characters",
            ) from error

    def require(self, tree: sc.Scalar, span: Span | None) -> None:
        """Refuse a tree with functions that the target does not have."""
        missing = unsupported(self.style, tree)
        if missing:
            raise refuse(
                self.bound.program,
                "BLV0701",
                span,
                target=self.target,
                what=f"the function `{min(missing)}`",
            )

    def kept(self, rows: Rows) -> Iterator[int]:
        """Every row that says something."""
        for r in range(rows.count):
            low, high = float(rows.lower[r]), float(rows.upper[r])
            if low == -np.inf and high == np.inf:
                continue
            if _is_constant(rows.functions, r):
                value = float(rows.functions.value(np.zeros(len(self.names)))[r])
                if low - 1e-9 <= value <= high + 1e-9:
                    continue
                raise refuse(
                    self.bound.program,
                    "BLV0701",
                    rows.spans[r],
                    "it never holds",
                    target=self.target,
                    what=f"the row `{rows.names[r]}` without variables",
                )
            yield r

    def lines(self, rows: Rows, kinds: tuple[str, ...] | None = None) -> Iterator[Line]:
        """Every row that says something, as text."""
        for r in self.kept(rows):
            body = self.function(rows.functions, r, rows.spans[r])
            kind = kinds[r] if kinds is not None else ""
            low, high = float(rows.lower[r]), float(rows.upper[r])
            yield Line(self.namer.name(rows.names[r]), body, low, high, kind, r)


def _is_constant(functions: Functions, row: int) -> bool:
    """Whether a function reads no column."""
    stack, seen = [functions.trees[row]] if row in functions.trees else [], set[int]()
    while stack:
        node = stack.pop()
        if isinstance(node, sc.Col):
            return False
        if isinstance(node, sc.Call) and id(node) not in seen:
            seen.add(id(node))
            stack.extend(node.arguments)
    return row in functions.trees or not functions.reads(row)


def conditions(bound: BoundProgram, target: str, options: Options) -> KKT:
    """The optimality conditions of a program."""
    return kkt(lift(system(bound), leader=True), target, options.force)


def slack_tree(conditions: KKT, pair: Pair) -> sc.Scalar:
    """The slack of a pair."""
    if pair.row is None:
        assert pair.column is not None
        value: sc.Scalar = sc.Col(pair.column)
        low = float(conditions.columns.lower[pair.column])
        high = float(conditions.columns.upper[pair.column])
    else:
        value = tree_of(conditions.rows.functions, pair.row)
        low = float(conditions.rows.lower[pair.row])
        high = float(conditions.rows.upper[pair.row])
    if pair.side == "lower":
        return sc.add(value, sc.Num(-low))
    is_sum = isinstance(value, sc.Call) and value.function == "add"
    terms = value.arguments if isinstance(value, sc.Call) and is_sum else (value,)
    return sc.add(sc.Num(high), *(sc.mul(sc.Num(-1.0), t) for t in terms))
