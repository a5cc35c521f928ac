"""Constraints of a level in standard form, as one vector function of (x, y)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.analysis.feasible import nonaffine
from bilevelpy.analysis.forms.form import Forms
from bilevelpy.analysis.forms.scope import make_scope, names_of
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import BoundProgram, Constraint, Level
from bilevelpy.ir.types import Relation
from bilevelpy.lowering.programs.differentiate import batched_gradients, gradient, gradients
from bilevelpy.lowering.programs.layout import Layout

if TYPE_CHECKING:
    from bilevelpy.ir.build import Builder


@dataclass(frozen=True, slots=True)
class Rows:
    """Entries ``start`` to ``stop`` of a constraint vector: relation ``part`` of a constraint, its
    bodies flattened.
    """

    level: str
    constraint: Constraint
    part: int
    equality: bool
    start: int
    stop: int


def standard_bodies(builder: Builder, constraint: Constraint) -> list[tuple[Expr, bool]]:
    """``(body, is equality)`` of each relation: ``body <= 0`` or ``body == 0``, over the
    constraint's axes.
    """
    bodies = []
    for k, relation in enumerate(constraint.relations):
        left, right = constraint.terms[k], constraint.terms[k + 1]
        if relation is Relation.GE:
            left, right = right, left
        body = builder.sub(left, right, constraint.span)
        if body.axes != constraint.axes:
            body = builder.align(body, (None,) * len(constraint.axes), constraint.axes)
        bodies.append((body, relation is Relation.EQ))
    return bodies


class ConstraintFunction:
    """``c(x, y)`` in R^p, with entries ``<= 0`` or, where ``equality``, ``== 0``; ``compile``
    makes its function.
    """

    def __init__(
        self,
        bound: BoundProgram,
        levels: Sequence[Level],
        layouts: tuple[Layout, Layout],
        compile: Callable[[tuple[Expr, ...]], Callable[..., Any]],
    ) -> None:
        self._bound = bound
        builder = bound.program.builder
        rows: list[Rows] = []
        bodies: list[Expr] = []
        start = 0
        for level in levels:
            for constraint in level.constraints:
                size = prod(bound.data.sizes[a] for a in constraint.axes)
                for part, (body, equality) in enumerate(standard_bodies(builder, constraint)):
                    rows.append(Rows(level.name, constraint, part, equality, start, start + size))
                    bodies.append(body)
                    start += size
        self.rows = tuple(rows)
        self.size = start
        self.equality = torch.zeros(start, dtype=torch.bool)
        for r in rows:
            self.equality[r.start : r.stop] = r.equality
        self._upper, self._lower = layouts
        self._function = compile(tuple(bodies)) if bodies else None
        self._constant: tuple[Tensor, Tensor] | None = None

    def values(self, x: Tensor, y: Tensor) -> Tensor:
        """The bodies at a point."""
        return self._flat(x, self._upper.split(x), self._lower.split(y)).detach()

    def violation(self, x: Tensor, y: Tensor) -> Tensor:
        """How far each row is from holding."""
        values = self.values(x, y)
        return torch.where(self.equality, values.abs(), values.clamp_min(0.0))

    def vjp(self, x: Tensor, y: Tensor) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """``u -> (c_x' u, c_y' u)``."""
        xs, ys = self._upper.leaves(x), self._lower.leaves(y)
        flat = self._flat(x, xs, ys)

        def product(u: Tensor) -> tuple[Tensor, Tensor]:
            grads = gradient(flat, [*xs, *ys], u, retain=True)
            return self._upper.join(grads[: len(xs)], u), self._lower.join(grads[len(xs) :], u)

        return product

    def jvp(self, x: Tensor, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """``(dx, dy) -> c_x dx + c_y dy``: the vjp is linear in u, so its own vjp is the product
        wanted.
        """
        xs, ys = self._upper.leaves(x), self._lower.leaves(y)
        flat = self._flat(x, xs, ys)
        u = torch.zeros_like(flat).requires_grad_()
        back = gradient(flat, [*xs, *ys], u, retain=True, create=True)

        def product(dx: Tensor, dy: Tensor) -> Tensor:
            along = [*self._upper.split(dx), *self._lower.split(dy)]
            total = gradients(back, [u], along)[0]
            return torch.zeros_like(u).detach() if total is None else total

        return product

    def jacobian(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``(c_x, c_y)`` as dense (p, n) and (p, m) matrices, by rows or by columns, whichever are
        fewer: a pass costs the text of all rows. Those of rows that are affine in both levels are
        made once, and not to be written into.
        """
        if self._constant is not None:
            return self._constant
        made = self._jacobian(x, y)
        if bool(self.affine.all()):
            self._constant = made
        return made

    @cached_property
    def affine(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Which rows are affine in x and y together (proved from their text)."""
        program = self._bound.program
        levels = (program.upper, *program.lowers)
        roots = [t for level in levels for c in level.constraints for t in c.terms]
        both = names_of((program.upper,)) | names_of(program.lowers)
        forms = Forms(make_scope(self._bound, roots, both, frozenset()))
        curved = {id(c) for c in nonaffine(forms, levels)}
        found = np.zeros(self.size, dtype=bool)
        for part in self.rows:
            found[part.start : part.stop] = id(part.constraint) not in curved
        return found

    def _jacobian(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        n, m = x.numel(), y.numel()
        if n + m < self.size:
            forward, eye = self.jvp(x, y), torch.eye(n + m, dtype=x.dtype)
            columns = torch.stack([forward(e[:n], e[n:]) for e in eye], dim=1)
            return columns[:, :n], columns[:, n:]
        xs, ys = self._upper.leaves(x), self._lower.leaves(y)
        flat = self._flat(x, xs, ys)
        parts = batched_gradients([flat], [*xs, *ys], [torch.eye(self.size, dtype=x.dtype)])
        return self._rows(self._upper, parts[: len(xs)], x), self._rows(
            self._lower, parts[len(xs) :], y
        )

    def _rows(self, layout: Layout, parts: Sequence[Tensor | None], like: Tensor) -> Tensor:
        rows = [
            layout.join([None if p is None else p[k] for p in parts], like)
            for k in range(self.size)
        ]
        return torch.stack(rows) if rows else like.new_zeros((0, like.numel()))

    def jacobian_y(self, x: Tensor, y: Tensor) -> tuple[Tensor, bool]:
        """``c_y`` as a dense (p, m) matrix, and whether it may depend on x."""
        xs, ys = self._upper.leaves(x), self._lower.leaves(y)
        flat = self._flat(x, xs, ys)
        parts = batched_gradients([flat], ys, [torch.eye(self.size, dtype=x.dtype)])
        back = gradient(flat, ys, torch.ones_like(flat), retain=True, create=True)
        live = [b for b in back if b is not None]
        moves = any(g is not None for g in gradients(live, xs, [torch.ones_like(b) for b in live]))
        return self._rows(self._lower, parts, y), moves

    def twice(self, x: Tensor, y: Tensor, u: Tensor) -> Callable[[Tensor], Tensor]:
        """``v -> (u'c)_xy v``."""
        xs, ys = self._upper.leaves(x), self._lower.leaves(y)
        back = gradient(self._flat(x, xs, ys), ys, u, retain=True, create=True)

        def product(v: Tensor) -> Tensor:
            return self._upper.join(gradients(back, xs, self._lower.split(v)), x)

        return product

    def _flat(self, like: Tensor, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Tensor:
        if self._function is None:
            return like.new_zeros(0)
        outputs = self._function(*xs, *ys)
        parts = outputs if isinstance(outputs, tuple) else (outputs,)
        return torch.cat([p.reshape(-1) for p in parts])
