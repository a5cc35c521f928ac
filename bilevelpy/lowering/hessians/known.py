"""What is known of f_yy beyond its products: blocks, matrices of data, predictors."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import scipy.sparse as sp
import torch
from torch import Tensor

from bilevelpy.lowering.hessians.assembled import (
    AssembledHessian,
    MovingQuadratic,
    assembled_hessian,
)
from bilevelpy.lowering.hessians.bands import Bands, bands
from bilevelpy.lowering.hessians.block_terms import BlockHessian, block_hessian
from bilevelpy.lowering.hessians.blocks import block_positions
from bilevelpy.lowering.hessians.expansion import Expanded, expanded, has_kinks, pays
from bilevelpy.lowering.hessians.joint_quadratic import (
    JointQuadratic,
    are_jointly_quadratic,
    joint_quadratic,
)
from bilevelpy.lowering.hessians.preconditioning import Preconditioning, jacobi
from bilevelpy.lowering.hessians.quadratic import LARGEST, QuadraticHessian, quadratic_form
from bilevelpy.lowering.hessians.reduced_curvature import ReducedCurvature, reduced_curvature
from bilevelpy.lowering.hessians.sparse_quadratic import SparseQuadratic, sparse_quadratic
from bilevelpy.lowering.hessians.sparsity import linear_map
from bilevelpy.lowering.hessians.structured import StructuredHessian, structured_hessian
from bilevelpy.lowering.hessians.terms import Block, second_blocks
from bilevelpy.lowering.programs.memory import widest
from bilevelpy.lowering.programs.named import NamedPrograms

Vec = Tensor
# Lower variables from which on blocks, and bands, are worth their own factors.
MANY, BANDED = 200, 50
# Up to so many a quadratic is better kept whole than as a band.
WHOLE = 600
# Up to so many another factor for every x costs less than steps by an old one.
SMALL = 300
# Entries of arrays from which on products with f_yy are made one by one.
WIDE = 4000


class KnownStructure(NamedPrograms):
    """The compiled program with what its lower Hessian is made of, found when it is asked for."""

    @cached_property
    def blocks(self) -> Tensor | None:
        """Positions (B, q) of the variables of independent blocks of the lower level, where there
        are many small ones.
        """
        return None if self.m < MANY else block_positions(self.bound, self.lower)

    @cached_property
    def bands(self) -> Bands | None:
        """f_yy as a band with a border, where most lower variables meet few others."""
        if (
            self.m < BANDED
            or self.blocks is not None
            or self.device.type != "cpu"
            or not self.domain_y.is_nearly_box
        ):
            return None
        found = self._second(values=False)
        return None if found is None else bands(found)

    @cached_property
    def block_hessian(self) -> BlockHessian | None:
        """The matrices of independent blocks by their terms, where f has this form."""
        index, terms = self.blocks, None if self.blocks is None else self._curvature_terms
        return None if index is None or terms is None else block_hessian(self, index, terms)

    @cached_property
    def has_kinks(self) -> bool:
        """Whether f has kinks in y: its second derivative does not tell of them."""
        return has_kinks(self.f_expr, frozenset(self.ys))

    @cached_property
    def hessian_is_constant(self) -> bool:
        """Whether f_yy is the same at every point."""
        second = self._df.product(by_x=False, by_y=True)
        return second is not None and second.is_constant

    @cached_property
    def sparse_hessian(self) -> sp.csr_array | None:
        """f_yy as a sparse matrix, where it never moves and is a band or too large to be kept
        dense.
        """
        if (self.m <= WHOLE and self.bands is None) or not self.hessian_is_constant:
            return None
        if self.device.type != "cpu" or self.dtype is not torch.float64:
            return None
        return self._second(values=True)

    def _second(self, *, values: bool) -> sp.csr_array | None:
        """f_yy as a sparse matrix of data, or its pattern."""
        second = self._df.product(by_x=False, by_y=True)
        if second is None:
            return None
        program = self.bound.program
        return linear_map(
            program.builder, self.bound.data, second.roots, second.along, values=values
        )

    @cached_property
    def sparse_quadratic(self) -> SparseQuadratic | None:
        """The second derivatives as sparse matrices where both objectives are quadratic in x and y
        together.
        """
        H = None if self.has_kinks else self.sparse_hessian
        return None if H is None else sparse_quadratic(self, H)

    @cached_property
    def quadratic(self) -> QuadraticHessian | None:
        """f_yy as a matrix of data and a diagonal, where it has that form."""
        if (
            self.m > LARGEST
            or self.blocks is not None
            or (self.m > WHOLE and self.bands is not None)
            or self.device.type != "cpu"
            or self.dtype is not torch.float64
        ):
            return None
        form = (
            None if self._curvature_terms is None else quadratic_form(self, self._curvature_terms)
        )
        return None if form is None else QuadraticHessian(self, form)

    @cached_property
    def _curvature_terms(self) -> list[Block] | None:
        return second_blocks(self, self.f_expr)

    @cached_property
    def expanded(self) -> Expanded | None:
        """f and its gradient from the kept matrix, where that is less work and as accurate."""
        found = self.quadratic
        if found is None or found.reads_y or self.has_kinks or not pays(self):
            return None
        return expanded(self, found)

    @cached_property
    def kept_quadratic(self) -> Expanded | MovingQuadratic | None:
        """f as a quadratic in y for solvers that take it from there, past evaluations one by one:
        expanded, or with a small matrix that x moves.
        """
        if self.expanded is not None or self.m > WHOLE or self.has_kinks:
            return self.expanded
        if self.quadratic is not None:
            return None if self.quadratic.reads_y else expanded(self, self.quadratic)
        if self.m > SMALL or self.assembled is None or self.assembled.reads_y:
            return None
        return MovingQuadratic(self, self.assembled)

    @cached_property
    def joint_quadratic(self) -> JointQuadratic | None:
        """The second derivatives where both objectives are quadratic in x and y together."""
        found = self.quadratic
        if found is None or not found.constant or self.has_kinks:
            return None
        return joint_quadratic(self)

    @cached_property
    def is_jointly_quadratic(self) -> bool:
        """Whether they are so, whatever their size."""
        return not self.has_kinks and are_jointly_quadratic(self)

    @cached_property
    def second_order(self) -> ReducedCurvature | None:
        """f_yx and ``(F - u'f_y)''``, where the functions of f have rules for their derivatives."""
        return reduced_curvature(self)

    @cached_property
    def priced_order(self) -> ReducedCurvature | None:
        """The same of ``F + w'G - u'f_y`` for multipliers w of the upper rows."""
        return reduced_curvature(self, rows=True)

    @cached_property
    def predicted(self) -> StructuredHessian | None:
        """f_yy by the affine predictors of f, where its form allows it."""
        if self.device.type != "cpu" or self.dtype is not torch.float64:
            return None
        return structured_hessian(self)

    @property
    def structured(self) -> StructuredHessian | None:
        """The same where it gives a dense matrix: of sparse data one of a moderate size."""
        found = self.predicted
        return None if found is None or (found.is_sparse and self.m > LARGEST) else found

    @cached_property
    def assembled(self) -> AssembledHessian | None:
        """f_yy from its terms, where it has none of these forms."""
        if self.quadratic is not None or self.structured is not None or self.blocks is not None:
            return None
        return (
            None
            if self._curvature_terms is None
            else assembled_hessian(self, self._curvature_terms)
        )

    def moved_hessian(self, H: Vec, start: tuple[Vec, Vec], end: tuple[Vec, Vec]) -> Vec | None:
        """f_yy of one point (x, y) with the elementwise terms of another, where that costs less
        than a gradient; None elsewhere.
        """
        found = None if self.quadratic is not None else self.structured
        return None if found is None else found.moved(H, start, end)

    @cached_property
    def _preconditioning(self) -> Preconditioning | None:
        return None if self.predicted is None else Preconditioning(self.predicted, self.m)

    @cached_property
    def _by_diagonal(self) -> Callable[[Vec], Vec] | None:
        H = None if self.blocks is not None else self.sparse_hessian
        return None if H is None else jacobi(H.diagonal())

    def preconditioner(self, x: Vec, y: Vec) -> Callable[[Vec], Vec] | None:
        """An approximate inverse of f_yy at a point, for conjugate gradients; None where there is
        none that is better than the identity.
        """
        return (
            self._by_diagonal if self._preconditioning is None else self._preconditioning.at(x, y)
        )

    @cached_property
    def width(self) -> int:
        """Entries of the largest array that an evaluation of f computes."""
        return widest(self.bound, (self.f_expr,))[0]

    @property
    def wide(self) -> bool:
        """Whether arrays are so large that batches of products with f_yy leave the caches: one by
        one they take a quarter of the time.
        """
        return self.device.type == "cpu" and self.width >= WIDE

    @property
    def hessian_price(self) -> float:
        """About how many values with gradients a dense Hessian with its factor is worth."""
        if self.blocks is not None:
            products = 1.0 + 0.25 * self.blocks.shape[1]
            made = self.block_hessian
            return products if made is None else min(products, made.work[1] / made.work[0])
        if self.bands is not None:
            return 2.0 + self.bands.products
        found = self.quadratic or self.structured or self.assembled
        if found is None:  # products, one by one or batched
            return 3.0 + self.m * (2.0 if self.wide else 0.02)
        gradient, hessian = found.work
        return hessian / gradient
