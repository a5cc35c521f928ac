"""Numbers by which arrays that were changed in place are told from what they were."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from bilevelpy.ir.fingerprint import WIDTH, fingerprints


def of(array: Any) -> tuple[bytes, ...]:
    return fingerprints({"a": array})["a"]


@pytest.mark.parametrize("size", [1, 7, WIDTH, WIDTH + 1, 3 * WIDTH + 5])
def test_any_entry_counts(size: int) -> None:
    draw = np.random.default_rng(size)
    array = draw.normal(size=size)
    before = of(array)
    assert of(array.copy()) == before
    for place in {0, size // 2, size - 1}:
        old, array[place] = array[place], array[place] + 1e-6
        assert of(array) != before
        array[place] = old
    assert of(array) == before


def test_the_order_of_entries_counts() -> None:
    array = np.random.default_rng(0).normal(size=(3 * WIDTH, 2))
    before = of(array)
    for moved in (array[::-1], array[:, ::-1], np.roll(array, WIDTH, axis=0)):
        assert of(moved.copy()) != before
    assert of(array.reshape(2, -1)) != before


def test_orders_in_memory() -> None:
    array = np.random.default_rng(0).normal(size=(50, 300))
    for seen in (array, np.asfortranarray(array), array[::2, 1::3]):
        before = of(seen)
        assert of(seen) == before
        seen[3, 4] += 1.0
        assert of(seen) != before


def test_values_that_are_not_finite_compare() -> None:
    array = np.array([1.0, np.nan, np.inf])
    assert of(array) == of(array.copy())


@pytest.mark.parametrize("part", ["data", "indices", "indptr"])
def test_parts_of_sparse_arrays(part: str) -> None:
    array = sp.random_array((40, 30), density=0.2, rng=0).tocsr()
    before = of(array)
    getattr(array, part)[3] += 1
    assert of(array) != before


def test_data_in_files_are_not_read(tmp_path: Any) -> None:
    np.save(tmp_path / "a.npy", np.ones(5))
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert of(mapped)[1:] == (b"",)
