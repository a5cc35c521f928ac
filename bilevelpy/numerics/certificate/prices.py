"""The shadow prices that a leader reads, and its rows that read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from bilevelpy.numerics.certificate.constrained import FEASIBLE
from bilevelpy.numerics.cones.nearest_feasible import derivatives
from bilevelpy.numerics.cones.sample import names

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle

Vec = torch.Tensor


def refused_prices(o: TorchOracle, x: Vec, y: Vec) -> tuple[str, ...]:
    """What is wrong with the shadow prices at the response ``y`` to ``x``, or with the rows that
    read them; empty where nothing is.
    """
    are_unique = getattr(o, "are_unique", None)
    if are_unique is None:
        return ()
    if not are_unique(x, y):
        return (
            "the shadow prices that the leader reads are not unique at the response: several "
            "multipliers are valid, and this method does not choose among them; `nlp` does",
        )
    off, size = o.G.violation(x, y), 1e-3
    if o.G.size:
        _, C_x, C_y = derivatives(o.G, x, y)
        size = max(1e-3, float((C_x.abs() @ x.abs() + C_y.abs() @ y.abs()).max()))
    if o.G.size and float(off.max()) > FEASIBLE * size:
        worst = names(o)[int(off.argmax())]
        return (f"upper constraint `{worst}` is violated by {float(off.max()):.1e}",)
    return ()
