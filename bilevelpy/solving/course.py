"""The course of a solve with a checkpoint: which of its runs are done, and which one was under way
when it was ended.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.records.checkpoint import Checkpoint, Saved, read
from bilevelpy.result import Result, Status
from bilevelpy.solving.on_device import ALONE
from bilevelpy.system import storage

if TYPE_CHECKING:
    from bilevelpy.model import Model
    from bilevelpy.options import SolveOptions
    from bilevelpy.solving.request import Clock, Request

# Ends after which a run goes on where it was when it is given more.
LIMITS = (Status.ITERATION_LIMIT, Status.TIME_LIMIT, Status.INTERRUPTED)


class Course:
    """The runs of a solve, one after another; what the checkpoint says of them holds as long as
    they come as they came then.
    """

    def __init__(self, model: Model, options: SolveOptions, request: Request, clock: Clock) -> None:
        self.keeper: Checkpoint | None = None
        self.earlier: Saved | None = None
        self.note: str | None = None
        self.number = 0
        if request.checkpoint is None:
            return
        plan = planned(options, request)
        if request.resume:
            self.earlier = read(request.checkpoint, model.bound)
        if self.earlier is not None and self.earlier.plan != plan:
            self.note = f"{ALONE}: {_why(self.earlier, plan)}"
            self.earlier = self.earlier.alone()
        if self.earlier is not None:
            clock.go_on(self.earlier.seconds)
        done = () if self.earlier is None else self.earlier.done
        self.keeper = Checkpoint(request.checkpoint, model.bound, plan, done, clock.began)

    def following(self) -> str | None:
        """The backend of the next run, where the checkpoint knows it."""
        if self.earlier is None:
            return None
        names = [*(result.backend for result in self.earlier.done), self.earlier.backend]
        return names[self.number] or None if self.number < len(names) else None

    def finished(self, name: str) -> Result | None:
        """The result of the next run, if it is one of ``name`` that is done."""
        done = () if self.earlier is None else self.earlier.done
        if self.number >= len(done) or done[self.number].backend != name:
            return None
        self.number += 1
        return done[self.number - 1]

    def begin(self, name: str) -> Saved | None:
        """Begin a run; what it goes on from, if it was under way."""
        saved = self.earlier
        here = saved is not None and self.number == len(saved.done)
        if saved is None or not here or saved.backend not in ("", name):
            saved = None
        if saved is not None and saved.plan is not None and not saved.backend:
            saved = None  # the last run was done: this is a new one
        if self.keeper is not None:
            del self.keeper.done[self.number :]
            self.keeper.begin(name, saved)
        return saved

    def end(self, result: Result, in_time: bool) -> None:
        """The run that was begun has ended; what has run out of time is not done."""
        self.number += 1
        done = result.success or (in_time and result.status not in LIMITS)
        if self.keeper is not None and done:
            self.keeper.end(result)
        elif self.keeper is not None and result.status is not Status.INTERRUPTED:
            self.keeper.limit()


def planned(options: SolveOptions, request: Request) -> dict[str, Any]:
    """What decides the course of a solve, but for its limits."""
    from bilevelpy import __version__

    start = hashlib.sha256()
    for name, value in sorted(request.start.items()):
        start.update(f"{name} ".encode() + _bytes(value))
    given = {str(k): v for k, v in options.backend_options.items()}
    plan = {
        "version": __version__,
        "backend": options.backend,
        "options": {k: v if isinstance(v, (bool, int, float, str)) else repr(v)
                    for k, v in given.items()},
        "tol": options.tol,
        "seed": options.seed,
        "force": options.force,
        "device": options.device,
        "dtype": options.dtype,
        "start": start.hexdigest(),
        "verify": request.verify,
        "stop_by": request.stop_by,
        "patience": request.patience,
    }  # fmt: skip
    as_read: dict[str, Any] = json.loads(storage.dumps(plan))
    return as_read


def _bytes(value: Any) -> bytes:
    """What tells a start value from others, whatever it is."""
    try:
        array = np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return repr(value).encode()
    return f"{array.shape} ".encode() + array.tobytes()


def _why(saved: Saved, plan: Mapping[str, Any]) -> str:
    """What the checkpoint was written with other values of."""
    if saved.plan is None:
        return "it is of an earlier version"
    then = saved.plan
    names = [f"`{n}`" for n in plan if not isinstance(then, Mapping) or then.get(n) != plan[n]]
    return f"it was written with other {', '.join(names)}"


def from_saved(request: Request, saved: Saved | None) -> Request:
    """The request for a run that goes on: its start is behind it."""
    going_on = saved is not None and saved.plan is not None
    return replace(request, start={}) if going_on else request
