"""Python values to arrays: numbers, lists, dicts, NumPy, SciPy sparse, PyTorch and pandas objects.

Objects of other libraries are recognised by what they can do, so that none is imported here.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Iterator, Mapping, MappingView, Sequence
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np

from bilevelpy.ir.mapped import is_mapped
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import Axis, Label
from bilevelpy.sema.binding.raw import Array, Grid, Long, NotNumbers
from bilevelpy.sema.binding.shapes import components

LARGEST_LABEL = 2**53
"""Whole numbers up to here are exact in float64."""


def convert(value: Any, *, words: bool = False, axes: Sequence[Axis] = ()) -> Grid | Long:
    """A caller's value as a grid or as values by key.

    ``words``: read None as nan and "inf", "-inf", "nan" as numbers, as JSON files write them.
    ``axes``: those of the value, by whose names labelled dimensions are put in order.
    """
    try:
        return _convert(_turned(value, axes), words)
    except NotNumbers:
        raise
    except Exception as error:  # objects of other libraries may raise anything
        raise NotNumbers(f"{kind(value)} ({str(error)[:80]})") from None


def _convert(value: Any, words: bool) -> Grid | Long:
    if is_sparse(value):  # some of these are mappings, too
        return Grid(sparse(value), (None,) * 2)
    if isinstance(value, Mapping):
        return _mapping(value, words)
    if _is_xarray(value):
        value = value.to_pandas()
    if is_pandas(value):
        return _pandas(value)
    array = numeric(value, words)
    return Grid(array, (None,) * array.ndim)


def numeric(value: Any, words: bool = False) -> Array:
    """A float64 array; one that already is float64 comes back as it is, not copied."""
    if hasattr(value, "detach") and hasattr(value, "cpu"):
        value = _tensor(value)
    if isinstance(value, np.ma.MaskedArray):
        value = np.ma.filled(value.astype(np.float64), np.nan)
    if isinstance(value, str | bytes):
        return np.array(_word(value, words))
    if words and isinstance(value, list):
        value = _words(value)
    elif words and value is None:
        value = np.nan
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        reason = (
            "nested lists of unequal lengths"
            if "homogeneous" in str(error)
            else "lists nested deeper than any array"
            if "maximum number of dimension" in str(error)
            else f"{kind(value)} ({error})"
        )
        raise NotNumbers(reason) from None
    if array.dtype.kind == "O":
        array = _unboxed(array, value)
    if array.dtype.kind == "c":
        raise NotNumbers("complex numbers")
    if array.dtype.kind in "US":
        raise NotNumbers(f"text, first {str(array.ravel()[0])!r}" if array.size else "text")
    if array.dtype.kind not in "biuf":
        raise NotNumbers(f"values of type {array.dtype}")
    if not is_mapped(array):  # data in files keeps its type until rows of it are read
        array = np.asarray(array.astype(np.float64, copy=False))
    # Views with negative or overlapping strides are no input of a compiled graph.
    return (
        array
        if array.flags.c_contiguous or array.flags.f_contiguous
        else np.ascontiguousarray(array)
    )


def sparse(value: Any) -> Any:
    """A float64 CSR matrix without duplicate entries; the caller's object is never changed."""
    if np.dtype(value.dtype).kind not in "biuf":
        raise NotNumbers(f"a sparse matrix of type {value.dtype}")
    if len(value.shape) != 2:
        return numeric(value.toarray())
    matrix = value.tocsr()
    if matrix.dtype != np.float64:
        matrix = matrix.astype(np.float64)
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    return matrix


def is_pandas(value: Any) -> bool:
    """Whether this is a pandas Series or DataFrame."""
    ours = any(c.__module__.split(".")[0] == "pandas" for c in type(value).__mro__)
    return ours and hasattr(value, "iloc") and hasattr(value, "index")


def _is_xarray(value: Any) -> bool:
    """Whether this is an array of xarray that pandas has a form for, labels and all."""
    ours = any(c.__module__.split(".")[0] == "xarray" for c in type(value).__mro__)
    return ours and hasattr(value, "to_pandas") and getattr(value, "ndim", 0) in (1, 2)


def plain(label: Any) -> Label:
    """A label as a str, int, float or flat tuple of them."""
    if isinstance(label, tuple | list):
        return tuple(part for item in label for part in _parts(plain(item)))
    if isinstance(label, bool | np.bool_):
        raise NotNumbers(f"{label!r} as a label")
    if isinstance(label, str):
        return str(label)
    if type(label) is date:
        return label.isoformat()  # as days of a `DatetimeIndex` are
    if isinstance(label, numbers.Real):
        number = int(label) if isinstance(label, numbers.Integral) else float(label)
        if abs(number) > LARGEST_LABEL:
            raise NotNumbers("a number beyond 2^53 as a label")
        if number == number:  # not nan
            return int(number) if number == int(number) else number
    raise NotNumbers(f"{label!r} as a label; labels are texts, numbers and days")


def flat_key(key: Any) -> tuple[Any, ...]:
    """A key as a flat tuple of labels."""
    return _parts(plain(key))


def kind(value: Any) -> str:
    """What a value is, in words."""
    if value is None:
        return "None"
    if isinstance(value, str):
        shown = f"the text {value!r}" if len(value) <= 80 else "a text"
        if value.lower().endswith((".npy", ".npz", ".csv", ".json")):
            shown += " (a mapping holds arrays: load the file first, as with `numpy.load`)"
        return shown
    once = " (make a list of it)" if isinstance(value, Iterator | MappingView) else ""
    return f"a value of type {type(value).__name__}{once}"


