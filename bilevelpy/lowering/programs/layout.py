"""Named tensors <-> flat vectors: x holds the upper variables in declared order, y those of all
followers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.ir import expr as ir
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.program import BoundProgram, Level, Variable
from bilevelpy.ir.types import DomainKind
from bilevelpy.lowering.domains.product import Block, ProductSet


@dataclass(frozen=True, slots=True)
class Piece:
    """The entries ``start`` to ``stop`` of a flat vector: one variable of shape ``shape`` (family
    axes first).
    """

    variable: Variable
    family: int
    start: int
    stop: int
    shape: tuple[int, ...]

    @property
    def key(self) -> tuple[str, str]:
        """(level, name)."""
        return self.variable.level, self.variable.name


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the variables of some levels lie in one vector of length ``dim``."""

    pieces: tuple[Piece, ...]
    dim: int

    def split(self, flat: Tensor) -> list[Tensor]:
        """Detached views of a flat tensor in the variables' shapes."""
        flat = flat.detach()
        if len(self.pieces) == 1:
            shape = self.pieces[0].shape
            return [flat if len(shape) == 1 else flat.view(shape)]
        return [flat[p.start : p.stop].view(p.shape) for p in self.pieces]

    def leaves(self, flat: Tensor) -> list[Tensor]:
        """The same, each a leaf to differentiate by: gradients need no way back through the
        splitting.
        """
        return [part.requires_grad_() for part in self.split(flat)]

    def split_rows(self, rows: Tensor) -> list[Tensor]:
        """Many flat vectors (k, dim) in the variables' shapes, with k in front."""
        return [rows[:, p.start : p.stop].reshape(len(rows), *p.shape) for p in self.pieces]

    def join_rows(self, parts: Sequence[Tensor | None], rows: Tensor) -> Tensor:
        """Flat vectors (k, dim) from gradients along ``rows``, with k in front; None is zero."""
        flat = [
            rows.new_zeros(len(rows), p.stop - p.start)
            if part is None
            else part.reshape(len(rows), p.stop - p.start)
            for p, part in zip(self.pieces, parts, strict=True)
        ]
        return torch.cat(flat, 1)

    def join(self, parts: Sequence[Tensor | None], like: Tensor) -> Tensor:
        """A flat vector from gradients in the variables' shapes; None is zero. ``like`` is what
        they were taken along.
        """
        if len(self.pieces) == 1 and parts[0] is not None:
            flat = parts[0].reshape(-1)
            # A derivative may be the vector handed in, or one number repeated: give the caller its
            # own memory.
            shared = not flat.is_contiguous() or flat.data_ptr() == like.data_ptr()
            return flat.clone() if shared else flat
        if not self.pieces:
            return like.new_zeros(0)
        blocks = [
            like.new_zeros(p.stop - p.start) if part is None else part.reshape(-1)
            for p, part in zip(self.pieces, parts, strict=True)
        ]
        return torch.cat(blocks)

    def arrays(self, flat: Tensor) -> list[np.ndarray[Any, Any]]:
        """The parts as arrays: views of the vector's memory."""
        array = (flat.detach() if flat.requires_grad else flat).numpy()
        if len(self.pieces) == 1:
            shape = self.pieces[0].shape
            return [array if len(shape) == 1 else array.reshape(shape)]
        return [array[p.start : p.stop].reshape(p.shape) for p in self.pieces]

    def gather(self, parts: Sequence[Any]) -> Tensor:
        """A flat vector of its own from arrays in the variables' shapes."""
        if len(self.pieces) == 1:
            array = np.array(parts[0], dtype=np.float64).ravel()
        elif self.pieces:
            array = np.concatenate([np.asarray(p).reshape(-1) for p in parts], dtype=np.float64)
        else:
            array = np.zeros(0)
        return torch.from_numpy(array)

    def names(self, flat: Tensor) -> dict[tuple[str, str], np.ndarray[Any, Any]]:
        """Arrays by (level, name): views of the vector's memory."""
        array = flat.detach().cpu().numpy()
        return {p.key: array[p.start : p.stop].reshape(p.shape) for p in self.pieces}

    def flatten(self, values: Mapping[tuple[str, str], Any], default: Tensor) -> Tensor:
        """A flat vector from arrays by (level, name); what is not given comes from ``default``."""
        flat = default.clone()
        known = {p.key: p for p in self.pieces}
        for key, value in values.items():
            if key not in known:
                raise UsageError(f"there is no variable {key[1]!r} in level {key[0]!r}")
            piece = known[key]
            array = np.asarray(value, dtype=np.float64)
            if array.shape not in ((), piece.shape):
                raise UsageError(f"{key[1]!r} has shape {array.shape}, expected {piece.shape}")
            entries = np.broadcast_to(array, piece.shape).reshape(-1)
            flat[piece.start : piece.stop] = torch.as_tensor(
                np.array(entries), dtype=flat.dtype, device=flat.device
            )
        return flat

    def positions(self) -> dict[tuple[str, str], Tensor]:
        """(level, name) -> positions of the entries in the flat vector, in the variable's shape."""
        return {p.key: torch.arange(p.start, p.stop).reshape(p.shape) for p in self.pieces}


