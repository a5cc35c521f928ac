"""Functions handed over from Python: checked once when they are bound, then called like kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bilevelpy.errors import BackendError
from bilevelpy.lowering.programs.black_box import Values, differenced

Shape = tuple[int, ...]


class BoundExtern:
    """A function or module with its declared shapes; the parameters of a module count as constants,
    and what gives values only is differenced.
    """

    __slots__ = ("_batched", "_call", "_shapes", "name")

    def __init__(
        self,
        name: str,
        function: Any,
        shapes: Sequence[Shape],
        result: Shape,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.name = name
        self._shapes = tuple(shapes)
        examine = _examine if isinstance(function, Hashable) else _examine.__wrapped__
        self._call, self._batched = examine(name, function, self._shapes, result, dtype, device)

    def __call__(self, *arguments: Tensor) -> Tensor:
        """The value; leading axes beyond the declared ones are applied over, element by element."""
        extra = [a.dim() - len(s) for a, s in zip(arguments, self._shapes, strict=True)]
        depth = max(extra, default=0)
        return self._over(arguments, extra, depth)

    def _over(self, arguments: Sequence[Tensor], extra: Sequence[int], depth: int) -> Tensor:
        if depth == 0:
            return self._call(*arguments)  # type: ignore[no-any-return]
        # Axes are counted from the front: an argument of fewer extra axes lacks the outermost ones.
        mapped = [e == depth for e in extra]
        rest = [e - m for e, m in zip(extra, mapped, strict=True)]
        if self._batched:
            inner = torch.vmap(
                lambda *a: self._over(a, rest, depth - 1), tuple(0 if m else None for m in mapped)
            )
            return inner(*arguments)
        size = next(a.shape[0] for a, m in zip(arguments, mapped, strict=True) if m)
        parts = [
            self._over(
                [a[k] if m else a for a, m in zip(arguments, mapped, strict=True)], rest, depth - 1
            )
            for k in range(size)
        ]
        return torch.stack(parts)


def call_extern(function: BoundExtern, *arguments: Tensor) -> Tensor:
    """Call an extern from a graph."""
    return function(*arguments)


@lru_cache(maxsize=32)
def _examine(
    name: str,
    function: Any,
    shapes: tuple[Shape, ...],
    result: Shape,
    dtype: torch.dtype,
    device: torch.device,
) -> tuple[Callable[..., Any], bool]:
    """Check a function: what to call, and whether vmap can run it. Once for the shapes: two
    derivatives of a network cost as much as a step of a solver, and a model may be bound to new
    data at every step.
    """
    call = _with_constants(function)
    probes = [_probe(shape, k).to(dtype=dtype, device=device) for k, shape in enumerate(shapes)]
    if _gives_values_only(call, probes):
        if dtype is not torch.float64:
            raise BackendError(
                f"extern {name!r} has no derivatives of its own, and differences of its values "
                f"need float64; the model computes in {dtype}"
            )
        call = differenced(Values(name, call, result))
    _check(name, call, probes, result, dtype)
    return call, _vectorises(call, probes)


def _gives_values_only(call: Callable[..., Any], probes: Sequence[Tensor]) -> bool:
    """Whether a function takes no part in differentiation: it computes with NumPy, or otherwise."""
    leaves = [p.clone().requires_grad_() for p in probes]
    try:
        with warnings.catch_warnings():  # torch warns of float(x) where x is differentiated
            warnings.simplefilter("ignore")
            value = call(*leaves)
    except Exception:  # NumPy refuses such tensors; what else fails is told later
        return _works_on_plain(call, probes)
    return not (isinstance(value, Tensor) and value.requires_grad)


def _works_on_plain(call: Callable[..., Any], probes: Sequence[Tensor]) -> bool:
    try:
        call(*(p.clone() for p in probes))
    except Exception:  # the same error as before: the function is at fault
        return False
    return True


def _with_constants(function: Any) -> Callable[..., Any]:
    """The function itself, or a module whose parameters take no part in differentiation."""
    if not isinstance(function, torch.nn.Module):
        if not callable(function):
            raise BackendError(f"extern functions must be callable, not {type(function).__name__}")
        return function  # type: ignore[no-any-return]
    state = {n: p.detach() for n, p in function.named_parameters()}
    state |= {n: b.detach() for n, b in function.named_buffers()}
    return lambda *arguments: torch.func.functional_call(function, state, arguments)


def _probe(shape: Shape, seed: int) -> Tensor:
    """A fixed generic point: no two entries equal, inside (0, 1)."""
    count = 1
    for s in shape:
        count *= s
    return (
        (torch.arange(1, count + 1, dtype=torch.float64) * 0.6180339887 + 0.31 * (seed + 1))
        .frac()
        .reshape(shape)
    )


def _check(
    name: str, call: Callable[..., Any], probes: Sequence[Tensor], result: Shape, dtype: torch.dtype
) -> None:
    leaves = [p.requires_grad_() for p in probes]
    try:
        value = call(*leaves)
    except Exception as error:  # the user's code may raise anything
        raise BackendError(
            f"extern {name!r} failed on tensors of shapes "
            f"{[tuple(p.shape) for p in probes]}: {error}"
        ) from error
    if not isinstance(value, Tensor):
        raise BackendError(
            f"extern {name!r} returned {type(value).__name__}; it must return a torch tensor"
        )
    if tuple(value.shape) != result:
        raise BackendError(
            f"extern {name!r} returned a tensor of shape {tuple(value.shape)}; "
            f"{result} was declared"
        )
    if value.dtype != dtype:
        raise BackendError(f"extern {name!r} returned {value.dtype}; the model computes in {dtype}")
    weights = _probe(result, 7).to(value)
    try:
        grads = torch.autograd.grad(
            (value * weights).sum(), leaves, create_graph=True, allow_unused=True
        )
        total = sum((g * g).sum() for g in grads if g is not None and g.requires_grad)
        second = (
            torch.autograd.grad(total, leaves, allow_unused=True)
            if isinstance(total, Tensor)
            else ()
        )
    except RuntimeError as error:
        raise BackendError(f"extern {name!r} cannot be differentiated twice: {error}") from error
    for order, parts in (("first", grads), ("second", second)):
        if any(g is not None and not bool(torch.isfinite(g).all()) for g in parts):
            raise BackendError(
                f"extern {name!r} has a {order} derivative that is not finite at a probe point"
            )
    for leaf in leaves:
        leaf.requires_grad_(False)


def _vectorises(call: Callable[..., Any], probes: Sequence[Tensor]) -> bool:
    """Whether vmap can run it."""
    try:
        torch.vmap(call)(*(torch.stack([p, p]) for p in probes))
    except Exception:  # anything that vmap cannot trace
        return False
    return True
