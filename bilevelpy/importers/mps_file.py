"""MPS and LP files as columns and rows; read by HiGHS, scanned here for where a fault is."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.importers.faults import Text, missing_package

Array = np.ndarray[Any, np.dtype[Any]]
LARGEST = 1_000_000_000
"""Bytes that a packed file may hold."""
SECTIONS = [
    "NAME",
    "ROWS",
    "COLUMNS",
    "RHS",
    "RANGES",
    "BOUNDS",
    "ENDATA",
    "OBJSENSE",
    "OBJSENSE:",
    "QUADOBJ",
    "QMATRIX",
    "OBJSECT",
]
FOREIGN = {
    "SOS": "SOS sets",
    "SOS1": "SOS sets",
    "SOS2": "SOS sets",
    "INDICATORS": "indicator constraints",
    "QCMATRIX": "quadratic rows",
    "QSECTION": "quadratic rows",
    "CSECTION": "conic constraints",
}
BOUNDS = ["LO", "UP", "FX", "FR", "MI", "PL", "BV", "LI", "UI", "SC"]


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
        if place.suffix.lower() == ".mps":
            _scan(text)
        else:
            _scan_lp(text)
        # The class on top of this one prints a banner as soon as it is made.
        highs: Any = highspy._core._Highs()
        highs.setOptionValue("output_flag", False)
        status = highs.readModel(str(place))
        if status == highspy.HighsStatus.kError:
            last = max(1, len(text.lines))
            raise text.bad(_last_line(text, last), "HiGHS does not take this file")
        return _matrix(highs)


@contextlib.contextmanager
def _plain(path: Path) -> Iterator[tuple[Path, Text]]:
    """The file itself, or an unpacked copy under a temporary name."""
    if path.suffix.lower() != ".gz":
        text = Text(path)
        yield path, text
        return
    try:
        with gzip.open(path) as packed:
            content = packed.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    if len(content) > LARGEST:
        raise UsageError(f"cannot read {path}: it unpacks to more than {LARGEST:,} bytes")
    handle, name = tempfile.mkstemp(suffix=Path(path.stem).suffix or ".mps")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        yield Path(name), Text(path, content.decode("utf-8", errors="replace"))
    finally:
        Path(name).unlink(missing_ok=True)


def _is_text(text: Text, comment: str) -> None:
    """Names come back as text; comments may be in any encoding."""
    for at, line in enumerate(text.lines, 1):
        if "\ufffd" in line and not line.startswith(comment):
            raise text.bad(at, "this line is not UTF-8 text")


def _last_line(text: Text, last: int) -> int:
    while last > 1 and not text.lines[last - 1].strip():
        last -= 1
    return last


def _scan(text: Text) -> None:
    """Find what HiGHS would refuse without a place, or read differently from others."""
    section = ""
    rows: set[str] = set()
    for at, line in enumerate(text.lines, 1):
        if not line.strip() or line.startswith("*"):
            continue
        words = line.split()
        if not line[0].isspace():
            section = words[0].upper()
            if section in FOREIGN:
                raise text.foreign(at, FOREIGN[section], "the language has no such rows")
            if section == "ENDATA":
                return
            if section not in SECTIONS:
                raise text.bad(at, f"`{words[0]}` is no section of MPS files")
            continue
        if section == "ROWS":
            if len(words) < 2 or words[0].upper() not in ("N", "L", "G", "E"):
                raise text.bad(at, "a row is its kind (N, L, G, E) and its name")
            rows.add(words[1])
        elif section == "COLUMNS" and "'MARKER'" not in words:
            _entries(text, at, words[1:], rows)
        elif section in ("RHS", "RANGES"):
            _entries(text, at, words[1:] if len(words) % 2 else words, rows)
        elif section == "BOUNDS":
            if words[0].upper() not in BOUNDS:
                raise text.bad(at, f"`{words[0]}` is no kind of bound")
            if words[0].upper() == "SC":
                raise text.foreign(at, "a semi-continuous column", "no domain of the language")
            if words[0].upper() in ("LO", "UP", "FX", "LI", "UI"):
                _value(text, at, words[-1])
    raise text.bad(_last_line(text, max(1, len(text.lines))), "the file ends without ENDATA")


# What an LP file may hold that cannot be taken over, by the line that begins it.
FOREIGN_LP = {
    "sos": "SOS sets",
    "sos1": "SOS sets",
    "sos2": "SOS sets",
    "semi": "a semi-continuous column",
    "semis": "a semi-continuous column",
    "semi-continuous": "a semi-continuous column",
    "pwlobj": "a piecewise linear objective",
}


def _scan_lp(text: Text) -> None:
    """Find what HiGHS would leave out without a word: sections, and the end of a cut file."""
    last = ""
    for at, line in enumerate(text.lines, 1):
        content = line.partition("\\")[0].strip()
        if not content:
            continue
        last = content.lower()
        if last in FOREIGN_LP:
            raise text.foreign(at, FOREIGN_LP[last], "the language has no such part")
        if "->" in content:
            raise text.foreign(at, "an indicator constraint", "the language has no such rows")
    if last != "end":
        raise text.bad(_last_line(text, max(1, len(text.lines))), "the file ends without End")


def _entries(text: Text, at: int, words: list[str], rows: set[str]) -> None:
    if not words or len(words) % 2:
        raise text.bad(at, "names of rows and numbers take turns")
    for row, value in zip(words[::2], words[1::2], strict=True):
        if row not in rows:
            raise text.bad(at, f"there is no row `{row}`")
        _value(text, at, value)


def _value(text: Text, at: int, word: str) -> None:
    try:
        value = float(word)
    except ValueError:
        raise text.bad(at, f"`{word}` is not a number") from None
    if np.isnan(value):
        raise text.bad(at, f"`{word}` is not a number")


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
    names = [lp.col_names_[j] if lp.col_names_ else f"c{j}" for j in range(lp.num_col_)]
    row_names = [lp.row_names_[r] if lp.row_names_ else f"r{r}" for r in range(lp.num_row_)]
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
