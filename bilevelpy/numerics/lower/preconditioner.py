"""A preconditioner for free: curvature pairs of earlier conjugate-gradient runs on nearby matrices.

The directions ``p`` of a run and their products ``H p`` are pairs for a limited-memory BFGS matrix;
applied in the next run it takes out the large eigenvalues that the pairs have seen (J. L. Morales
and J. Nocedal, "Automatic preconditioning by limited memory quasi-Newton updating", SIAM J. Optim.
10, 2000). It changes how fast a run converges, never where to. Where it hardly does that (many
eigenvalues, evenly spread, as of a discretised Laplacian) its own products cost more than the
iterations that it saves, and it stands aside for the rest of the run.
"""

from __future__ import annotations

import math

import torch

from bilevelpy.numerics.linear_solve import norm
from bilevelpy.numerics.quasi_newton import BFGS

Vec = torch.Tensor

# Pairs that are kept.
MEMORY = 40
# Runs shorter than this have nothing to teach.
SHORT = 8
# Pairs are kept while they make the residual fall this many times as fast as it does without.
WORTH = 2.0


class PairPreconditioner:
    """Watches a run (:meth:`observe`, then :meth:`learn` at its end), preconditions the next."""

    __slots__ = (
        "_calls",
        "_first",
        "_last",
        "_matrix",
        "_plain",
        "_seen",
        "_stride",
        "_taught",
        "idle",
    )

    def __init__(self, memory: int = MEMORY) -> None:
        self._matrix = BFGS(0.0, memory, rescale=True)
        self._seen: list[tuple[Vec, Vec]] = []
        self._stride = 1
        self._taught = 0
        self._calls, self._first, self._last = 0, 0.0, 0.0
        self._plain = 0.0  # fall of log |r| per iteration without pairs
        self.idle = False

    def __call__(self, r: Vec) -> Vec:
        """``M r``, with M the identity as long as nothing has been learned."""
        if self.idle:
            return r
        self._last = norm(r)
        if self._calls == 0:
            self._first = self._last
        self._calls += 1
        return self._matrix.apply(r) if self._matrix.pairs else r

    def observe(self, p: Vec, Hp: Vec) -> None:
        """See a direction and its product; evenly spaced ones are kept."""
        if self.idle:
            return
        if self._taught % self._stride == 0:
            self._seen.append((p, Hp))
            if len(self._seen) > 2 * self._matrix.memory:
                self._seen = self._seen[::2]
                self._stride *= 2
        self._taught += 1

    def learn(self) -> None:
        """Take over what the run has shown, if it was long enough; stand aside where pairs do not
        pay.
        """
        if self._taught >= SHORT and not self.idle:
            fall = self._rate()
            if not self._matrix.pairs:
                self._plain = fall
            elif fall < WORTH * self._plain:
                self.idle = True
            for p, Hp in self._seen[-self._matrix.memory :]:
                self._matrix.update(p, Hp)
        self._seen, self._stride, self._taught = [], 1, 0
        self._calls = 0

    def _rate(self) -> float:
        """How much log |r| fell per iteration between the first and the last residual seen."""
        if self._calls < 2 or not 0.0 < self._last < self._first:
            return 0.0
        return math.log(self._first / self._last) / (self._calls - 1)
