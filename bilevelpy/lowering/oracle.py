"""A bound program as functions of two flat vectors.

Gradients and second-order products are programs of their own, derived from the expressions once
(:mod:`bilevelpy.lowering.derive`): an evaluation keeps no tape. Where a function has no rule there,
gradients are reverse differentiation at run time, and products differentiate the gradient once
more in reverse, through one graph that is kept. Either way a product costs about two gradients,
and no data matrix is ever differentiated.
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
from bilevelpy.lowering.arrays import array_function, wrapped
from bilevelpy.lowering.blocks import block_positions
from bilevelpy.lowering.constraints import ConstraintFunction
from bilevelpy.lowering.differentiate import batched_gradients, gradient, gradients
from bilevelpy.lowering.graph import Compiled, compile_expressions
from bilevelpy.lowering.layout import Layout, domain, layout, start
from bilevelpy.lowering.memory import check_memory, widest
from bilevelpy.lowering.preconditioning import Preconditioning
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.quadratic import (
    LARGEST,
    Expanded,
    QuadraticHessian,
    expanded,
    pays,
    quadratic_form,
)
from bilevelpy.lowering.slots import DataTensors
from bilevelpy.lowering.straight import Straight
from bilevelpy.lowering.structured import StructuredHessian, structured_hessian

Vec = Tensor
Named = dict[str, np.ndarray[Any, Any]]
# Arrays of at most so many entries gain nothing by torch's threads.
SMALL = 30_000
# Lower variables from which on blocks are worth their own factors.
MANY = 200
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
        check_memory(bound)
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
        self.program_variables = _variables(program.builder, (self.upper, self.lower))
        self._functions: dict[tuple[tuple[Expr, ...], tuple[VarRef, ...]], Callable[..., Any]] = {}
        self.xs = self.program_variables[: len(self.upper.pieces)]
        self.ys = self.program_variables[len(self.upper.pieces) :]
        self.F_expr, self.F_sign = upper_objective(program)
        self.f_expr, self.f_sign = lower_objective(program)
        self.arrays = self._prefers_arrays()
        self._F = self.program((self.F_expr,))
        self._dF = self.straight(self.F_expr)
        self._df = self.straight(self.f_expr)
        self._f = self._df.value()
        layouts = (self.upper, self.lower)
        self.G = ConstraintFunction(bound, [program.upper], layouts, self.function)
        self.g = ConstraintFunction(bound, program.lowers, layouts, self.function)

    # --- programs ---------------------------------------------------------------------------------

    def compiled(
        self, expressions: tuple[Expr, ...], inputs: tuple[VarRef, ...] | None = None
    ) -> Compiled:
        """The graph of expressions of the program; ``.code`` shows it."""
        variables = self.program_variables if inputs is None else inputs
        return compile_expressions(
            self.bound.program.builder, expressions, variables, self.tensors.sparse
        )

    def function(
        self, expressions: tuple[Expr, ...], inputs: tuple[VarRef, ...] | None = None
    ) -> Callable[..., Any]:
        """Expressions as a function of tensors, with the data in place.

        ``inputs`` are what it takes: the variables of the program (upper, then lower) unless given.
        """
        inputs = self.program_variables if inputs is None else inputs
        key = (expressions, inputs)
        if key not in self._functions:
            compiled = self.compiled(expressions, inputs)
            values = self.tensors.resolve(compiled.slots, self.bound.program.externs)
            self._functions[key] = compiled.bind(values)
        return self._functions[key]

    def program(
        self, expressions: tuple[Expr, ...], inputs: tuple[VarRef, ...] | None = None
    ) -> Callable[..., Any]:
        """The same as a function of NumPy arrays where ``arrays`` says that calls are what costs,
        else of tensors; inputs and results are what :meth:`parts`, :meth:`Layout.join` and
        :meth:`Layout.gather` take.
        """
        if not self.arrays:
            return self.function(expressions, inputs)
        compiled = self.compiled(expressions, inputs)
        values = self.tensors.resolve(compiled.slots, self.bound.program.externs)
        found = array_function(compiled.graph, values)
        return wrapped(self.function(expressions, inputs)) if found is None else found

    def _prefers_arrays(self) -> bool:
        """Whether the objectives are small, or torch has one thread and gains nothing."""
        if self.device.type != "cpu" or self.dtype is not torch.float64:
            return False
        if torch.get_num_threads() == 1:
            return True
        entries, _ = widest(self.bound, (self.F_expr, self.f_expr))
        arrays = self.bound.data.arrays.values()
        return bool(max(entries, *(a.size for a in arrays), 0) <= SMALL)

    def straight(self, objective: Expr) -> Straight:
        """The programs of an objective's derivatives."""
        return Straight(self.bound.program.builder, self.program, objective, self.xs, self.ys)

    def parts(self, x: Vec, y: Vec) -> list[Any]:
        """The variables at a point, as programs take them."""
        if self.arrays:
            return self.upper.arrays(x) + self.lower.arrays(y)
        return self.upper.split(x) + self.lower.split(y)

    def along(self, v: Vec) -> list[Any]:
        """A direction of the lower variables, as programs take it."""
        return self.lower.arrays(v) if self.arrays else self.lower.split(v)

    def joined(self, where: Layout, parts: Sequence[Any], like: Vec) -> Vec:
        """Results of a program as a vector."""
        return where.gather(parts) if self.arrays else where.join(parts, like)

    # --- values -----------------------------------------------------------------------------------

    def F(self, x: Vec, y: Vec) -> float:
        """The upper objective."""
        self.counts.F += 1
        return float(self._F(*self.parts(x, y)))

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        self.counts.f += 1
        if self.expanded is not None:
            return self.expanded.value_gradient(x, y)[0]
        return float(self._f(*self.parts(x, y))[0])

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
        program = self._dF.gradient(value=True, by_x=True, by_y=True)
        count = len(self.upper.pieces)
        if program is None:
            leaves = [*self.upper.leaves(x), *self.lower.leaves(y)]
            value = self.function((self.F_expr,))(*leaves)
            grads = gradient(value, leaves)
            return (
                value.item(),
                self.upper.join(grads[:count], x),
                self.lower.join(grads[count:], y),
            )
        value, *parts = program(*self.parts(x, y))
        return (
            float(value),
            self.joined(self.upper, parts[:count], x),
            self.joined(self.lower, parts[count:], y),
        )

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """The lower objective and df/dy in one evaluation."""
        self.counts.f += 1
        self.counts.grad_f += 1
        if self.expanded is not None:
            return self.expanded.value_gradient(x, y)
        program = self._df.gradient(value=True, by_x=False, by_y=True)
        if program is None:
            value, grads = self._taped(x, y, self.lower.leaves(y))
            return value, self.lower.join(grads, y)
        found, *parts = program(*self.parts(x, y))
        return float(found), self.joined(self.lower, parts, y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """df/dy."""
        self.counts.grad_f += 1
        if self.expanded is not None:
            return self.expanded.value_gradient(x, y)[1]
        program = self._df.gradient(value=False, by_x=False, by_y=True)
        if program is None:
            return self.lower.join(self._taped(x, y, self.lower.leaves(y))[1], y)
        return self.joined(self.lower, program(*self.parts(x, y)), y)

    def _taped(self, x: Vec, y: Vec, ys: list[Tensor]) -> tuple[float, Sequence[Tensor | None]]:
        """f and df/dy where a function has no rule for its derivative."""
        value = self.function((self.f_expr,))(*self.upper.split(x), *ys)
        return value.item(), gradient(value, ys)

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        self.counts.grad_f += 1
        program = self._df.gradient(value=False, by_x=True, by_y=False)
        if program is None:
            xs = self.upper.leaves(x)
            value = self.function((self.f_expr,))(*xs, *self.lower.split(y))
            return self.upper.join(gradient(value, xs), x)
        return self.joined(self.upper, program(*self.parts(x, y)), x)

    # --- second order -----------------------------------------------------------------------------

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``, built once at (x, y) and reused by every product."""
        kept = self._kept_product(x, y)
        if kept is not None:
            across = self.cross(x, y)

            def both(v: Vec) -> tuple[Vec, Vec]:
                self.counts.hvp += 1
                return kept(v), across(v)

            return both
        call, join = self._products(x, y, by_x=True, by_y=True)
        count = len(self.lower.pieces)

        def product(v: Vec) -> tuple[Vec, Vec]:
            self.counts.hvp += 1
            self.counts.jvp += 1
            parts = call(v)
            return join(self.lower, parts[:count], v), join(self.upper, parts[count:], v)

        return product

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v``."""
        kept = self._kept_product(x, y)
        if kept is not None:
            self.counts.grad_f += 1

            def alone(v: Vec) -> Vec:
                self.counts.hvp += 1
                return kept(v)

            return alone
        call, join = self._products(x, y, by_x=False, by_y=True)

        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return join(self.lower, call(v), v)

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v`` (length n)."""
        call, join = self._products(x, y, by_x=True, by_y=False)

        def product(v: Vec) -> Vec:
            self.counts.jvp += 1
            return join(self.upper, call(v), v)

        return product

    def _kept_product(self, x: Vec, y: Vec) -> Callable[[Vec], Vec] | None:
        """``v -> f_yy v`` by the kept matrix, where that is less work than the data."""
        if self.expanded is None or self.quadratic is None:
            return None
        return self.quadratic.product(x, y)

    def _products(
        self, x: Vec, y: Vec, *, by_x: bool, by_y: bool
    ) -> tuple[Callable[[Vec], Sequence[Any]], Callable[[Layout, Sequence[Any], Vec], Vec]]:
        """A direction -> f_yy v, f_xy v by variable, as asked for; and what makes vectors of
        them.
        """
        program = self._df.product(by_x=by_x, by_y=by_y)
        if program is not None:
            self.counts.grad_f += 1
            at = program.at(self.parts(x, y))
            return (lambda v: at(self.along(v))), self.joined
        xs = self.upper.leaves(x) if by_x else self.upper.split(x)
        ys = self.lower.leaves(y)
        first = self._first(xs, ys)
        inputs = [*(ys if by_y else ()), *(xs if by_x else ())]
        return (lambda v: gradients(first, inputs, self.lower.split(v))), Layout.join

    def _first(self, xs: Sequence[Tensor], ys: Sequence[Tensor]) -> Sequence[Tensor | None]:
        """df/dy with its graph."""
        self.counts.grad_f += 1
        return gradient(self.function((self.f_expr,))(*xs, *ys), ys, create=True)

    @cached_property
    def blocks(self) -> Tensor | None:
        """Positions (B, q) of the variables of independent blocks of the lower level, where there
        are many small ones.
        """
        return None if self.m < MANY else block_positions(self.bound, self.lower)

    @cached_property
    def quadratic(self) -> QuadraticHessian | None:
        """f_yy as a matrix of data and a diagonal, where it has that form."""
        if (
            self.m > LARGEST
            or self.blocks is not None
            or self.device.type != "cpu"
            or self.dtype is not torch.float64
        ):
            return None
        form = quadratic_form(self, self.f_expr)
        return None if form is None else QuadraticHessian(self, form)

    @cached_property
    def expanded(self) -> Expanded | None:
        """f and its gradient from the kept matrix, where that is less work and as accurate."""
        found = self.quadratic
        if found is None or found.reads_y or not pays(self):
            return None
        return expanded(self, found)

    @cached_property
    def predicted(self) -> StructuredHessian | None:
        """f_yy by the affine predictors of f, where its form allows it; of sparse data the
        diagonal.
        """
        if self.device.type != "cpu" or self.dtype is not torch.float64:
            return None
        return structured_hessian(self)

    @property
    def structured(self) -> StructuredHessian | None:
        """The same where it gives a dense matrix."""
        found = self.predicted
        return None if found is None or found.is_sparse else found

    @cached_property
    def _preconditioning(self) -> Preconditioning | None:
        return None if self.predicted is None else Preconditioning(self.predicted, self.m)

    def preconditioner(self, x: Vec, y: Vec) -> Callable[[Vec], Vec] | None:
        """An approximate inverse of f_yy at a point, for conjugate gradients; None where there is
        none that is better than the identity.
        """
        return None if self._preconditioning is None else self._preconditioning.at(x, y)

    @property
    def hessian_price(self) -> float:
        """About how many values with gradients a dense Hessian with its factor is worth."""
        if self.blocks is not None:
            return 2.0 + 2.0 * self.blocks.shape[1]
        found = self.quadratic or self.structured
        if found is None:
            return 3.0 + self.m / 50  # batched products
        gradient, hessian = found.work
        return hessian / gradient

    def hessian(self, x: Vec, y: Vec) -> Tensor:
        """f_yy as a dense symmetric (m, m) tensor."""
        if self.quadratic is not None:
            return self.quadratic.dense(x, y)
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
