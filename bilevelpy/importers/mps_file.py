"""MPS and LP files as columns and rows; read by HiGHS, scanned for where a fault is."""

from __future__ import annotations

import contextlib
import gzip
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.importers.faults import Text, missing_package
from bilevelpy.importers.mps_scan import NO_LOWER, line_with, scan, scan_lp

Array = np.ndarray[Any, np.dtype[Any]]
LARGEST = 1_000_000_000
"""Bytes that a packed file may hold."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """A mixed-integer program; ``hessian`` holds (i, j, c) of objective terms ``c v_i v_j``."""

    names: tuple[str, ...]
    cost: Array
    offset: float
    maximize: bool
    lower: Array
    upper: Array
    integer: Array
    row_names: tuple[str, ...]
    row_lower: Array
    row_upper: Array
    rows: tuple[tuple[tuple[int, float], ...], ...]
    hessian: tuple[tuple[int, int, float], ...]


def read_matrix(path: str | Path) -> Matrix:
    """Read an MPS or LP file, compressed or not.

    Raises
    ------
    ModelError
        With the line where it is malformed, or holds what cannot be taken over.
    """
    try:
        import highspy
        import highspy._core
    except ImportError:
        raise missing_package("highspy", "reading MPS and LP files") from None
    with _plain(Path(path)) as (place, text):
        _is_text(text, "*" if place.suffix.lower() == ".mps" else "\\")
        maximize = None
        if place.suffix.lower() == ".mps":
            maximize = scan(text)
        else:
            scan_lp(text)
        # The class on top of this one prints a banner as soon as it is made.
        highs: Any = highspy._core._Highs()
        highs.setOptionValue("output_flag", False)
        status = highs.readModel(str(place))
        if status == highspy.HighsStatus.kError:
            raise text.bad(text.last, "HiGHS does not take this file")
        found = _matrix(highs)
        found = found if maximize is None else replace(found, maximize=maximize)
        for j in np.flatnonzero(found.lower > found.upper):
            ends = f"{found.lower[j]:g} and {found.upper[j]:g}"
            reason = f"no value lies between the bounds {ends} of `{found.names[j]}`"
            raise text.bad(line_with(text, found.names[j]), reason, hint=NO_LOWER)
        return found


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[tuple[Path, Text]]:
    """The file itself, or a copy of its lines under a temporary name: where it is packed, and where
    HiGHS would see other lines (ends other than those of Unix and Windows) or a byte order mark.
    """
    packed = path.suffix.lower() == ".gz"
    text = Text(path, _unpacked(path) if packed else None)
    same = not text.marked and len(text.lines) == text.source.text.rstrip("\n").count("\n") + 1
    if not packed and same:
        yield path, text
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / (path.stem if packed else path.name)
        place.write_text("\n".join(text.lines) + "\n", encoding="utf-8")
        yield place, text


def _unpacked(path: Path) -> str:
    """The text in a compressed file."""
    try:
        with gzip.open(path) as packed:
            content = packed.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if len(content) > LARGEST:
        raise UsageError(f"cannot read {path}: it unpacks to more than {LARGEST:,} bytes")
    return content.decode("utf-8", errors="replace")


def _is_text(text: Text, comment: str) -> None:
    """Names come back as text; comments may be in any encoding."""
    for at, line in enumerate(text.lines, 1):
        if "\ufffd" in line and not line.startswith(comment):
            raise text.bad(at, "this line is not UTF-8 text")


def _matrix(highs: Any) -> Matrix:
    model = highs.getModel()
    lp = model.lp_
    matrix = lp.a_matrix_
    rows: list[list[tuple[int, float]]] = [[] for _ in range(lp.num_row_)]
    start, index, value = list(matrix.start_), list(matrix.index_), list(matrix.value_)
    by_column = "kColwise" in str(matrix.format_)
    for k in range(len(start) - 1):
        for p in range(start[k], start[k + 1]):
            r, j = (index[p], k) if by_column else (k, index[p])
            rows[r].append((int(j), float(value[p])))
    hessian: list[tuple[int, int, float]] = []
    if model.hessian_.dim_:
        starts, indices = list(model.hessian_.start_), list(model.hessian_.index_)
        values = list(model.hessian_.value_)
        for j in range(model.hessian_.dim_):
            for p in range(starts[j], starts[j + 1]):
                i, c = indices[p], float(values[p])
                hessian.append((int(i), int(j), c / 2 if i == j else c))
    kinds = [str(k) for k in lp.integrality_] or ["kContinuous"] * lp.num_col_
    # Each look at such a list copies all of it.
    names = list(lp.col_names_) or [f"c{j}" for j in range(lp.num_col_)]
    row_names = list(lp.row_names_) or [f"r{r}" for r in range(lp.num_row_)]
    return Matrix(
        tuple(names),
        np.array(lp.col_cost_, dtype=float),
        float(lp.offset_),
        "kMaximize" in str(lp.sense_),
        _finite(lp.col_lower_),
        _finite(lp.col_upper_),
        np.array(["kInteger" in k for k in kinds], dtype=bool),
        tuple(row_names),
        _finite(lp.row_lower_),
        _finite(lp.row_upper_),
        tuple(tuple(sorted(r)) for r in rows),
        tuple(hessian),
    )


def _finite(values: Any) -> Array:
    """Bounds, with what stands for infinity as infinity."""
    array = np.array(values, dtype=float)
    return np.where(array >= 1e30, np.inf, np.where(array <= -1e30, -np.inf, array))
