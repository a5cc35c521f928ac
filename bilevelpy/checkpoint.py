"""Checkpoints: a run that was stopped goes on from its last point, provided that it is the same
problem.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy import storage
from bilevelpy.errors import UsageError
from bilevelpy.provenance import data_hashes, text_hash
from bilevelpy.result import Record

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

FORMAT = 1
# Seconds between two writes in a run; the last point of a run is written in any case.
INTERVAL = 2.0


@dataclass(frozen=True, slots=True)
class Saved:
    """A point to go on from, and the run that led to it."""

    x: np.ndarray
    y: np.ndarray
    history: tuple[Record, ...]


class Checkpoint:
    """Writes the points of a run to ``path``: at most every `INTERVAL` seconds, and at the end.

    A checkpoint holds the point and the history, not the memory of a quasi-Newton method: after a
    resume that is built up again.
    """

    def __init__(self, path: str | Path, bound: BoundProgram, earlier: Saved | None) -> None:
        self.path = Path(path)
        self.identity = {
            "format": FORMAT,
            "model_hash": text_hash(bound),
            "data_hash": data_hashes(bound),
        }
        self.earlier = earlier
        self.history: list[Record] = []
        self.last: tuple[np.ndarray, np.ndarray] | None = None
        self.written = time.perf_counter()

    def observe(self, record: Record, x: np.ndarray, y: np.ndarray) -> None:
        """Take in an iteration."""
        self.history.append(record)
        self.last = (x, y)
        if time.perf_counter() - self.written >= INTERVAL:
            self.write()

    def write(self) -> None:
        """Put the last point into the file; an interruption of this leaves the file as it was."""
        if self.last is None:
            return
        history = joined(self.earlier, self.history)
        meta = {**self.identity, "history": [asdict(record) for record in history]}
        storage.write_npz(self.path, {"x": self.last[0], "y": self.last[1]}, meta)
        self.written = time.perf_counter()


def read(path: str | Path, bound: BoundProgram) -> Saved | None:
    """The saved run of this problem; None where there is no file yet; an error where it is of
    another problem.
    """
    if not Path(path).exists():
        return None
    arrays, meta = storage.read_npz(path)
    if meta.get("format") != FORMAT or "x" not in arrays or "y" not in arrays:
        raise UsageError(
            f"cannot resume from {path}: it is not a checkpoint of this version of bilevelpy"
        )
    if meta.get("model_hash") != text_hash(bound):
        raise UsageError(
            f"cannot resume from {path}: the text of the model has changed since it was written"
        )
    now, then = data_hashes(bound), meta.get("data_hash", {})
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        listing = ", ".join(f"`{name}`" for name in changed[:3])
        raise UsageError(
            f"cannot resume from {path}: the data has changed since it was written: {listing}"
        )
    try:
        history = tuple(_record(record) for record in meta["history"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"cannot resume from {path}: it is damaged") from error
    return Saved(arrays["x"], arrays["y"], history)


def joined(earlier: Saved | None, history: list[Record]) -> list[Record]:
    """The history of a resumed run: what was before, then this run with its numbers counted on."""
    if earlier is None or not earlier.history:
        return history
    last = earlier.history[-1]
    # The first record of a resumed run is the point that the earlier one ended with.
    return [*earlier.history, *(_after(last, record) for record in history[1:])]


def _after(last: Record, record: Record) -> Record:
    """``record`` with iteration, time and counts counted on from ``last``."""
    return replace(
        record,
        iteration=last.iteration + record.iteration,
        time=last.time + record.time,
        counts=add_counts(last.counts, record.counts),
    )


def add_counts(first: Mapping[str, int], second: Mapping[str, int]) -> dict[str, int]:
    """Sums by name."""
    return {name: first.get(name, 0) + second.get(name, 0) for name in {**first, **second}}


def _record(content: Mapping[str, Any]) -> Record:
    """A record as it was saved."""
    whole = ("iteration", "counts", "reports")
    values: dict[str, Any] = {
        name: value if name in whole else storage.number(value)
        for name, value in content.items()
        if name != "x"
    }
    values["x"] = tuple(storage.number(v) for v in content.get("x", ()))
    return Record(**values)
