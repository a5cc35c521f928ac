"""A bound program as functions of two flat vectors.

Gradients are ``torch.autograd.grad``; second-order products differentiate the gradient once more
in reverse, through one graph that is kept: a product costs about two gradients, and no data matrix
is ever differentiated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.errors import UsageError
from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.objectives import level_total, lower_objective, upper_objective
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.constraints import ConstraintFunction
from bilevelpy.lowering.differentiate import batched_gradients, gradient, gradients
from bilevelpy.lowering.graph import Compiled, compile_expressions
from bilevelpy.lowering.layout import Layout, domain, layout, start
from bilevelpy.lowering.memory import widest
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.slots import DataTensors
from bilevelpy.lowering.structured import StructuredHessian, structured_hessian

Vec = Tensor
Named = dict[str, np.ndarray[Any, Any]]
# Entries that the batched products of a dense Hessian may take at once (256 MB).
BATCH_ENTRIES = 32_000_000


class TorchOracle:
    """The oracle of a bound program (:class:`bilevelpy.lowering.protocol.Oracle`).

    Parameters
    ----------
    bound
        Program and data. Arrays are used where they lie.
    dtype, device
        Of all computations.
    """

    def __init__(
        self,
        bound: BoundProgram,
        *,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> None:
        program = bound.program
        self.bound = bound
        self.dtype = dtype
        self.device = torch.device(device)
        self.upper = layout(bound, [program.upper])
        self.lower = layout(bound, program.lowers)
        self.n, self.m = self.upper.dim, self.lower.dim
        self.domain_x = domain(bound, self.upper, dtype)
        self.domain_y = domain(bound, self.lower, dtype)
        self.x0 = start(bound, self.upper, self.domain_x, dtype).to(self.device)
        self.y0 = start(bound, self.lower, self.domain_y, dtype).to(self.device)
        self.counts = Counts()
        self.tensors = DataTensors(bound.data, dtype, self.device)
        self._variables = _variables(program.builder, (self.upper, self.lower))
        self._functions: dict[tuple[tuple[Expr, ...], tuple[VarRef, ...]], Callable[..., Any]] = {}
        self.F_expr, self.F_sign = upper_objective(program)
        self.f_expr, self.f_sign = lower_objective(program)
        self._F = self.function((self.F_expr,))
        self._f = self.function((self.f_expr,))
        layouts = (self.upper, self.lower)
        self.G = ConstraintFunction(bound, [program.upper], layouts, self.function)
        self.g = ConstraintFunction(bound, program.lowers, layouts, self.function)

    # --- programs ---------------------------------------------------------------------------------

    def compiled(self, expressions: tuple[Expr, ...], more: tuple[VarRef, ...] = ()) -> Compiled:
        """The graph of expressions of the program; ``.code`` shows it."""
        variables = (*self._variables, *more)
        return compile_expressions(
            self.bound.program.builder, expressions, variables, self.tensors.sparse
        )

    def function(
        self, expressions: tuple[Expr, ...], more: tuple[VarRef, ...] = ()
    ) -> Callable[..., Any]:
        """Expressions as a function of the variables' tensors (upper, then lower), with the data
        in place.

        ``more`` are further inputs, behind the variables of the program.
        """
        key = (expressions, more)
        if key not in self._functions:
            compiled = self.compiled(expressions, more)
            values = self.tensors.resolve(compiled.slots, self.bound.program.externs)
            self._functions[key] = compiled.bind(values)
        return self._functions[key]

    # --- values -----------------------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return self._F(*self.upper.split(x), *self.lower.split(y)).item()  # type: ignore[no-any-return]

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        return self._f(*self.upper.split(x), *self.lower.split(y)).item()  # type: ignore[no-any-return]

    # --- gradients --------------------------------------------------------------------------------

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        """F, dF/dx and dF/dy in one evaluation."""
        self.counts.F += 1
        self.counts.grad_F += 1
        return self._value_grad_F(x, y)

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """(dF/dx, dF/dy)."""
        self.counts.grad_F += 1
        return self._value_grad_F(x, y)[1:]

    def _value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        value = self._F(*xs, *ys)
        grads = gradient(value, [*xs, *ys])
        return (
            value.item(),
            self.upper.join(grads[: len(xs)], x),
            self.lower.join(grads[len(xs) :], y),
        )

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one evaluation."""
        self.counts.f += 1
        self.counts.grad_f += 1
        ys = self.lower.leaves(y)
        value = self._f(*self.upper.split(x), *ys)
        return value.item(), self.lower.join(gradient(value, ys), y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.grad_f += 1
        ys = self.lower.leaves(y)
        return self.lower.join(gradient(self._f(*self.upper.split(x), *ys), ys), y)

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        xs = self.upper.leaves(x)
        return self.upper.join(gradient(self._f(*xs, *self.lower.split(y)), xs), x)

    # --- second order -----------------------------------------------------------------------------

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y) and reused by every product."""
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        first = self._first(xs, ys)
        inputs = [*ys, *xs]

        def product(v: Vec) -> tuple[Vec, Vec]:
            self.counts.hvp += 1
            self.counts.jvp += 1
            parts = gradients(first, inputs, self.lower.split(v))
            return self.lower.join(parts[: len(ys)], v), self.upper.join(parts[len(ys) :], v)

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        ys = self.lower.leaves(y)
        first = self._first(self.upper.split(x), ys)

        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return self.lower.join(gradients(first, ys, self.lower.split(v)), v)

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v`` (length n)."""
        xs, ys = self.upper.leaves(x), self.lower.leaves(y)
        first = self._first(xs, ys)

        def product(v: Vec) -> Vec:
            self.counts.jvp += 1
            return self.upper.join(gradients(first, xs, self.lower.split(v)), v)

        return product

    def _first(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """df/dy with its graph."""
        self.counts.grad_f += 1
        return gradient(self._f(*xs, *ys), ys, create=True)

    @cached_property
    def structured(self) -> StructuredHessian | None:
        """f_yy by the affine predictors of f, where its form allows it."""
        return structured_hessian(self)

    @property
    def hessian_price(self) -> float:
        """About how many values with gradients a dense Hessian with its factor is worth."""
        if self.structured is None:
            return 3.0 + self.m / 50  # batched products
        gradient, hessian = self.structured.work
        return hessian / gradient

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor."""
        if self.structured is not None:
            return self.structured.dense(x, y)
        ys = self.lower.leaves(y)
        first = self._first(self.upper.split(x), ys)
        self.counts.hvp += self.m
        step = max(1, min(self.m, BATCH_ENTRIES // max(1, widest(self.bound, (self.f_expr,))[0])))
        rows = []
        for low in range(0, self.m, step):
            high = min(low + step, self.m)
            unit = torch.zeros(high - low, self.m, dtype=self.dtype, device=self.device)
            unit[:, low:high].fill_diagonal_(1.0)
            weights = [unit[:, p.start : p.stop].reshape(-1, *p.shape) for p in self.lower.pieces]
            parts = batched_gradients(first, ys, weights)
            flat = [
                unit.new_zeros(high - low, p.stop - p.start)
                if part is None
                else part.reshape(high - low, -1)
                for p, part in zip(self.lower.pieces, parts, strict=True)
            ]
            rows.append(torch.cat(flat, 1))
        H = torch.cat(rows) if rows else y.new_zeros(0, 0)
        return 0.5 * (H + H.T)

    # --- names and expressions --------------------------------------------------------------------

    def evaluate(self, expression: Expr, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        """Any expression of the program at a point."""
        value = self.function((expression,))(*self.upper.split(x), *self.lower.split(y))
        return value.detach().cpu().numpy()  # type: ignore[no-any-return]

    def tensor(self, expression: Expr) -> Tensor:
        """A data-only expression as a tensor, shared with the compiled programs."""
        return self.tensors.tensor(expression)

    def report(self, name: str, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        """A report of the model at a point."""
        reports = self.bound.program.reports
        if name not in reports:
            raise UsageError(f"there is no report {name!r}")
        return self.evaluate(reports[name].value, x, y)

    def objectives(self, x: Vec, y: Vec) -> dict[str, float]:
        """Level name -> value of its objective (summed over a family), in the sense it is written
        in.
        """
        program = self.bound.program
        return {
            level.name: float(self.evaluate(level_total(program, level), x, y))
            for level in program.levels
        }

    def unflatten_x(self, x: Vec) -> Named:
        """Upper variables by name: views of ``x``."""
        return {name: array for (_, name), array in self.upper.names(x).items()}

    def unflatten_y(self, y: Vec) -> dict[str, Named]:
        """Lower variables by follower and name: views of ``y``."""
        named: dict[str, Named] = {level.name: {} for level in self.bound.program.lowers}
        for (level, name), array in self.lower.names(y).items():
            named[level][name] = array
        return named

    def flatten_x(self, values: Mapping[str, Any]) -> Vec:
        """``x`` from upper variables by name; those not given keep their start."""
        return self.upper.flatten({("upper", name): v for name, v in values.items()}, self.x0)

    def flatten_y(self, values: Mapping[str, Mapping[str, Any]]) -> Vec:
        """``y`` from lower variables by follower and name; those not given keep their start."""
        flat = {(level, name): v for level, part in values.items() for name, v in part.items()}
        return self.lower.flatten(flat, self.y0)


def _variables(builder: Any, layouts: tuple[Layout, Layout]) -> tuple[VarRef, ...]:
    return tuple(builder.var(*p.key, p.variable.axes) for part in layouts for p in part.pieces)
