"""Second derivatives by predictors, sample by sample: what stands between the data in X'GX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bilevelpy.ir.expr import Expr, VarRef
from bilevelpy.ir.substitute import substitute
from bilevelpy.lowering.hessians.curvature import Shape
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.splitting import several
from bilevelpy.lowering.programs.straight import Product, inner

if TYPE_CHECKING:
    from bilevelpy.lowering.programs.compiled import Programs


class Weights:
    """The blocks ``G_k`` of all predictors as functions of the point.

    Those of predictors of one class are plain second derivatives, all in one program; the others
    take a product with a unit vector per class.
    """

    def __init__(
        self,
        oracle: Programs,
        shapes: Sequence[Shape],
        roots: Sequence[Expr],
        along: Sequence[VarRef | None],
        variables: tuple[VarRef, ...],
    ) -> None:
        builder = oracle.bound.program.builder
        sizes = oracle.bound.data.sizes
        self._shapes, self.roots = shapes, tuple(roots)
        self._known: dict[int, Tensor] = {}
        self._products: dict[int, tuple[Product, list[Any]]] = {}
        constant = []
        single: list[int] = []
        for k, (root, shape, v) in enumerate(zip(roots, shapes, along, strict=True)):
            if v is None:
                constant.append(builder.is_data(root))
                single.append(k)
                continue
            product = Product(
                builder,
                oracle.program,
                (root,),
                lambda kept: several(builder, oracle.program, kept, variables),
                (v,),
            )
            constant.append(product.is_constant)
            size = tuple(sizes[a] for a in v.axes)
            self._products[k] = (product, _units(shape, size, oracle))
        self.constant = tuple(constant)
        fixed = [k for k in single if constant[k]]
        self._single = [k for k in single if not constant[k]]
        self._program = None
        if self._single:
            wanted = tuple(roots[k] for k in self._single)
            self._program = several(builder, oracle.program, wanted, variables)
        for k in fixed:
            self._known[k] = self.block(k, oracle.tensors.tensor(roots[k]))

    @classmethod
    def of(
        cls,
        oracle: Programs,
        g: Expr,
        cuts: dict[Expr, VarRef],
        shapes: Sequence[Shape],
        variables: tuple[VarRef, ...],
    ) -> Weights | None:
        """From g as a function of the predictors ``cuts``; None where a function has no rule."""
        builder = oracle.bound.program.builder
        back: dict[Expr, Expr] = {v: node for node, v in cuts.items()}
        roots: list[Expr] = []
        directions: list[VarRef | None] = []
        # In one pass: thousands of predictors of a long sum would each walk all of it.
        gradient = derivatives(builder, g, tuple(cuts.values()))
        if gradient is None:
            return None
        for cut, first, shape in zip(cuts.values(), gradient, shapes, strict=True):
            along = builder.var("along", cut.name, cut.axes) if shape.classes > 1 else None
            unit = builder.fill(1.0, cut.axes) if along is None else along
            second = derivatives(builder, inner(builder, first, unit), (cut,))
            if second is None:
                return None
            roots.append(substitute(builder, second[0], back))
            directions.append(along)
        return cls(oracle, shapes, roots, directions, variables)

    def __call__(self, inputs: list[Any]) -> list[Tensor]:
        """Shapes (B, N, C, C)."""
        found = dict(self._known)
        if self._program is not None:
            for k, value in zip(self._single, self._program(*inputs), strict=True):
                found[k] = self.block(k, torch.as_tensor(value))
        for k, (product, units) in self._products.items():
            if k in found:
                continue
            at, shape = product.at(inputs), self._shapes[k]
            columns = [torch.as_tensor(at([unit])[0]).permute(shape.permutation) for unit in units]
            size = (shape.batch, shape.samples, shape.classes)
            found[k] = torch.stack([c.reshape(size) for c in columns], -1)
            if self.constant[k]:
                self._known[k] = found[k]
        return [found[k] for k in range(len(self._shapes))]

    def block(self, k: int, value: Tensor) -> Tensor:
        """One number per sample as a block of one class."""
        shape = self._shapes[k]
        if value.dim() > 1:
            value = value.permute(shape.permutation)
        return value.reshape(shape.batch, shape.samples, 1, 1)


def _units(shape: Shape, size: tuple[int, ...], oracle: Programs) -> list[Any]:
    """For each class the direction that is 1 there and 0 elsewhere, as programs take it."""
    inverse = [shape.permutation.index(d) for d in range(len(shape.permutation))]
    full = [size[d] for d in shape.permutation]
    found = []
    for c in range(shape.classes):
        unit = torch.zeros(
            (shape.batch, shape.samples, shape.classes), dtype=oracle.dtype, device=oracle.device
        )
        unit[:, :, c] = 1.0
        moved = unit.reshape(full).permute(inverse)
        found.append(moved.numpy() if oracle.arrays else moved)
    return found
