"""Quadratic objectives: ``c(x) + b(x)'y + y'(Q + diag d(x))y / 2`` with a matrix Q of data alone.

Read off the second derivative of an objective, however it is written: ``f_yy v`` is a sum of terms
that are linear in v, and each is either made of data (least squares, quadratic forms: its matrix
``X'X`` is computed once at binding) or entry by entry (a penalty per variable). Afterwards no
evaluation touches the data again. What does not have this form gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.analysis.forms.linear_terms import Factors
from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.walk import variables
from bilevelpy.lowering.hessians.terms import Block
from bilevelpy.lowering.programs.slots import sparse_node
from bilevelpy.lowering.programs.splitting import several

if TYPE_CHECKING:
    from bilevelpy.lowering.programs.compiled import Programs

Array = np.ndarray[Any, np.dtype[np.float64]]

# Lower variables up to which the matrix is kept dense (200 MB).
LARGEST = 5000


@dataclass(frozen=True, slots=True)
class Form:
    """The second derivative of an objective: blocks of data, and entries of the diagonal."""

    blocks: tuple[Block, ...]
    diagonal: tuple[tuple[ir.VarRef, Expr], ...]
    reads_y: bool


def quadratic_form(oracle: Programs, terms: Sequence[Block]) -> Form | None:
    """The form of a second derivative in y by its terms, None where it has another one."""
    builder = oracle.bound.program.builder
    blocks: list[Block] = []
    diagonal: list[tuple[ir.VarRef, Expr]] = []
    for block in terms:
        if all(builder.is_data(node) for node, _ in block.factors):
            blocks.append(block)
        elif block.is_diagonal:
            diagonal.append((block.rows, block.product(builder)))
        else:
            return None
    lower = {(v.level, v.name) for v in oracle.ys}
    reads_y = bool(variables([d for _, d in diagonal]) & lower)
    return Form(tuple(blocks), tuple(diagonal), reads_y)


class QuadraticHessian:
    """``Q + diag d(x, y)``: Q is computed when it is first asked for, and kept."""

    def __init__(self, oracle: Programs, form: Form) -> None:
        self._oracle, self._form = oracle, form
        self._Q: Array | None = None
        self._whole: torch.Tensor | None = None
        self._places = oracle.lower.positions()
        self._moving = [self._range(variable.level, variable.name) for variable, _ in form.diagonal]
        self._program: Callable[..., list[Any]] | None = None
        if form.diagonal:
            roots = tuple(d for _, d in form.diagonal)
            builder = oracle.bound.program.builder
            self._program = several(builder, oracle.program, roots, oracle.program_variables)

    @property
    def reads_y(self) -> bool:
        """Whether the diagonal depends on y: the objective is then no quadratic."""
        return self._form.reads_y

    @property
    def constant(self) -> bool:
        """Whether the matrix is the same everywhere."""
        return self._program is None

    @property
    def Q(self) -> Array:
        """The part that is made of data."""
        if self._Q is None:
            Q = np.zeros((self._oracle.m, self._oracle.m))
            for block in self._form.blocks:
                block.add(Q, self._places, _coefficient(self._oracle, block))
            self._Q = 0.5 * (Q + Q.T)
        return self._Q

    def moving_diagonal(self, x: torch.Tensor, y: torch.Tensor) -> Array | None:
        """d at a point; None where there is none."""
        if self._program is None:
            return None
        out = np.zeros(self._oracle.m)
        values = self._program(*self._oracle.parts(x, y))
        for place, value in zip(self._moving, values, strict=True):
            out[place] += (value.numpy() if isinstance(value, torch.Tensor) else value).reshape(-1)
        return out

    def _range(self, level: str, name: str) -> slice:
        """Where a variable lies among the lower ones."""
        place = self._places[level, name].reshape(-1)
        low = int(place[0]) if place.numel() else 0
        return slice(low, low + place.numel())

    def dense(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The matrix at a point; the same tensor each time where it is constant."""
        d = self.moving_diagonal(x, y)
        if d is None:
            if self._whole is None:
                self._whole = torch.from_numpy(self.Q)
            return self._whole
        H = self.Q.copy()
        H.reshape(-1)[:: len(H) + 1] += d
        return torch.from_numpy(H)

    def product(self, x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
        """``v -> f_yy v`` at a point."""
        Q, d = self.Q, self.moving_diagonal(x, y)

        def call(v: torch.Tensor) -> torch.Tensor:
            array = v.numpy()
            out = Q.dot(array)
            if d is not None:
                out += d * array
            return torch.from_numpy(out)

        return call

    def diagonal(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """The diagonal at a point."""
        d = self.moving_diagonal(x, y)
        own = self.Q.diagonal().copy()
        return torch.from_numpy(own if d is None else own + d)

    @property
    def work(self) -> tuple[float, float]:
        """Rough seconds of a gradient and of another dense Hessian with its factor."""
        m = self._oracle.m
        gradient = 3e-5 + 2.0 * m * m / 2e9
        if self.constant:  # made once in a run
            return gradient, 2e-5
        return gradient, 2e-5 + 2.0 * m * m / 2e9 + m**3 / 3 / 2e10


def _coefficient(oracle: Programs, block: Block) -> Array:
    """The product of a block's factors, which are data."""
    tensors, bound, output = oracle.tensors, oracle.bound, block.output
    sparse = [f for f in block.factors if sparse_node(f[0], tensors.sparse)]
    if len(sparse) == 2:
        return _sparse_gram(oracle, block, sparse, output)
    node = block.product(bound.program.builder)
    value = np.asarray(Interpreter(bound.data).value(node), dtype=np.float64)
    return np.broadcast_to(value, [bound.data.sizes[block.axis_of[s]] for s in output])


def _sparse_gram(
    oracle: Programs,
    block: Block,
    sparse: Factors,
    output: tuple[int, ...],
) -> Array:
    """``A' diag(s) B`` of two sparse matrices that share one label."""
    (a, la), (b, lb) = sparse
    (summed,) = set(la) & set(lb)
    left, right = oracle.tensors.linear_map(a).csr, oracle.tensors.linear_map(b).csr
    left = left if la[0] == summed else left.T
    right = right if lb[0] == summed else right.T
    run = Interpreter(oracle.bound.data)
    scale: Any = 1.0
    for node, labels in block.factors:
        if isinstance(node, ir.Fill) and labels != (summed,):  # it counts what is repeated
            scale = scale * oracle.bound.data.sizes[node.axes[0]]
        elif node is not a and node is not b:
            scale = scale * np.asarray(run.value(node), dtype=np.float64)
    scaled = right.multiply(scale[:, None]) if np.ndim(scale) else right * float(scale)
    found = np.asarray((left.T @ scaled).toarray())
    first = next(s for s in la if s != summed)
    return found if output[0] == first else found.T
