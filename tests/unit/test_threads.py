"""Runs by NumPy have one thread of torch, and leave the numbers of threads as they were."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

import bilevelpy as bl
from bilevelpy.lowering.programs import threads
from bilevelpy.lowering.programs.threads import by_numpy, few_threads

TEXT = """
dim n, p;
param A[n, p], b[n];
upper { var lam in [-4, 2]; minimize sumsq(w) + lam^2; }
lower fit { var w[p]; minimize sumsq(A @ w - b) + exp(lam) * sumsq(w); }
"""


def model() -> bl.Model:
    draw = np.random.default_rng(0)
    return bl.parse(TEXT, data={"A": draw.standard_normal((9, 3)), "b": draw.standard_normal(9)})


def blas() -> set[int]:
    """The numbers of threads of the loaded BLAS libraries."""
    return {int(i["num_threads"]) for i in threadpool_info() if i["user_api"] == "blas"}


@pytest.fixture
def three() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("three")
def test_a_run_has_one_thread_and_gives_the_others_back() -> None:
    before, seen = blas(), []
    result = bl.solve(model(), callback=lambda _: seen.append((torch.get_num_threads(), blas())))
    assert result.success
    assert seen
    assert all(found == (1, {1}) for found in seen)
    assert (torch.get_num_threads(), blas()) == (3, before)


@pytest.mark.usefixtures("three")
def test_so_does_a_run_that_fails() -> None:
    def broken(_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        bl.solve(model(), callback=broken)
    assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three")
def test_blas_keeps_its_threads_for_large_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SMALL", 26)
    before = blas()
    with few_threads(model().bound):
        assert (torch.get_num_threads(), blas()) == (1, before)


@pytest.mark.usefixtures("three")
def test_many_threads_and_large_data_are_for_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    bound = model().bound
    assert by_numpy(bound)
    monkeypatch.setattr(threads, "LARGE", 26)
    assert by_numpy(bound)
    monkeypatch.setattr(threads, "MANY", 3)
    assert not by_numpy(bound)
    with few_threads(bound):
        assert torch.get_num_threads() == 3


@pytest.mark.usefixtures("three")
def test_a_caller_with_one_thread_is_left_alone() -> None:
    torch.set_num_threads(1)
    before = blas()
    with few_threads(model().bound):
        assert blas() == before
