"""Lower bounds on the least eigenvalue of a symmetric matrix of data, by what its size allows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import scipy.sparse as sp

from bilevelpy.analysis.probing.banded import banded, stored

Array = np.ndarray[Any, np.dtype[np.float64]]

# Eigenvalues of matrices up to WHOLE are computed (20 ms), up to FACTOR one is enclosed by two or
# three factors (0.3 s), up to LARGEST their discs are seen; sparse ones are factorised where their
# band has at most BAND entries and the factor takes at most WORK operations.
WHOLE, FACTOR, LARGEST, BAND, WORK = 500, 2000, 5000, 10_000_000, 2e9
# Steps of inverse iteration, and the fraction of its estimate that is then proved.
STEPS, FRACTION = 12, 0.9


def least_eigenvalue(matrix: Any) -> float:
    """A number that the least eigenvalue of the symmetric part is not below, up to rounding.

    It is the eigenvalue itself for small matrices, 0 where that is rounding, and ``-inf`` where
    nothing is known at a reasonable cost. Diagonal dominance is seen at any size (S. Gershgorin,
    1931); beyond it a Cholesky factor of ``A - mu I`` proves mu.
    """
    size = matrix.shape[0]
    if matrix.shape != (size, size):
        return -math.inf
    if size == 0:
        return 0.0
    if sp.issparse(matrix):
        if not np.isfinite(matrix.data).all():
            return -math.inf
        if size <= WHOLE:
            return _whole(_half(matrix.toarray()))
        return _sparse(sp.csr_array(_half(matrix)))
    if size > LARGEST or not np.isfinite(matrix).all():
        return -math.inf
    if size <= WHOLE:
        return _whole(_half(matrix))
    symmetric = _half(matrix)
    discs = _gershgorin(symmetric.diagonal(), np.abs(symmetric).sum(axis=1))
    if discs >= 0 or size > FACTOR:
        return discs if discs >= 0 else -math.inf
    from scipy.linalg.lapack import dpotrf, dpotrs

    def factor(shift: float) -> Array | None:
        shifted = symmetric - shift * np.eye(size)
        lower, failed = dpotrf(shifted, lower=1, clean=0)
        return None if failed else lower

    return _proved(
        float(np.abs(symmetric.diagonal()).max()), size, factor, lambda L, v: dpotrs(L, v, lower=1)
    )


def _half(matrix: Any) -> Any:
    return (matrix + matrix.T) / 2


def _whole(symmetric: Array) -> float:
    values = np.linalg.eigvalsh(symmetric)
    rounding = values.size * np.finfo(float).eps * float(np.abs(values).max())
    least = float(values[0])
    return 0.0 if abs(least) <= rounding else least - rounding


def _gershgorin(diagonal: Array, rows: Array) -> float:
    """The lowest point of the discs, 0 where that is rounding."""
    low = diagonal - (rows - np.abs(diagonal))
    rounding = 1e-14 * float(np.max(rows, initial=0.0))
    least = float(np.min(low))
    return 0.0 if abs(least) <= rounding else least - rounding


def _sparse(symmetric: sp.csr_array) -> float:
    rows = np.asarray(abs(symmetric).sum(axis=1)).reshape(-1)
    discs = _gershgorin(symmetric.diagonal(), rows)
    if discs > 0:
        return discs
    from scipy.linalg.lapack import dpbtrf, dpbtrs

    known, size = banded(symmetric), symmetric.shape[0]
    if known.cells > BAND or known.work > WORK:
        return discs if discs >= 0 else -math.inf
    band = stored(known.rows, known.columns, known.values, known.width, size)

    def factor(shift: float) -> Array | None:
        shifted = band.copy()
        shifted[0] -= shift
        lower, failed = dpbtrf(shifted, lower=1, overwrite_ab=1)
        return None if failed else lower

    found = _proved(float(np.abs(band[0]).max()), size, factor, lambda L, v: dpbtrs(L, v, lower=1))
    return max(found, discs) if discs >= 0 else found


def _proved(top: float, size: int, factor: Any, solve: Any) -> float:
    """A positive mu with a factor of ``A - mu I``; 0 where only ``A + rounding I`` has one."""
    rounding = 4.0 * math.sqrt(size) * np.finfo(float).eps * top
    lower = factor(rounding)
    if lower is None:
        return 0.0 if factor(-rounding) is not None else -math.inf
    v = np.random.default_rng(0).standard_normal(size)
    estimate = math.inf
    for _ in range(STEPS):
        v /= np.linalg.norm(v)
        v = solve(lower, v)[0]
        estimate = 1.0 / float(np.linalg.norm(v))
    mu = FRACTION * estimate
    # The estimate is from above: where many eigenvalues lie near the least one, far above.
    while mu > rounding and factor(mu + rounding) is None:
        mu *= 0.5
    return max(mu, rounding)
