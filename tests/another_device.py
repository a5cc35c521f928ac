"""A device beside the CPU, for tests of what runs on one where there is no GPU.

Its tensors hold their entries where nobody else reaches them, show ``device`` as "cuda:0", and meet
others as those of CUDA do: an operation takes tensors of one device, numbers without dimensions
excepted, and NumPy and the CPU see them by a copy alone. Roundings, speed and kernels that a GPU
lacks are not there to be seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

THERE = torch.device("cuda", 0)


class There(torch.Tensor):
    """A tensor on the other device."""

    entries: torch.Tensor
    operations: ClassVar[Counter[str]] = Counter()
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, entries: torch.Tensor) -> There:
        dense = entries.layout is torch.strided
        strides = entries.stride() if dense else torch.empty(entries.shape).stride()
        made: There = torch.Tensor._make_wrapper_subclass(
            cls, entries.shape, strides=strides, dtype=entries.dtype
        )
        made.entries = entries
        return made

    @property
    def device(self) -> torch.device:
        return THERE

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = (args, kwargs or {})
        plain = [t for t in tree_leaves(given) if type(t) is torch.Tensor and t.dim()]
        if any(t.is_meta for t in plain):  # PyTorch asks for the shape alone
            args, kwargs = tree_map(
                lambda v: v.entries.to("meta") if type(v) is There else v, given
            )
            return function(*args, **kwargs)
        if any(t.any() for t in plain):  # derivatives begin with zeros of their own, made in C++
            raise RuntimeError(f"{function}: tensors on two devices, cuda:0 and cpu")
        cls.operations[str(function)] += 1
        args, kwargs = tree_map(lambda v: v.entries if type(v) is There else v, given)
        if "device" in kwargs:  # that of a There, from which PyTorch makes another
            kwargs["device"] = torch.device("cpu")
        return tree_map(_sent, function(*args, **kwargs))


class _Sending(torch.autograd.Function):
    """To the other device, and gradients back."""

    @staticmethod
    def forward(ctx: Any, value: torch.Tensor) -> There:
        return There(value.detach().clone())

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> torch.Tensor:
        return grads[0].entries


def _sent(value: Any) -> Any:
    return There(value) if isinstance(value, torch.Tensor) else value


class _Elsewhere(TorchFunctionMode):
    """Takes calls that name a device."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        held = args[0] if args else None
        target = kwargs.pop("device", None)
        if function is torch.Tensor.cpu:
            function, target = torch.Tensor.to, "cpu"
        if function is torch.Tensor.numpy and isinstance(held, There):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if function is torch.Tensor.to:
            named = [a for a in args[1:] if isinstance(a, (str, torch.device))]
            target = named[0] if named else target
            args = tuple(a for a in args if not isinstance(a, (str, torch.device)))
        if target is None:
            return function(*args, **kwargs)
        target_type = torch.device(target).type
        if function is not torch.Tensor.to:
            held = function(*args, **kwargs)
        elif isinstance(held, There) and target_type == "cpu":
            held = held.entries.clone()
        if function is torch.Tensor.to and (len(args) > 1 or kwargs):
            held = function(held, *args[1:], **kwargs)
        sending = target_type == "cuda" and not isinstance(held, There)
        return _Sending.apply(held) if sending else held


@contextmanager
def another_device() -> Iterator[Counter[str]]:
    """While it is open, "cuda" is there; gives the operations that ran on it, counted."""
    There.operations = Counter()
    with _Elsewhere():
        yield There.operations
