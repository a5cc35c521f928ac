"""How many threads a run has: one of torch, and BLAS as many as the data are worth.

NumPy's BLAS and torch keep threads of their own, which wait for work by spinning and so take the
cores from one another. Whole programs by torch on several threads cost two to ten times the work of
the same programs by NumPy, products by BLAS and functions of long arrays by one thread of torch:
with few threads that is slower, whatever the size. Small matrices gain nothing by BLAS's threads.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Threads from which on torch can win back what it takes more, on data of at least so many entries.
MANY, LARGE = 8, 20_000_000
# Entries of the largest array up to which BLAS has one thread.
SMALL = 4_000_000

_LOCK = threading.Lock()
_LIMITED: dict[str, Any] = {"runs": 0}


def by_numpy(bound: BoundProgram) -> bool:
    """Whether programs of a model on the CPU are to be NumPy functions."""
    return torch.get_num_threads() < MANY or _largest(bound) <= LARGE


@contextlib.contextmanager
def few_threads(bound: BoundProgram) -> Iterator[None]:
    """One thread of torch, and of BLAS where the data are small, for a run by NumPy; what was set
    before is set again at the end. A caller who has chosen one thread keeps BLAS as it is.
    """
    threads = torch.get_num_threads()
    if threads == 1 or not by_numpy(bound):
        yield
        return
    limit = _one_of_blas() if _largest(bound) <= SMALL else contextlib.nullcontext()
    torch.set_num_threads(1)
    try:
        with limit:
            yield
    finally:
        torch.set_num_threads(threads)


@contextlib.contextmanager
def _one_of_blas() -> Iterator[None]:
    """One thread of BLAS. Unlike torch's, its number is the process's: of runs side by side the
    first sets it, and the last sets back what was before.
    """
    with _LOCK:
        if not _LIMITED["runs"]:
            _LIMITED["limit"] = _pools().limit(limits=1, user_api="blas")
        _LIMITED["runs"] += 1
    try:
        yield
    finally:
        with _LOCK:
            _LIMITED["runs"] -= 1
            if not _LIMITED["runs"]:
                _LIMITED.pop("limit").restore_original_limits()


def _largest(bound: BoundProgram) -> int:
    return max((int(a.size) for a in bound.data.arrays.values()), default=0)


@cache
def _pools() -> Any:
    """The libraries with threads that are loaded, those of SciPy among them."""
    import scipy.linalg  # noqa: F401
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