def _parts(label: Label) -> tuple[Any, ...]:
    return label if isinstance(label, tuple) else (label,)


def _tensor(value: Any) -> Any:
    value = value.detach().cpu()
    if value.is_complex():  # `double` would drop the imaginary part
        raise NotNumbers("complex numbers")
    if value.is_neg() and not value.is_sparse:
        value = value.resolve_neg()
    try:
        return value.numpy()
    except (TypeError, RuntimeError):  # bfloat16 has no NumPy type; sparse tensors have no array
        value = value.to_dense() if hasattr(value, "to_dense") else value
        return value.double().numpy()


def _word(value: str | bytes, words: bool) -> float:
    if words and value in ("inf", "-inf", "nan", "Infinity", "-Infinity", "NaN"):
        return float(value)
    raise NotNumbers(kind(value))


def _words(value: list[Any]) -> list[Any]:
    """Nested lists with the words of JSON as numbers (iterative: a file may nest deeply)."""
    result: list[Any] = []
    stack: list[tuple[list[Any], list[Any]]] = [(value, result)]
    while stack:
        source, target = stack.pop()
        for item in source:
            if isinstance(item, list):
                inner: list[Any] = []
                target.append(inner)
                stack.append((item, inner))
            elif isinstance(item, str):
                target.append(_word(item, True))
            else:
                target.append(np.nan if item is None else item)
    return result


def _unboxed(array: Array, value: Any) -> Array:
    """Numbers that stand in an array of objects, as columns of mixed tables do."""
    kinds = (numbers.Real, Decimal)  # databases have the latter
    if array.ndim == 0 and not isinstance(value, kinds):
        raise NotNumbers(kind(value))
    held = [np.nan if _is_missing(v) else v for v in array.ravel()]
    odd = next((v for v in held if not isinstance(v, kinds)), None)
    if odd is not None:
        raise NotNumbers(f"an object array that holds {kind(odd)}")
    try:
        return np.array(held, dtype=np.float64).reshape(array.shape)
    except OverflowError:
        raise NotNumbers("numbers that do not fit into float64") from None


def _is_missing(value: Any) -> bool:
    """Whether a table has nothing here: None, or what pandas has in its place. Such entries are
    reported with their places, as nan is.
    """
    return value is None or type(value).__name__ in ("NAType", "NaTType")


def _mapping(value: Mapping[Any, Any], words: bool) -> Grid | Long:
    """``{label: number}``, ``{(a, b): number}``, ``{a: {b: number}}``, or ``{label: [row]}``."""
    items = list(value.items())
    if items and all(isinstance(v, list | tuple | np.ndarray) for _, v in items):
        array = numeric([v for _, v in items] if not words else [list(v) for _, v in items], words)
        if array.ndim < 2 or array.shape[1:] != (1,):
            return Grid(array, (tuple(plain(k) for k, _ in items), *[None] * (array.ndim - 1)))
    keys: list[tuple[Any, ...]] = []
    entries: list[float] = []
    stack: list[tuple[tuple[Any, ...], Any]] = [((), value)]
    while stack:
        prefix, item = stack.pop()
        if isinstance(item, Mapping):
            if len(prefix) > 32:
                raise NotNumbers("mappings nested deeper than 32")
            stack.extend(((*prefix, *flat_key(k)), v) for k, v in reversed(list(item.items())))
            continue
        place = ", ".join(map(str, prefix))
        try:
            number = numeric(np.nan if prefix and _is_missing(item) else item, words)
        except NotNumbers as error:
            raise NotNumbers(f"{error} for {place}") from None
        if number.size != 1:
            raise NotNumbers(f"an array of shape {number.shape} for {place}")
        keys.append(prefix)
        entries.append(float(number.reshape(())))
    return Long(tuple(keys), np.array(entries, dtype=np.float64))


def _pandas(value: Any) -> Grid | Long:
    frame = hasattr(value, "columns")
    array = numeric(value.to_numpy())
    index = index_labels(value.index)
    if not frame:
        if index and isinstance(index[0], tuple):
            return Long(tuple(flat_key(k) for k in index), array)
        return Grid(array, (index,), loose=True)
    columns = index_labels(value.columns)
    return Grid(array, (index, columns), loose=True)


def _turned(value: Any, axes: Sequence[Axis]) -> Any:
    """A labelled value whose dimensions bear the names of ``axes`` in another order, in theirs: a
    transposed table has the same labels, and would be taken for another one.
    """
    names = tuple(axis.name for axis in axes)
    if _is_xarray(value):
        other = _is_other_order(getattr(value, "dims", ()), names)
        return value.transpose(*names) if other else value
    if not is_pandas(value):
        return value
    if hasattr(value, "columns"):
        given = (value.index.name, value.columns.name)
        return value.T if _is_other_order(given, names) else value
    names = tuple(axis.name for axis in components(tuple(axes)))
    other = _is_other_order(value.index.names, names)
    return value.reorder_levels(list(names)) if other else value


def _is_other_order(given: Iterable[Any], names: tuple[str, ...]) -> bool:
    found = tuple(given)
    return found != names and len(set(names)) == len(found) and set(found) == set(names)


def index_labels(index: Any) -> tuple[Label, ...] | None:
    """Labels of a pandas index; the default one (0, 1, ...) labels nothing."""
    if type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1:
        return None
    if type(index).__name__ in ("DatetimeIndex", "PeriodIndex", "TimedeltaIndex"):
        index = index.astype(str)  # as `to_csv` writes them
    return tuple(plain(k) for k in index.tolist())
