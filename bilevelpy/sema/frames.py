"""A level while it is elaborated."""

from __future__ import annotations

from dataclasses import dataclass

from bilevelpy.ir.types import Axes
from bilevelpy.sema.scope import Context
from bilevelpy.sema.values import Iterators
from bilevelpy.syntax import ast


@dataclass(frozen=True, slots=True)
class Frame:
    """A level while it is elaborated: its block, its context, its family."""

    name: str
    block: ast.Upper | ast.Lower
    context: Context
    family: Axes
    iters: Iterators
