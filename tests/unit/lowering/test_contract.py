"""Contractions agree with einsum and use the calls that they should."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevelpy.lowering.programs.contract import contract, elementwise, relabel

SIZES = {"a": 3, "b": 4, "i": 5, "j": 6, "k": 2}
USED = {
    "i,i->": "dot", "ij,j->i": "mv", "ji,j->i": "mv",
    "j,ij->i": "mv", "ij,jk->ik": "mm", "ij,kj->ik": "mm",
    "ji,jk->ki": "mm", "ij,jk->ki": "mm", "ij,ij->": "sum",
    "ij,ji->": "sum", "ij,ij->i": "sum", "ij,ij->j": "sum",
    "aij,aj->ai": "matmul", "aj,aij->ai": "matmul", "aij,ajk->aik": "matmul",
    "aij,akj->kia": "matmul", "iaj,aj->ia": "matmul", "abi,i->ab": "matmul",
    "aib,i->ba": "matmul", "abij,abj->abi": "matmul", "abi,ij->abj": "einsum",
    "abi,abi->": "sum", "ai,bi->ab": "mm", "aij,ij->a": "einsum",
}  # fmt: skip


@pytest.mark.parametrize("pattern", sorted(USED))
def test_contract(pattern):
    rng = np.random.default_rng(0)
    sides, output = pattern.split("->")
    left, right = sides.split(",")
    a, b = (
        torch.from_numpy(rng.standard_normal([SIZES[s] for s in side])) for side in (left, right)
    )
    used = []

    def call(function, *arguments):
        used.append(function.__name__)
        return function(*arguments)

    code = {s: k for k, s in enumerate("abijk")}
    la, lb, lo = (tuple(code[s] for s in side) for side in (left, right, output))
    np.testing.assert_allclose(
        contract(call, a, la, b, lb, lo), np.einsum(pattern, a, b), rtol=1e-12
    )
    assert USED[pattern] in used


def test_elementwise_broadcasts_and_permutes():
    rng = np.random.default_rng(0)
    a, b, c = (torch.from_numpy(rng.standard_normal(s)) for s in ((3,), (2, 3), (4, 2)))
    result = elementwise(
        lambda f, *x: f(*x), [(a, (0,)), (2.0, ()), (b, (1, 0)), (c, (2, 1))], (0, 2, 1)
    )
    np.testing.assert_allclose(result, 2 * np.einsum("i,ji,kj->ikj", a, b, c), rtol=1e-14)


@pytest.mark.parametrize("pattern", ["ii->i", "iij->ji", "iji->ij", "ijk->kij", "ii->"])
def test_one_operand(pattern):
    left, output = pattern.split("->")
    a = torch.arange(1.0, 1 + np.prod([SIZES[s] for s in left])).reshape([SIZES[s] for s in left])
    code = {s: k for k, s in enumerate("ijk")}
    result = relabel(
        lambda f, *x: f(*x), a, tuple(code[s] for s in left), tuple(code[s] for s in output)
    )
    np.testing.assert_allclose(result, np.einsum(pattern, a))
