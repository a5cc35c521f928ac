"""Functions that give values only: NumPy code, compiled simulators. Derivatives by differences.

With ``s(a) = <w, f(a)>`` for a weight w of the result, and unit vectors e_j::

    ds/da_j ~ (s(a + h e_j) - s(a - h e_j)) / 2h,        h = eps^(1/3) max(1, |a_j|)
    d2s/da2 v ~ (ds/da(a + t v) - ds/da(a - t v)) / 2t,  both with steps of eps^(1/4)

The first is exact to some ten digits for smooth functions, the second to some seven. One gradient
takes two values for each entry of the arguments, one product with the Hessian two gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.errors import BackendError

Shape = tuple[int, ...]

FIRST, SECOND = 2.0**-17.33, 2.0**-13
# Entries of arguments from which on somebody should know what a gradient takes.
MANY = 100


class Values:
    """The function with tensors in and out, whatever it computes with. It is given copies."""

    def __init__(self, name: str, call: Callable[..., Any], shape: Shape) -> None:
        self.name, self.call, self.shape = name, call, shape
        self.told = False

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The value; raises :class:`BackendError` where the function fails."""
        try:
            value = self.call(*(a.detach().clone() for a in arguments))
            found = torch.as_tensor(np.asarray(value, dtype=np.float64))
        except Exception as error:  # the user's code may raise anything
            raise BackendError(f"extern {self.name!r} failed: {error}") from error
        if tuple(found.shape) != self.shape:
            raise BackendError(
                f"extern {self.name!r} returned a value of shape {tuple(found.shape)}; "
                f"{self.shape} was declared"
            )
        return found

    def tell(self, entries: int) -> None:
        """Warn once where differences are many."""
        if entries > MANY and not self.told:
            self.told = True
            warnings.warn(
                f"extern {self.name!r} gives values only, so that one gradient takes "
                f"{2 * entries:,} of them; written with torch functions, without detach() or "
                "NumPy, it takes one",
                UserWarning,
                stacklevel=2,
            )


def differenced(values: Values) -> Callable[..., Tensor]:
    """The function as torch sees it, twice differentiable."""
    return lambda *arguments: _Value.apply(values, *arguments)


class _OneByOne(torch.autograd.Function):
    """What is computed for one element of a batch after the other."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The outputs of every element, stacked in front."""
        found = []
        for k in range(info.batch_size):
            pairs = zip(inputs, in_dims, strict=True)
            found.append(
                cls.apply(*(i.select(d, k) if isinstance(d, int) else i for i, d in pairs))
            )
        if isinstance(found[0], Tensor):
            return torch.stack(found), 0
        return tuple(torch.stack(parts) for parts in zip(*found, strict=True)), (0,) * len(found[0])


class _Value(_OneByOne):
    """Values, with slopes for a backward pass."""

    @staticmethod
    def forward(values: Values, *arguments: Tensor) -> Tensor:
        return values(*arguments)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.values = inputs[0]
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, *weights: Tensor) -> Any:
        wanted = tuple(ctx.needs_input_grad[1:])
        return None, *_Slope.apply(ctx.values, wanted, weights[0], *ctx.saved_tensors)


class _Slope(_OneByOne):
    """Gradients of ``<w, f>`` with respect to the arguments that are wanted, 0 for others."""

    @staticmethod
    def forward(
        values: Values, wanted: tuple[bool, ...], weight: Tensor, *arguments: Tensor
    ) -> tuple[Tensor, ...]:
        return _slopes(values, wanted, weight, arguments, FIRST)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.values, ctx.wanted = inputs[:2]
        ctx.save_for_backward(*inputs[2:])

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> Any:
        return None, None, *_Turn.apply(ctx.values, ctx.wanted, *along, *ctx.saved_tensors)


class _Turn(_OneByOne):
    """The derivatives of ``sum_k <v_k, slope_k>`` in the weight and the arguments; no more."""

    @staticmethod
    def forward(values: Values, wanted: tuple[bool, ...], *inputs: Tensor) -> tuple[Tensor, ...]:
        count = len(wanted)
        along, weight, arguments = inputs[:count], inputs[count], inputs[count + 1 :]
        size = max(_largest(v) for v in along)
        if size == 0.0:
            return torch.zeros_like(weight), *(torch.zeros_like(a) for a in arguments)
        t = SECOND * max(1.0, *(_largest(a) for a in arguments)) / size
        ahead = [a + t * v for a, v in zip(arguments, along, strict=True)]
        behind = [a - t * v for a, v in zip(arguments, along, strict=True)]
        by_weight = (values(*ahead) - values(*behind)) / (2.0 * t)
        pairs = zip(
            _slopes(values, wanted, weight, ahead, SECOND),
            _slopes(values, wanted, weight, behind, SECOND),
            strict=True,
        )
        return by_weight, *((p - q) / (2.0 * t) for p, q in pairs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        """Nothing is kept."""

    @staticmethod
    def backward(ctx: Any, *along: Tensor) -> Any:
        raise BackendError("third derivatives of functions that give values only are not taken")


def _largest(v: Tensor) -> float:
    return float(v.abs().max()) if v.numel() else 0.0


def _slopes(
    values: Values,
    wanted: Sequence[bool],
    weight: Tensor,
    arguments: Sequence[Tensor],
    step: float,
) -> tuple[Tensor, ...]:
    """Central differences of ``<weight, values>``, entry by entry."""
    values.tell(sum(a.numel() for a, w in zip(arguments, wanted, strict=True) if w))
    moved = [a.detach().clone(memory_format=torch.contiguous_format) for a in arguments]
    found = []
    for argument, is_wanted in zip(moved, wanted, strict=True):
        slope = torch.zeros_like(argument)
        found.append(slope)
        if not is_wanted:
            continue
        entries, slopes = argument.view(-1), slope.view(-1)
        for j in range(entries.numel()):
            here = float(entries[j])
            h = step * max(1.0, abs(here))
            ends = []
            for point in (here + h, here - h):
                entries[j] = point
                ends.append((weight * values(*moved)).sum())
            entries[j] = here
            slopes[j] = (ends[0] - ends[1]) / ((here + h) - (here - h))
    return tuple(found)
