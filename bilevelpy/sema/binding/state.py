"""What one binding knows so far."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bilevelpy.diagnostics import Diagnostic, Fix, Label, Span, diagnostic
from bilevelpy.ir.elements import label_at
from bilevelpy.ir.evaluate import Array, evaluate
from bilevelpy.ir.program import Data
from bilevelpy.sema.binding.raw import Array as RawArray
from bilevelpy.sema.binding.raw import Given

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.program import Program
    from bilevelpy.ir.types import Axis


@dataclass(frozen=True, slots=True)
class Setter:
    """What set the size of an axis: a place in the model and words."""

    span: Span | None
    text: str


@dataclass(slots=True)
class State:
    """The tables that binding fills; ``failed`` holds axes and params with a reported error."""

    program: Program
    given: dict[str, Given] = field(default_factory=dict)
    given_axes: dict[str, tuple[Any, str]] = field(default_factory=dict)
    sizes: dict[Axis, int] = field(default_factory=dict)
    labels: dict[Axis, tuple[Any, ...]] = field(default_factory=dict)
    members: dict[Axis, Array] = field(default_factory=dict)
    arrays: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, RawArray] = field(default_factory=dict)
    externs: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    setters: dict[Axis, Setter] = field(default_factory=dict)
    named: dict[Axis, Any] = field(default_factory=dict)
    failed: set[object] = field(default_factory=set)
    diagnostics: list[Diagnostic] = field(default_factory=list)

    @property
    def data(self) -> Data:
        """The tables as they are now (shared, not copied)."""
        return Data(self.sizes, self.labels, self.members, self.arrays, self.externs, self.origins)

    def value(self, expr: Expr) -> Array:
        """The value of a data expression."""
        return evaluate(expr, self.data)

    def report(
        self,
        code: str,
        span: Span | None,
        label: str = "",
        *,
        poison: object = None,
        secondary: tuple[Label, ...] = (),
        notes: tuple[str, ...] = (),
        hint: str | None = None,
        fix: Fix | None = None,
        **values: object,
    ) -> None:
        """Add a diagnostic; ``poison`` is the axis or name whose users stay silent from now on."""
        if poison is not None:
            self.failed.add(poison)
        self.diagnostics.append(
            diagnostic(
                code,
                span,
                label,
                secondary=secondary,
                notes=notes,
                hint=hint,
                fix=fix,
                **values,
            )
        )

    def set_size(self, axis: Axis, size: int, span: Span | None, text: str) -> None:
        """Record the size of an axis with what set it."""
        self.sizes[axis] = size
        self.setters[axis] = Setter(span, text)

    def element(self, axis: Axis, position: int) -> str:
        """An element of an axis as it is written in a model."""
        return label_text(label_at(axis, int(position), self.data, self.value))

    def entry(self, name: str, axes: Iterable[Axis], place: Iterable[int]) -> str:
        """An entry of a param: ``cost["a", 3]``."""
        parts = [self.element(a, k) for a, k in zip(axes, place, strict=True)]
        parts = [p[1:-1] if p.startswith("(") else p for p in parts]
        return f"{name}[{', '.join(parts)}]" if parts else name

    def source_text(self, span: Span | None) -> str:
        """The text of the model under a span, on one line."""
        if span is None or span.file not in self.program.sources:
            return ""
        return " ".join(self.program.sources[span.file].text[span.start : span.end].split())


def label_text(label: Any) -> str:
    """A label as it is written in a model."""
    if isinstance(label, tuple):
        return "(" + ", ".join(label_text(part) for part in label) + ")"
    return f'"{label}"' if isinstance(label, str) else number_text(label)


def number_text(value: Any) -> str:
    """A number without digits that say nothing."""
    number = float(value)
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else f"{number:.6g}"


def listed(items: Iterable[str], limit: int = 3) -> str:
    """``a, b, c and 5 more``."""
    every = list(items)
    shown = ", ".join(every[:limit])
    return shown if len(every) <= limit else f"{shown} and {len(every) - limit} more"


def close_to(name: str, candidates: Iterable[str]) -> str | None:
    """The most similar candidate, for `did you mean`."""
    names = list(candidates)
    lower = {n.lower(): n for n in names}
    if name.lower() in lower:
        return lower[name.lower()]
    found = difflib.get_close_matches(name, names, 1, 0.6)
    return found[0] if found else None
