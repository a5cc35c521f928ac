"""The oracle of a compiled model as NumPy functions, without importing the tensor library."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from bilevelpy.analysis.probing.probe import ProbeOracle, Vec

# Finite boxes up to this width are sampled evenly, wider ones around the start.
EVEN_WIDTH = 100.0


class TensorProbe:
    """A :class:`~bilevelpy.analysis.probing.probe.ProbeOracle` over an oracle of tensors."""

    def __init__(self, oracle: Any) -> None:
        self.oracle = oracle
        self.n: int = oracle.n
        self.m: int = oracle.m
        self.x0: Vec = _array(oracle.x0)
        self.y0: Vec = _array(oracle.y0)

    def _tensor(self, vector: Vec) -> Any:
        return self.oracle.x0.new_tensor(np.ascontiguousarray(vector))

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """The gradient of f in y."""
        return _array(self.oracle.grad_f(self._tensor(x), self._tensor(y)))

    def slope_F(self, x: Vec, y: Vec) -> Vec:
        """The gradient of F in y."""
        return _array(self.oracle.grad_F(self._tensor(x), self._tensor(y))[1])

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """The map v -> f_yy v at a point."""
        product = self.oracle.hvp(self._tensor(x), self._tensor(y))
        return lambda v: _array(product(self._tensor(v)))

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """The dense f_yy at a point; of matrices, that of moves that stay symmetric."""
        found = _array(self.oracle.hessian(self._tensor(x), self._tensor(y)))
        matrices = self.oracle.domain_y.matrices
        return symmetrised(found, matrices) if matrices else found

    def lowest_x(self) -> tuple[Vec, Mapping[str, Any]] | None:
        """The upper variables at their lower bounds, in one vector and by name; None where some
        have none, or the oracle has them in units of its own.
        """
        low = self.oracle.domain_x.lower
        named = hasattr(self.oracle, "unflatten_x")
        if not (named and self.n and bool(low.isfinite().all())):
            return None
        return _array(low), self.oracle.unflatten_x(low)

    def sample_x(self, rng: np.random.Generator) -> Vec:
        """An upper point: even on bounded boxes, around the start elsewhere."""
        domain = self.oracle.domain_x
        low, high = _array(domain.lower), _array(domain.upper)
        around = self.x0 + rng.standard_normal(self.n) * _spread(self.x0)
        even = np.isfinite(low) & np.isfinite(high)
        width = np.where(even, high - np.where(even, low, 0.0), np.inf)
        bounded = width <= EVEN_WIDTH
        inside = np.where(bounded, low, 0.0) + rng.random(self.n) * np.where(bounded, width, 0.0)
        return _array(domain.project(self._tensor(np.where(bounded, inside, around))))

    def sample_y(self, x: Vec, rng: np.random.Generator, scale: float) -> Vec:
        """A lower point around the start, moved into the domain."""
        y = self.y0 + scale * rng.standard_normal(self.m) * _spread(self.y0)
        return _array(self.oracle.domain_y.project(self._tensor(y)))


def symmetrised(hessian: Vec, matrices: Any) -> Vec:
    """``P H P + c (I - P)`` with the projection P onto symmetric matrices; c is the mean curvature
    of these, so that the extreme eigenvalues are those of ``P H P`` on them.
    """
    across = np.zeros(hessian.shape)
    for block in matrices:
        for k in range(block.count):
            first = block.start + k * block.size
            at = first + np.arange(block.size).reshape(block.side, block.side)
            i, j = np.triu_indices(block.side, 1)
            a, b = at[i, j], at[j, i]
            across[a, a] = across[b, b] = 0.5
            across[a, b] = across[b, a] = -0.5
    onto = np.eye(hessian.shape[0]) - across
    inner: Vec = onto @ hessian @ onto
    found: Vec = inner + across * (np.trace(inner) / max(np.trace(onto), 1.0))
    return found


def _array(tensor: Any) -> Vec:
    return np.array(tensor.detach().numpy(), dtype=float)


def _spread(start: Vec) -> float:
    """The size of a random move: that of the start, at least 1."""
    return max(1.0, float(np.sqrt(np.mean(start**2)))) if start.size else 1.0


@contextmanager
def as_probe(oracle: Any) -> Iterator[ProbeOracle]:
    """The oracle as NumPy functions; what probing evaluates is taken off its counts again."""
    if isinstance(oracle.x0, np.ndarray):
        yield oracle
        return
    before = dict(oracle.counts.as_dict())
    try:
        yield TensorProbe(oracle)
    finally:
        for name, value in before.items():
            setattr(oracle.counts, name, value)
