"""A dense inverse of f_yy as the preconditioner of conjugate gradients, made once products have
cost what it costs.

    M = V |Lambda|^-1 V',        f_yy(x, y) = V Lambda V'  at an earlier response

Small networks have Hessians of condition number 1e5 and more, of which pairs and diagonals know
little: each adjoint takes some hundred products, and each Newton step of the next lower solve. Near
the point where it was made M brings that to a few. Absolute values keep it positive definite where
a response is no strict minimum (Y. Dauphin et al., NeurIPS 27, 2014). It changes how fast a solve
converges, never where to.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from bilevelpy.lowering.protocol import Oracle

Vec = torch.Tensor

# Beyond so many variables a product with M takes as long as ten with f_yy.
LARGEST = 1000
# The matrix and its eigenvectors are worth so many products a variable.
PRICE = 2.0
# Curvatures below this part of the largest are those of ways that change no objective (turned
# factors): plain products keep out of these, their inverses do not.
SINGULAR = 1e-7


class DensePreconditioner:
    """Counts products as ``rent``; has an inverse once these would have paid for it, and a new one
    when they have again (ski rental). Where f_yy is singular it has none from then on.
    """

    __slots__ = ("matrix", "place", "rent")

    def __init__(self) -> None:
        self.rent = 0.0
        self.matrix: Vec | None = None
        # Where f_yy was evaluated.
        self.place: tuple[Vec, Vec] | None = None

    def __call__(self, r: Vec) -> Vec:
        """``M r``."""
        assert self.matrix is not None
        return self.matrix @ r

    def settle(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        """Make it at (x, y), a response of a free lower level, if products have paid for it."""
        paid = self.rent >= PRICE * oracle.m and 0 < oracle.m <= LARGEST
        if paid and oracle.domain_y.is_free:
            self._make(oracle, x, y)

    def _make(self, oracle: Oracle, x: Vec, y: Vec) -> None:
        H = oracle.hessian(x, y)
        self.rent, self.matrix, self.place = -math.inf, None, None
        if not bool(torch.isfinite(H).all()):
            return
        values, vectors = torch.linalg.eigh(H)
        sizes = values.abs()
        if float(sizes.min()) > SINGULAR * float(sizes.max()):
            self.rent, self.matrix, self.place = 0.0, (vectors / sizes) @ vectors.T, (x, y)

    def carried(self) -> dict[str, Any]:
        """Where the matrix was evaluated; itself is computed again."""
        return {"rent": self.rent, "place": self.place}

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The same inverse."""
        if known["place"] is not None:
            self._make(oracle, *known["place"])
        self.rent = float(known["rent"])
