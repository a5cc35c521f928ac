"""What an AMPL file declares."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import lark

from bilevelpy.importers.ampl_file import Range
from bilevelpy.importers.faults import Text

Tree = lark.Tree[Any]


@dataclass(slots=True)
class Variable:
    """A declared variable with its attributes."""

    name: str
    members: Range | None
    attributes: list[Tree]
    line: int


@dataclass(slots=True)
class Row:
    """A constraint: terms and the relations between them."""

    name: str
    terms: list[Any]
    relations: list[str]
    line: int
    binder: tuple[str, Range] | None = None


@dataclass(slots=True)
class File:
    """What a file declares."""

    text: Text
    sets: dict[str, Range] = field(default_factory=dict)
    params: dict[str, float] = field(default_factory=dict)
    tables: dict[str, tuple[Range, dict[int, float]]] = field(default_factory=dict)
    variables: dict[str, Variable] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    objective: tuple[str, Any, int] | None = None
