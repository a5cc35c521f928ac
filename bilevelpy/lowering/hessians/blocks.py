"""Where the variables of independent blocks of the lower level lie in y."""

from __future__ import annotations

from math import prod

import torch

from bilevelpy.analysis.forms.separable import block_axes
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.programs.layout import Layout

# Blocks of more variables than this gain little by being many.
WIDEST = 200


def block_positions(bound: BoundProgram, lower: Layout) -> torch.Tensor | None:
    """Positions (B, q) of the q variables of each of B blocks; None where there are no small
    blocks.
    """
    names = block_axes(bound, bound.program.lowers).value
    if not names:
        return None
    columns, positions = [], lower.positions()
    for piece in lower.pieces:
        axes = [a.name for a in piece.variable.axes]
        if any(axes.count(name) != 1 for name in names):
            return None
        front = [axes.index(name) for name in names]
        order = [*front, *(d for d in range(len(axes)) if d not in front)]
        moved = positions[piece.key].permute(order)
        columns.append(moved.reshape(prod(moved.shape[: len(names)]), -1))
    index = torch.cat(columns, 1)
    return index if index.shape[0] > 1 and index.shape[1] <= WIDEST else None
