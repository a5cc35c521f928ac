"""Checkpoints: a run that was ended, by whatever, goes on as if it had not been, provided that it
is the same problem.

A file holds the results of the runs of a solve that are done, and of the one under way its last
point, its history and what it carries from one iteration to the next
(:mod:`bilevelpy.numerics.driver.carried`). Where other things are asked for than then (another
backend, other options), a run goes on from the point alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.numerics.driver.carried import Carried, InStep
from bilevelpy.numerics.driver.packed import PREFIX, packed, unpacked
from bilevelpy.records.provenance import data_hashes, text_hash
from bilevelpy.records.saved import record_of, result_of
from bilevelpy.result import Record, Result
from bilevelpy.system import storage

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

# Files of format 1 held the point alone, and are still read.
FORMAT, OLD = 2, 1
# Seconds between two writes in a run, and the part of its time that they may take; the last point
# of a run is written in any case.
INTERVAL, SHARE = 2.0, 0.05


@dataclass(frozen=True, slots=True)
class Best:
    """The best point of a run by a report; ``by`` is what was asked for ("max test_accuracy")."""

    by: str
    record: Record
    x: np.ndarray
    y: np.ndarray


@dataclass(frozen=True, slots=True)
class Saved:
    """A point to go on from, the run that led to it and, where a report may end it, its best.

    ``plan`` is what was asked for, ``done`` are the runs that had ended before this one, which is
    one of ``backend`` ("": of whichever comes) in its ``stage``. ``carried`` is what it carries on;
    None: nothing but the point. ``seconds`` and ``iterations`` count towards the limits: those of a
    run that was ended by something else than them.
    """

    x: np.ndarray
    y: np.ndarray
    history: tuple[Record, ...]
    best: Best | None = None
    plan: Mapping[str, Any] | None = None
    done: tuple[Result, ...] = ()
    backend: str = ""
    stage: str = ""
    carried: Carried | None = None
    seconds: float = 0.0
    iterations: int = 0

    def alone(self) -> Saved:
        """The point, for a run of its own that counts on from all before."""
        history: list[Record] = []
        for records in (*(result.history for result in self.done), self.history):
            before = history[-1:]
            history += [counted_on(before[0], r) if before else r for r in records]
        return Saved(self.x, self.y, tuple(history), self.best)


class Checkpoint:
    """Writes the runs of a solve to ``path``: at most every `INTERVAL` seconds, and at the end.

    Parameters
    ----------
    path
        The file; it is always complete.
    bound
        The problem.
    plan
        What is asked for, in JSON types.
    done
        Runs that have ended before.
    began
        When the solve began, by ``time.perf_counter``.
    """

    def __init__(
        self,
        path: str | Path,
        bound: BoundProgram,
        plan: Mapping[str, Any],
        done: Sequence[Result] = (),
        began: float | None = None,
    ) -> None:
        self.began = time.perf_counter() if began is None else began
        self.path = Path(path)
        self.identity = {
            "format": FORMAT,
            "model_hash": text_hash(bound),
            "data_hash": data_hashes(bound),
            "plan": plan,
        }
        self.done = list(done)
        self.last: tuple[np.ndarray, np.ndarray] | None = None
        self.written, self.took = time.perf_counter(), 0.0
        self.begin("")

    def begin(self, backend: str, earlier: Saved | None = None) -> None:
        """A run begins, or goes on from ``earlier``."""
        self.backend, self.earlier, self.stage = backend, earlier, ""
        self.iterations = 0 if earlier is None else earlier.iterations
        self.newest, self.limited = 0, False
        self.history: list[Record] = []
        self.before: Record | None = None
        self.best: Best | None = None
        self.capture: Callable[[], Carried | None] | None = None
        # Whether the file has what this run carries on.
        self.complete = earlier is not None and earlier.carried is not None

    def observe(
        self,
        record: Record,
        x: np.ndarray,
        y: np.ndarray,
        best: Best | None = None,
        capture: Callable[[], Carried | None] | None = None,
    ) -> None:
        """Take in an iteration, the best one so far by a report that may end the run, and what
        reads off what the run carries on. A further stage of a run is counted on.
        """
        if record.iteration == 0 and self.history:
            last, self.iterations = self.history[-1], 0
            self.before = replace(last, iteration=last.iteration + 1)
        self.newest = record.iteration
        self.history.append(record if self.before is None else counted_on(self.before, record))
        self.last, self.best = (x, y), best
        self.carry(capture or self.capture)

    def carry(self, capture: Callable[[], Carried | None] | None) -> None:
        """What the run carries on from here is another thing."""
        self.capture = capture
        if time.perf_counter() - self.written >= max(INTERVAL, self.took / SHARE):
            self.write()

    def end(self, result: Result) -> None:
        """The run has ended with a result, and nothing is left of it to go on with."""
        self.done.append(result)
        self.begin("")
        self.write()

    def limit(self) -> None:
        """The run was ended by a limit: what is given to it next counts anew."""
        self.limited = True
        if not self.write() and self.complete:  # in the middle of a step
            arrays, meta = storage.read_npz(self.path)
            storage.write_npz(self.path, arrays, {**meta, "seconds": 0.0, "iterations": 0})

    def write(self) -> bool:
        """Put the last point into the file, if there is one; whether that was done. An interruption
        of this leaves the file as it was.

        A run that was ended in the middle of a step goes on from the beginning of an earlier one,
        where the file has that.
        """
        if self.last is None:
            return False
        began = time.perf_counter()
        try:
            known = self.capture() if self.capture is not None else None
        except InStep:
            if self.complete:
                return False
            known = None
        self.complete = known is not None
        history = joined(self.earlier, self.history)
        meta: dict[str, Any] = {
            **self.identity,
            "backend": self.backend,
            "stage": self.stage,
            "seconds": 0.0 if self.limited else began - self.began,
            "iterations": 0 if self.limited else self.iterations + self.newest,
            "history": [asdict(record) for record in history],
            "done": [],
        }
        arrays = {"x": self.last[0], "y": self.last[1]}
        if self.best is not None:
            meta["best"] = {"by": self.best.by, "record": asdict(self.best.record)}
            arrays |= {"best_x": self.best.x, "best_y": self.best.y}
        for k, result in enumerate(self.done):
            parts, content = result.parts()
            meta["done"].append(content)
            arrays |= {f"done/{k}/{name}": value for name, value in parts.items()}
        if known is not None:
            vectors, meta["carried"] = packed(known)
            arrays |= vectors
        storage.write_npz(self.path, arrays, meta)
        self.written = time.perf_counter()
        self.took = self.written - began
        return True


def read(path: str | Path, bound: BoundProgram) -> Saved | None:
    """The saved run of this problem; None where there is no file yet; an error where it is of
    another problem.
    """
    if not Path(path).exists():
        return None
    arrays, meta = storage.read_npz(path)
    if meta.get("format") not in (FORMAT, OLD) or "x" not in arrays or "y" not in arrays:
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
        return _saved(arrays, meta)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"cannot resume from {path}: it is damaged") from error


def _saved(arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> Saved:
    """The run in a file; one of the errors of what is missing, or no such thing."""
    for name, point in arrays.items():
        ours = name.startswith((PREFIX, "done/"))
        if not ours and (point.dtype.kind != "f" or not np.isfinite(point).all()):
            raise ValueError(f"`{name}` is no point")
    history = tuple(record_of(record) for record in meta["history"])
    saved = Saved(arrays["x"], arrays["y"], history, _best(arrays, meta))
    if meta["format"] == OLD:
        return saved
    done = []
    for k, content in enumerate(meta["done"]):
        first = f"done/{k}/"
        own = {n.removeprefix(first): a for n, a in arrays.items() if n.startswith(first)}
        done.append(result_of(content, own))
    carried = unpacked(arrays, meta["carried"]) if "carried" in meta else None
    return replace(
        saved,
        plan=meta["plan"],
        done=tuple(done),
        backend=str(meta["backend"]),
        stage=str(meta["stage"]),
        carried=carried,
        seconds=max(0.0, float(meta["seconds"])),
        iterations=max(0, int(meta["iterations"])),
    )


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
