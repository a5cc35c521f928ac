"""Checks of values: numbers, inside their domains; in blocks, so that large data stays put."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Span
from bilevelpy.ir.mapped import blocks, is_mapped
from bilevelpy.ir.program import Param
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import Domain, DomainKind
from bilevelpy.sema.binding.problems import evaluation_problem, ready
from bilevelpy.sema.binding.raw import the
from bilevelpy.sema.binding.state import State, number_text

BLOCK = 1 << 16
PSD_LIMIT = 1500
"""Largest matrix whose eigenvalues are computed; a larger one is only checked for symmetry."""
TOLERANCE = 1e-6
"""What data may miss a set by, relative to its size: files round."""


def check_values(state: State, param: Param) -> None:
    """Report entries that are no numbers or lie outside the domain."""
    array = state.arrays[param.name]
    domain = param.domain
    if domain.kind in (DomainKind.INTERVAL, DomainKind.INTEGERS, DomainKind.BINARY):
        bounds = _bounds(state, param, domain)
        if bounds is not None:
            _inside(state, param, array, domain, *bounds)
        return
    if domain.kind is DomainKind.FREE and domain.span is not None:  # `[-inf, inf]`, as written
        _numbers(state, param, array, np.isnan)
        return
    if not _finite(state, param, array):
        return
    if domain.kind is DomainKind.SIMPLEX:
        _simplex(state, param, array)
    elif domain.kind is DomainKind.BALL and domain.radius is not None:
        if not ready(state, domain.radius):
            return
        radius = evaluation_problem(state, domain.radius, param.name)
        norm = float(np.sqrt(np.sum(np.square(_stored(array)))))
        if radius is not None and norm > float(radius) * (1 + TOLERANCE):
            _not(
                state,
                param,
                f"in the ball of radius {number_text(radius)}",
                f"its norm is {number_text(norm)}",
            )
    elif domain.kind is DomainKind.PSD:
        _psd(state, param, array)


def _bounds(state: State, param: Param, domain: Domain) -> tuple[Any, Any] | None:
    if domain.kind is DomainKind.BINARY:
        return np.float64(0.0), np.float64(1.0)
    ends: list[Any] = []
    for bound, free in ((domain.lower, -np.inf), (domain.upper, np.inf)):
        if bound is not None and not ready(state, bound):
            return None
        value = np.float64(free) if bound is None else evaluation_problem(state, bound, param.name)
        if value is None:
            return None
        ends.append(value)
    return ends[0], ends[1]


def _inside(state: State, param: Param, array: Any, domain: Domain, low: Any, high: Any) -> None:
    whole = domain.kind is not DomainKind.INTERVAL

    def wrong(x: Any, lo: Any, hi: Any) -> Any:
        outside = (x < lo) | (x > hi)
        return outside | (~np.isnan(x) & (x != np.floor(x))) if whole else outside

    # Widening a domain makes nothing of what is no number.
    _numbers(state, param, array, np.isnan)
    count, places = offenders(array, wrong, low, high)
    if (
        is_sparse(array)
        and not count
        and array.nnz < array.shape[0] * array.shape[1]
        and np.any(wrong(np.zeros(()), low, high))
    ):
        _not(
            state,
            param,
            f"inside {domain_text(state, domain, low, high)}",
            "the zeros of its sparse matrix lie outside",
        )
        return
    if count:
        span = domain.span or param.span
        hint = (
            f"correct {'the file' if param.name in state.rows else 'the data'}, or widen the domain"
        )
        state.report(
            "BLV0405",
            span,
            "required by this domain",
            poison=param.name,
            count=count,
            total=_size(array),
            name=param.name,
            domain=domain_text(state, domain, low, high),
            notes=(_first(state, param, array, places),),
            hint=hint,
        )


def _finite(state: State, param: Param, array: Any) -> bool:
    return _numbers(state, param, array, lambda x: ~np.isfinite(x))


def _numbers(state: State, param: Param, array: Any, wrong: Callable[..., Any]) -> bool:
    """Whether no entry is ``wrong``, NaN or infinite."""
    count, places = offenders(array, wrong)
    if not count:
        return True
    values = [
        float(_stored(array).flat[k])
        if is_sparse(array)
        else float(array[np.unravel_index(k, array.shape)])
        for k in places
    ]
    nan = any(np.isnan(v) for v in values)
    hint = (
        "correct the data: leave out the rows where something is missing, or fill it in"
        if nan
        else "an infinite value needs a domain that has it: `in [0, inf]`, or `in [-inf, inf]`"
    )
    state.report(
        "BLV0406",
        param.span,
        f"from {the(state.origins[param.name])}",
        poison=param.name,
        count=count,
        total=_size(array),
        name=param.name,
        verb="is" if count == 1 else "are",
        what="not a number" if nan and count == 1 else "not numbers" if nan else "infinite",
        notes=(_first(state, param, array, places),),
        hint=hint,
    )
    return False


def offenders(array: Any, wrong: Callable[..., Any], *bounds: Any) -> tuple[int, list[int]]:
    """How many entries are wrong, and the flat positions (among stored entries) of three."""
    if is_mapped(array) and all(np.ndim(b) == 0 for b in bounds):
        return _mapped_offenders(array, wrong, *bounds)
    values = _stored(array)
    if is_sparse(array):
        coo = array.tocoo()
        bounds = tuple(b if np.ndim(b) == 0 else b[coo.row, coo.col] for b in bounds)
    count, done = 0, 0
    first: list[int] = []
    operands = [values, *(np.broadcast_to(b, values.shape) for b in bounds)]
    blocks = np.nditer(
        operands,
        flags=["external_loop", "buffered", "zerosize_ok"],
        op_flags=[["readonly"]] * len(operands),
        order="C",
        buffersize=BLOCK,
    )
    with np.errstate(invalid="ignore"):
        for block in blocks:
            parts = block if isinstance(block, tuple) else (block,)
            mask = wrong(*parts)
            if mask.any():
                found = np.flatnonzero(mask)
                count += len(found)
                first += [done + int(k) for k in found[: 3 - len(first)]]
            done += len(parts[0])
    return count, first


def _mapped_offenders(array: Any, wrong: Callable[..., Any], *bounds: Any) -> tuple[int, list[int]]:
    """The same for data in a file, block by block."""
    count, done = 0, 0
    first: list[int] = []
    for block in blocks(array):
        places = np.flatnonzero(wrong(block, *bounds))
        count += len(places)
        first += [done + int(k) for k in places[: 3 - len(first)]]
        done += block.size
    return count, first


def _first(state: State, param: Param, array: Any, places: list[int]) -> str:
    """``first: cost[7] = -2.5, cost[11] = nan   (costs.csv, rows 8, 12)``."""
    shown = []
    for k in places:
        if is_sparse(array):
            coo = array.tocoo()
            place: tuple[int, ...] = (int(coo.row[k]), int(coo.col[k]))
            value = coo.data[k]
        else:
            place = tuple(int(p) for p in np.unravel_index(k, array.shape))
            value = array[place]
        shown.append(f"{state.entry(param.name, param.axes, place)} = {value_text(value)}")
    text = "first: " + ", ".join(shown) if len(shown) > 1 else shown[0]
    rows = state.rows.get(param.name)
    if rows is not None:
        lines = [str(int(rows.flat[k])) for k in places]
        where = state.origins[param.name].split(",")[0]
        text += f"   ({where}, {'row' if len(lines) == 1 else 'rows'} {', '.join(lines)})"
    elif not state.origins[param.name].startswith(("argument ", "default")):
        text += f"   ({state.origins[param.name]})"
    return text


def value_text(value: Any) -> str:
    """A value, infinities and nan included."""
    return number_text(value) if np.isfinite(value) else str(float(value))


def domain_text(state: State, domain: Domain, low: Any, high: Any) -> str:
    """A domain as it is written, with the values of its bounds."""
    if domain.kind is DomainKind.BINARY:
        return "{0, 1}"
    if np.ndim(low) == 0 and np.ndim(high) == 0:
        ends = f"{value_text(low)}, {value_text(high)}"
        return f"integers({ends})" if domain.kind is DomainKind.INTEGERS else f"[{ends}]"
    return state.source_text(domain.span).removeprefix("in ") or "their bounds"


def _simplex(state: State, param: Param, array: Any) -> None:
    dense = array.toarray() if is_sparse(array) else array
    if dense.ndim == 0:
        return
    count, places = offenders(dense, lambda x: x < 0)
    if count:
        _not(
            state,
            param,
            "in the simplex",
            f"it has {_first(state, param, dense, places).removeprefix('first: ')}",
        )
        return
    totals = np.atleast_1d(dense.sum(axis=-1))
    off = np.argwhere(np.abs(totals - 1.0) > TOLERANCE)
    if len(off):
        place = tuple(int(k) for k in off[0])
        where = state.entry(param.name, param.axes[:-1], place if dense.ndim > 1 else ())
        _not(
            state,
            param,
            "in the simplex",
            f"{where} sums to {number_text(totals[place])}, not to 1",
        )


def _psd(state: State, param: Param, array: Any) -> None:
    if array.ndim < 2 or array.shape[-1] != array.shape[-2]:
        return
    if is_sparse(array):
        if array.shape[0] > PSD_LIMIT:
            return
        array = array.toarray()
    matrices = array.reshape(-1, *array.shape[-2:])
    for matrix in matrices:
        scale = max(1.0, float(np.max(np.abs(matrix), initial=0.0)))
        skew = np.abs(matrix - matrix.T)
        if float(np.max(skew, initial=0.0)) > TOLERANCE * scale:
            i, j = (int(k) for k in np.unravel_index(int(np.argmax(skew)), skew.shape))
            axes = param.axes[-2:]
            pair = (
                f"{state.entry(param.name, axes, (i, j))} = {number_text(matrix[i, j])}, "
                f"{state.entry(param.name, axes, (j, i))} = {number_text(matrix[j, i])}"
            )
            _not(state, param, "symmetric", pair)
            return
        if len(matrix) <= PSD_LIMIT:
            lowest = float(np.min(np.linalg.eigvalsh(matrix), initial=np.inf))
            if lowest < -TOLERANCE * scale:
                _not(
                    state,
                    param,
                    "positive semidefinite",
                    f"its smallest eigenvalue is {number_text(lowest)}",
                )
                return


def _not(state: State, param: Param, what: str, note: str) -> None:
    span: Span | None = param.domain.span or param.span
    state.report(
        "BLV0422",
        span,
        "required by this domain",
        poison=param.name,
        name=param.name,
        what=what,
        notes=(note,),
        hint="correct the data, or widen the domain",
    )


def _stored(array: Any) -> Any:
    return array.data if is_sparse(array) else array


def _size(array: Any) -> int:
    return int(array.nnz if is_sparse(array) else array.size)
