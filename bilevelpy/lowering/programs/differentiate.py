"""Reverse differentiation with the conventions of this package: what does not depend on an input
has gradient None.

``torch.autograd.grad`` spends 20 of its 70 microseconds on a small problem with checks of its
arguments, which are right by construction here; this calls the engine below it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import _engine_run_backward

Parts = Sequence[Tensor | None]


def gradient(
    output: Tensor,
    inputs: Sequence[Tensor],
    weights: Tensor | None = None,
    *,
    retain: bool = False,
    create: bool = False,
) -> Parts:
    """The gradient of ``output`` along ``weights`` of its shape (default: ones)."""
    if not output.requires_grad or not inputs:
        return [None] * len(inputs)
    if weights is None:
        weights = torch.ones_like(output)
    return _run((output,), (weights,), tuple(inputs), retain or create, create)


def gradients(outputs: Parts, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Parts:
    """The gradient of several tensors along ``weights``; their graph is kept."""
    live = [
        (o, w) for o, w in zip(outputs, weights, strict=True) if o is not None and o.requires_grad
    ]
    if not live or not inputs:
        return [None] * len(inputs)
    return _run(tuple(o for o, _ in live), tuple(w for _, w in live), tuple(inputs), True, False)


def batched_gradients(outputs: Parts, inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> Parts:
    """The same for many weights at once: they and the results have one more axis in front."""
    live = [
        (o, w) for o, w in zip(outputs, weights, strict=True) if o is not None and o.requires_grad
    ]
    if not live or not inputs:
        return [None] * len(inputs)
    roots, wanted = tuple(o for o, _ in live), tuple(inputs)
    # torch.vmap, not `is_grads_batched`: the older vmap behind that one does not know functions of
    # our own.
    run = torch.vmap(lambda *w: _filled(_run(roots, w, wanted, True, False), wanted))
    return run(*(w for _, w in live))


def _run(
    outputs: tuple[Tensor, ...],
    weights: tuple[Tensor, ...],
    inputs: tuple[Tensor, ...],
    retain: bool,
    create: bool,
) -> tuple[Tensor | None, ...]:
    return _engine_run_backward(
        outputs, weights, retain, create, inputs, allow_unreachable=True, accumulate_grad=False
    )


def _filled(parts: Parts, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(
        torch.zeros_like(i) if p is None else p for p, i in zip(parts, inputs, strict=True)
    )
