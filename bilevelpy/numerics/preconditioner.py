"""A preconditioner for free: curvature pairs of earlier conjugate-gradient runs on nearby matrices.

The directions ``p`` of a run and their products ``H p`` are pairs for a limited-memory BFGS matrix;
applied in the next run it takes out the large eigenvalues that the pairs have seen (J. L. Morales
and J. Nocedal, "Automatic preconditioning by limited memory quasi-Newton updating", SIAM J. Optim.
10, 2000). It changes how fast a run converges, never where to.
"""

from __future__ import annotations

import torch

from bilevelpy.numerics.quasi_newton import BFGS

Vec = torch.Tensor

MEMORY = 40
# Runs shorter than this have nothing to teach.
SHORT = 8


class PairPreconditioner:
    """Watches a run (:meth:`observe`, then :meth:`learn` at its end), preconditions the next."""

    __slots__ = ("_matrix", "_seen", "_stride", "_taught")

    def __init__(self, memory: int = MEMORY) -> None:
        self._matrix = BFGS(0.0, memory, rescale=True)
        self._seen: list[tuple[Vec, Vec]] = []
        self._stride = 1
        self._taught = 0

    def __call__(self, r: Vec) -> Vec:
        """``M r``, with M the identity as long as nothing has been learned."""
        return self._matrix.apply(r) if self._matrix.pairs else r

    def observe(self, p: Vec, Hp: Vec) -> None:
        """See a direction and its product; evenly spaced ones are kept."""
        if self._taught % self._stride == 0:
            self._seen.append((p, Hp))
            if len(self._seen) > 2 * self._matrix.memory:
                self._seen = self._seen[::2]
                self._stride *= 2
        self._taught += 1

    def learn(self) -> None:
        """Take over what the run has shown, if it was long enough."""
        if self._taught >= SHORT:
            for p, Hp in self._seen[-self._matrix.memory :]:
                self._matrix.update(p, Hp)
        self._seen, self._stride, self._taught = [], 1, 0
