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
from bilevelpy.result import Record, record_of

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

FORMAT = 1
# Seconds between two writes in a run; the last point of a run is written in any case.
INTERVAL = 2.0


@dataclass(frozen=True, slots=True)
class Best:
    """The best point of a run by a report; ``by`` is what was asked for ("max test_accuracy")."""

    by: str
    record: Record
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, slots=True)
class Saved:
    """A point to go on from, the run that led to it and, where a report may end it, its best."""

    x: np.ndarray
    y: np.ndarray
    history: tuple[Record, ...]
    best: Best | None = None


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
        self.before: Record | None = None
        self.last: tuple[np.ndarray, np.ndarray] | None = None
        self.best: Best | None = None
        self.written = time.perf_counter()

    def observe(
        self, record: Record, x: np.ndarray, y: np.ndarray, best: Best | None = None
    ) -> None:
        """Take in an iteration, and the best one so far by a report that may end the run. A run by
        another backend is counted on.
        """
        if record.iteration == 0 and self.history:
            self.before = self.history[-1]
        self.history.append(record if self.before is None else counted_on(self.before, record))
        self.last, self.best = (x, y), best
        if time.perf_counter() - self.written >= INTERVAL:
            self.write()

    def write(self) -> None:
        """Put the last point into the file; an interruption of this leaves the file as it was."""
        if self.last is None:
            return
        history = joined(self.earlier, self.history)
        meta = {**self.identity, "history": [asdict(record) for record in history]}
        arrays = {"x": self.last[0], "y": self.last[1]}
        if self.best is not None:
            meta["best"] = {"by": self.best.by, "record": asdict(self.best.record)}
            arrays |= {"best_x": self.best.x, "best_y": self.best.y}
        storage.write_npz(self.path, arrays, meta)
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
    now, then = data_hashes(bound), meta.get("data_hash")
    then = then if isinstance(then, Mapping) else {}
    changed = [name for name in now if now[name] != then.get(name)]
    if changed:
        listing = ", ".join(f"`{name}`" for name in changed[:3])
        raise UsageError(
            f"cannot resume from {path}: the data has changed since it was written: {listing}"
        )
    try:
        for name, point in arrays.items():
            if point.dtype.kind != "f" or not np.isfinite(point).all():
                raise ValueError(f"`{name}` is no point")
        history = tuple(record_of(record) for record in meta["history"])
        best = _best(arrays, meta)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot resume from {path}: it is damaged") from error
    return Saved(arrays["x"], arrays["y"], history, best)


def joined(earlier: Saved | None, history: list[Record]) -> list[Record]:
    """The history of a resumed run: what was before, then this run with its numbers counted on."""
    if earlier is None or not earlier.history:
        return history
    last = earlier.history[-1]
    # The first record of a resumed run is the point that the earlier one ended with.
    return [*earlier.history, *(counted_on(last, record) for record in history[1:])]


def counted_on(last: Record, record: Record) -> Record:
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


def _best(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Best | None:
    """The best point by a report, where one was saved."""
    if "best" not in meta:
        return None
    x, y = arrays["best_x"], arrays["best_y"]
    if x.shape != arrays["x"].shape or y.shape != arrays["y"].shape:
        raise ValueError("the best point is of another size than the last one")
    by, record = str(meta["best"]["by"]), record_of(meta["best"]["record"])
    if by.partition(" ")[2] not in record.reports:
        raise ValueError("the best point has no value of its report")
    return Best(by, record, x, y)
