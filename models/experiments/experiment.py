"""What an experiment is made of: settings, and the outcomes of their runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bilevelpy.errors import UsageError
from bilevelpy.result import Record

Data = Mapping[str, Any]
# A baseline takes data, a seed and the seconds that `auto` took (searches end then); it returns its
# validation loss as "F", and reports by name.
Baseline = Callable[[Data, int, float], dict[str, float]]


@dataclass(frozen=True)
class Setting:
    """A model with data, the methods that solve it and the baselines that it is compared with.

    ``data`` and ``externs`` are made for a seed. ``references`` are baselines that read what nobody
    knows in practice: they show what could be reached, and win nothing. ``held_out`` is the report
    on data that neither level sees, followed along the run; ``larger`` says whether more of it is
    better, ``maximize`` whether more of F is. ``forced`` are backends that are run although they
    refuse the model: what they answer is what was found, and nothing is claimed for it. ``stop_by``
    ("min test_loss") adds a run of ``auto`` that is ended by a report, followed on rows of its own:
    ``stop_rows`` makes them for a seed, in the place of the test rows.
    """

    name: str
    model: str
    data: Callable[[int], Data]
    reports: tuple[str, ...]
    held_out: str
    larger: bool = True
    backends: tuple[str, ...] = ("auto",)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    references: tuple[str, ...] = ()
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    forced: tuple[str, ...] = ()
    externs: Callable[[int], Mapping[str, Any]] = lambda seed: {}
    random: bool = True
    maximize: bool = False
    tol: float = 1e-6
    max_iter: int = 500
    stop_by: str = ""
    stop_rows: Callable[[int], Data] = lambda seed: {}


@dataclass(frozen=True)
class Outcome:
    """One run of one method: its numbers, what it took and, where it was followed, its history.

    ``seconds`` are of wall time and ``cpu`` of processor time, both with the certificate;
    ``memory`` is the largest of the process so far, in GB, ``limit`` the seconds that it was given.
    """

    method: str
    seed: int
    status: str
    numbers: Mapping[str, float]
    seconds: float
    cpu: float = math.nan
    memory: float = math.nan
    evaluations: int = 0
    history: Sequence[Record] = ()
    why: tuple[str, ...] = ()
    limit: float = math.nan


def made(folder: Path) -> Path:
    """A folder for what comes out, made where it is not there; before hours of work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    return folder
