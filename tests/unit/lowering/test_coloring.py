"""Columns of sparse matrices by few products."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from bilevelpy.lowering.hessians.coloring import Columns


def matrix(shape: tuple[int, int], share: float, seed: int) -> sp.csr_array:
    return sp.csr_array(sp.random(*shape, density=share, rng=np.random.default_rng(seed)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(7, 7), (30, 12), (4, 20), (0, 3), (5, 0)])
def test_the_matrix_comes_back(shape: tuple[int, int], share: float, seed: int) -> None:
    A = matrix(shape, share, seed)
    for pattern in (A, None):
        columns = Columns(shape, pattern)
        assert len(columns) <= shape[1]
        np.testing.assert_array_equal(columns.of(lambda v: A @ v.numpy()), A.toarray())


def test_few_products_for_few_meetings() -> None:
    assert len(Columns((9, 9), sp.csr_array(sp.eye_array(9)))) == 1
    band = sp.csr_array(sp.diags_array([1.0, 1.0, 1.0], offsets=[-1, 0, 1], shape=(40, 40)))
    assert len(Columns((40, 40), band)) == 3
    full_row = sp.csr_array(np.vstack([np.ones(6), np.eye(6)]))
    assert len(Columns((7, 6), full_row)) == 6
