"""Integer responses in place of real ones worth as much (``reductions.integer.relaxation``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.responses.followers import responses
from bilevelpy.backends.exact.responses.leader import leaders_best

if TYPE_CHECKING:
    from bilevelpy.backends.exact.responses.followers import Followers

Array = np.ndarray[Any, np.dtype[Any]]


def in_whole_numbers(run: Followers, v: Array, sign: float = 1.0) -> Array:
    """The point with the leader's best (for ``sign`` -1: worst) among the whole best responses to
    its x, where some are not whole yet; as it came where they were not found in time.
    """
    columns = run.system.columns
    whole = np.flatnonzero(columns.integer)
    if bool((v[whole] == np.round(v[whole])).all()):
        return v
    full = v.copy()
    leader = whole[columns.owner[whole] == 0]
    full[leader] = np.round(v[leader])
    at = full[: columns.count].copy()
    solved, status = responses(run, at)
    if status != "optimal":
        return v
    found = leaders_best(run, at, solved, sign=sign)
    if found.values is None:
        return v
    full[: at.size] = found.values[: at.size]
    full[whole] = np.round(full[whole])
    return full