def layout(bound: BoundProgram, levels: Sequence[Level]) -> Layout:
    """The layout of the variables of ``levels``."""
    pieces: list[Piece] = []
    start = 0
    for level in levels:
        for variable in level.variables:
            shape = tuple(bound.data.sizes[a] for a in variable.axes)
            pieces.append(Piece(variable, len(level.family), start, start + prod(shape), shape))
            start += prod(shape)
    return Layout(tuple(pieces), start)


def domain(bound: BoundProgram, where: Layout, dtype: torch.dtype = torch.float64) -> ProductSet:
    """The product of the variables' domains."""
    run = Interpreter(bound.data)
    return ProductSet([_block(run, piece, dtype) for piece in where.pieces], where.dim)


def _block(run: Interpreter, piece: Piece, dtype: torch.dtype) -> Block:
    given = piece.variable.domain
    count = piece.stop - piece.start
    match given.kind:
        case DomainKind.FREE:
            return Block("free", piece.start, 1, count)
        case DomainKind.INTERVAL:
            lower = _bound(run, given.lower, -np.inf, piece.shape, dtype)
            upper = _bound(run, given.upper, np.inf, piece.shape, dtype)
            return Block("box", piece.start, 1, count, lower=lower, upper=upper)
        case DomainKind.SIMPLEX:
            size = piece.shape[-1]
            return Block("simplex", piece.start, prod(piece.shape[:-1]), size)
        case DomainKind.BALL:
            family = piece.shape[: piece.family]
            radius = 1.0 if given.radius is None else run.value(given.radius)
            radii = np.broadcast_to(_leading(np.asarray(radius), len(family)), family).reshape(-1)
            blocks = prod(family)
            return Block(
                "ball",
                piece.start,
                blocks,
                count // max(blocks, 1),
                radius=torch.as_tensor(np.array(radii), dtype=dtype),
            )
        case DomainKind.PSD:
            side = piece.shape[-1]
            return Block("psd", piece.start, prod(piece.shape[:-2]), side * side)
    name = f"{piece.variable.level}.{piece.variable.name}"
    raise BackendError(
        f"the domain {given.kind.value!r} of {name} has no projection that gradient methods can use"
    )


def _leading(radius: np.ndarray[Any, Any], family: int) -> np.ndarray[Any, Any]:
    """One radius per follower: a radius over all axes of the variable is the same along its own."""
    while radius.ndim > family:
        radius = radius[..., 0]
    return radius


def _bound(
    run: Interpreter,
    bound: ir.Expr | None,
    missing: float,
    shape: tuple[int, ...],
    dtype: torch.dtype,
) -> Tensor:
    value = np.asarray(missing) if bound is None else run.value(bound)
    return torch.as_tensor(
        np.array(np.broadcast_to(value, shape), dtype=np.float64).reshape(-1), dtype=dtype
    )


def start(bound: BoundProgram, where: Layout, inside: ProductSet, dtype: torch.dtype) -> Tensor:
    """The start point: `start` expressions, else 0; projected on the domain."""
    run = Interpreter(bound.data)
    flat = torch.zeros(where.dim, dtype=dtype)
    given = {
        p.key: run.value(p.variable.start) for p in where.pieces if p.variable.start is not None
    }
    return inside.project(where.flatten(given, flat))
