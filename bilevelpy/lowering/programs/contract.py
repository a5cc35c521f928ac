"""Products and contractions as the cheapest torch calls, einsum as a last resort.

The choice depends on labels only, never on sizes, so that it is made once for a text. Transposes
are views.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from typing import Any

import torch

from bilevelpy.lowering.programs.linear_map import data_product, sparse_product

Labels = tuple[int, ...]
# Runs a torch function, or records it in a graph.
Call = Callable[..., Any]


def arrange(call: Call, ref: Any, labels: Labels, output: Labels) -> tuple[Any, int]:
    """``ref`` with its dims in the order of ``output``, ready to broadcast; and how many leading
    dims are absent.
    """
    order = [labels.index(s) for s in output if s in labels]
    if order != sorted(order):
        ref = call(torch.t, ref) if len(order) == 2 else call(torch.permute, ref, tuple(order))
    present = [d for d, s in enumerate(output) if s in labels]
    missing = present[0] if present else len(output)
    for d in range(missing, len(output)):
        if output[d] not in labels:
            ref = call(torch.unsqueeze, ref, d - missing)
    return ref, missing


def elementwise(call: Call, factors: Sequence[tuple[Any, Labels]], output: Labels) -> Any:
    """The product of factors without a sum; numbers go with the smallest factor."""
    ordered = sorted(factors, key=lambda f: len(f[1]))
    total: Any = None
    for ref, labels in ordered:
        arranged, _ = arrange(call, ref, labels, output)
        total = arranged if total is None else call(torch.mul, arranged, total)
    return total


def contract(call: Call, a: Any, la: Labels, b: Any, lb: Labels, output: Labels) -> Any:
    """The sum over the labels outside ``output`` of the product of two tensors with distinct
    labels each.
    """
    la, a = _sum_lonely(call, a, la, lb, output)
    lb, b = _sum_lonely(call, b, lb, la, output)
    shared = [s for s in la if s in lb]
    summed = tuple(s for s in shared if s not in output)
    batch = tuple(s for s in output if s in shared)
    free_a = tuple(s for s in la if s not in lb)
    free_b = tuple(s for s in lb if s not in la)
    if not summed:
        return elementwise(call, [(a, la), (b, lb)], output)
    if not batch:
        if not free_a and not free_b:
            if len(summed) == 1:
                return call(torch.dot, a, b)
            return call(torch.sum, call(torch.mul, a, arrange(call, b, lb, la)[0]))
        if len(summed) == 1:
            if not free_b:
                return _matrix_vector(call, a, la, b, summed[0], output)
            if not free_a:
                return _matrix_vector(call, b, lb, a, summed[0], output)
            if len(la) == len(lb) == 2:
                if output[0] in lb:
                    a, la, b, lb = b, lb, a, la
                left = a if la[1] == summed[0] else call(torch.t, a)
                right = b if lb[0] == summed[0] else call(torch.t, b)
                return call(torch.mm, left, right)
    elif len(summed) == 1 and len(free_a) <= 1 and len(free_b) <= 1:
        return _batched(call, a, la, b, lb, batch, summed[0], output)
    return _einsum(call, a, la, b, lb, output)


def _sum_lonely(
    call: Call, ref: Any, labels: Labels, other: Labels, output: Labels
) -> tuple[Labels, Any]:
    dims = tuple(d for d, s in enumerate(labels) if s not in other and s not in output)
    if dims:
        ref = call(torch.sum, ref, dims)
    return tuple(s for d, s in enumerate(labels) if d not in dims), ref


def _matrix_vector(call: Call, a: Any, la: Labels, v: Any, summed: int, output: Labels) -> Any:
    rest = tuple(s for s in la if s != summed)
    if len(la) == 2:
        return call(torch.mv, a if la[1] == summed else call(torch.t, a), v)
    if la[-1] != summed:
        a = call(torch.movedim, a, la.index(summed), -1)
    return arrange(call, call(torch.matmul, a, v), rest, output)[0]


def _batched(
    call: Call, a: Any, la: Labels, b: Any, lb: Labels, batch: Labels, summed: int, output: Labels
) -> Any:
    """Batch dims in front; ``matmul`` where a dim is free, else multiply and sum."""
    free_a = tuple(s for s in la if s != summed and s not in batch)
    free_b = tuple(s for s in lb if s != summed and s not in batch)
    if not free_a and not free_b:
        a, _ = arrange(call, a, la, (*batch, summed))
        b, _ = arrange(call, b, lb, (*batch, summed))
        return arrange(call, call(torch.sum, call(torch.mul, a, b), -1), batch, output)[0]
    a, _ = arrange(call, a, la, (*batch, *free_a, summed))
    b, _ = arrange(call, b, lb, (*batch, summed, *free_b))
    if not free_a:
        a = call(torch.unsqueeze, a, -2)
    if not free_b:
        b = call(torch.unsqueeze, b, -1)
    result = call(torch.matmul, a, b)
    if not free_a:
        result = call(torch.squeeze, result, -2)
    if not free_b:
        result = call(torch.squeeze, result, -1)
    return arrange(call, result, (*batch, *free_a, *free_b), output)[0]


def _einsum(call: Call, a: Any, la: Labels, b: Any, lb: Labels, output: Labels) -> Any:
    letter = {s: string.ascii_letters[k] for k, s in enumerate(dict.fromkeys((*la, *lb)))}
    words = ["".join(letter[s] for s in labels) for labels in (la, lb, output)]
    return call(torch.einsum, f"{words[0]},{words[1]}->{words[2]}", a, b)


def relabel(call: Call, ref: Any, labels: Labels, output: Labels) -> Any:
    """One operand: a permutation, or a diagonal where a label occurs twice."""
    while len(set(labels)) < len(labels):
        twice = next(s for s in labels if labels.count(s) > 1)
        first, second = (d for d, s in enumerate(labels) if s == twice)
        ref = call(torch.diagonal, ref, 0, first, second)
        labels = (*(s for d, s in enumerate(labels) if d not in (first, second)), twice)
    dims = tuple(d for d, s in enumerate(labels) if s not in output)
    if dims:
        ref = call(torch.sum, ref, dims)
    return arrange(call, ref, tuple(s for s in labels if s in output), output)[0]


def contract_data(call: Call, a: Any, la: Labels, b: Any, lb: Labels, output: Labels) -> Any | None:
    """A data matrix ``a`` times a matrix ``b``; None where it is no such product."""
    summed = [s for s in la if s in lb and s not in output]
    if len(set(la)) != 2 or len(set(lb)) != 2 or len(summed) != 1:
        return None
    row = next(s for s in la if s != summed[0])
    column = next(s for s in lb if s != summed[0])
    if row == column or row not in output or column not in output:
        return None
    operand, _ = arrange(call, b, lb, (summed[0], column))
    result = call(data_product, a, operand, la[0] == summed[0])
    return arrange(call, result, (row, column), output)[0]


def contract_sparse(
    call: Call, a: Any, la: Labels, b: Any, lb: Labels, output: Labels
) -> Any | None:
    """A sparse matrix ``a`` times a dense vector or matrix ``b``; None where it is no such
    product.
    """
    summed = [s for s in la if s in lb and s not in output]
    if len(la) != 2 or len(set(la)) < 2 or len(summed) != 1 or len(lb) > 2:
        return None
    row = next(s for s in la if s != summed[0])
    free = tuple(s for s in lb if s != summed[0])
    if row in lb or row not in output or any(s not in output for s in free):
        return None
    operand, _ = arrange(call, b, lb, (summed[0], *free))
    result = call(sparse_product, a, operand, la[0] == summed[0])
    return arrange(call, result, (row, *free), output)[0]
