"""A bound program as functions of tensors or arrays, compiled as they are asked for, and kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.objectives import lower_objective, upper_objective
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.programs.arrays import array_function, wrapped
from bilevelpy.lowering.programs.constraints import ConstraintFunction
from bilevelpy.lowering.programs.graph import Compiled, compile_expressions
from bilevelpy.lowering.programs.layout import Layout, domain, layout, start
from bilevelpy.lowering.programs.memory import check_memory
from bilevelpy.lowering.programs.slots import DataTensors
from bilevelpy.lowering.programs.straight import Product, Straight
from bilevelpy.lowering.programs.threads import by_numpy
from bilevelpy.lowering.protocol import Counts

Vec = Tensor


class Programs:
    """What the oracle of a bound program is made of: layouts, domains, and compiled functions.

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
        found = array_function(compiled.graph, values, self.tensors.gaps)
        return wrapped(self.function(expressions, inputs)) if found is None else found

    def _prefers_arrays(self) -> bool:
        """Whether programs are NumPy functions."""
        if self.device.type != "cpu" or self.dtype is not torch.float64:
            return False
        return by_numpy(self.bound)

    def straight(self, objective: Expr) -> Straight:
        """The programs of an objective's derivatives."""
        return Straight(self.bound.program.builder, self.program, objective, self.xs, self.ys)

    def lower_product(self, *, by_x: bool, by_y: bool) -> Product | None:
        """The program ``v -> f_yy v, f_xy v`` as asked for; None where there is no rule."""
        return self._df.product(by_x=by_x, by_y=by_y)

    def parts(self, x: Vec, y: Vec) -> list[Any]:
        """The variables at a point, as programs take them."""
        if self.arrays:
            return self.upper.arrays(x) + self.lower.arrays(y)
        return self.upper.split(x) + self.lower.split(y)

    def along(self, v: Vec) -> list[Any]:
        """A direction of the lower variables, as programs take it."""
        return self.lower.arrays(v) if self.arrays else self.lower.split(v)

    def along_x(self, v: Vec) -> list[Any]:
        """A direction of the upper variables, as programs take it."""
        return self.upper.arrays(v) if self.arrays else self.upper.split(v)

    def joined(self, where: Layout, parts: Sequence[Any], like: Vec) -> Vec:
        """Results of a program as a vector."""
        return where.gather(parts) if self.arrays else where.join(parts, like)


def _variables(builder: Any, layouts: tuple[Layout, Layout]) -> tuple[VarRef, ...]:
    return tuple(builder.var(*p.key, p.variable.axes) for part in layouts for p in part.pieces)
