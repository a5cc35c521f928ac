"""Runs an experiment: every setting with several backends, seeds and baselines, as one table.

Finished runs are kept as results, unfinished ones as checkpoints, both below ``--state``: an
experiment that was ended, by whatever, goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import bilevelpy as bl
from bilevelpy import storage
from bilevelpy.provenance import data_hashes, text_hash

HERE = Path(__file__).resolve().parent
Data = Mapping[str, Any]
# A baseline takes the data and a seed and returns its validation loss as "F", and reports by name.
Baseline = Callable[[Data, int], dict[str, float]]


@dataclass(frozen=True)
class Setting:
    """A model with data, the methods that solve it and the baselines that it is compared with.

    ``data`` and ``externs`` are made for a seed. ``held_out`` is the report on data that neither
    level sees, followed along the run; ``larger`` says whether more of it is better.
    """

    name: str
    model: str
    data: Callable[[int], Data]
    reports: tuple[str, ...]
    held_out: str
    larger: bool = True
    backends: tuple[str, ...] = ("auto",)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    externs: Callable[[int], Mapping[str, Any]] = lambda seed: {}
    random: bool = True
    max_iter: int = 500


@dataclass(frozen=True)
class Outcome:
    """One run of one method: its numbers, and when the held-out report was best."""

    method: str
    status: str
    numbers: Mapping[str, float]
    seconds: float
    evaluations: int = 0
    best: float = math.nan
    best_at: float = math.nan


def main(
    settings: Callable[[Path], Sequence[Setting]],
    title: str,
    arguments: Sequence[str] | None = None,
) -> int:
    """The command line of an experiment; ``settings`` takes the folder of the data sets."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("settings", nargs="*", help="names of settings; all of them by default")
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the data sets")
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... (default 5)")
    parser.add_argument("--backends", help="names with commas between; each setting has its own")
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds for each run")
    parser.add_argument("--state", type=Path, default=Path("experiment-output"), help="kept runs")
    parser.add_argument("--page", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--list", action="store_true", help="list the settings")
    given = parser.parse_args(arguments)
    try:
        known = {s.name: s for s in settings(given.data)}
        if given.list:
            print("\n".join(f"{s.name:<28} {s.model}" for s in known.values()))
            return 0
        chosen = [_known(known, name) for name in given.settings or known]
        backends = given.backends.split(",") if given.backends else None
        sections = []
        for setting in chosen:
            outcomes = run(setting, given.seeds, backends, given.time_limit, given.state)
            sections.append(table(setting, outcomes))
            print(sections[-1], flush=True)
        if given.page is not None:
            storage.write_text(given.page, "\n\n".join([f"# {title}", *sections]) + "\n")
    except bl.BilevelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; start it again to go on", file=sys.stderr)
        return 130
    return 0


def _known(settings: Mapping[str, Setting], name: str) -> Setting:
    if name not in settings:
        raise bl.UsageError(f"no setting is called `{name}`; there are: {', '.join(settings)}")
    return settings[name]


def run(
    setting: Setting, seeds: int, backends: Sequence[str] | None, limit: float, state: Path
) -> list[Outcome]:
    """All methods of a setting over all seeds (one where nothing is random)."""
    outcomes = []
    for seed in range(seeds if setting.random else 1):
        data = setting.data(seed)
        outcomes += [_baseline(setting, n, data, seed, state) for n in setting.baselines]
        for backend in backends or setting.backends:
            outcomes.append(_solve(setting, backend, data, seed, limit, state))
    return outcomes


def _solve(
    setting: Setting, backend: str, data: Data, seed: int, limit: float, state: Path
) -> Outcome:
    """One run, from its result if there is one, else from its checkpoint if there is one."""
    stem = _place(state, setting, backend, seed)
    done, checkpoint = stem.with_suffix(".npz"), stem.with_suffix(".ckpt")
    try:
        model = bl.load(HERE / setting.model, data=data, externs=setting.externs(seed))
        result = _kept(done, model)
        if result is None:
            keeps = {} if backend == "exact" else {"checkpoint": checkpoint, "resume": True}
            result = bl.solve(
                model,
                backend=backend,
                seed=seed,
                time_limit=limit,
                max_iter=setting.max_iter,
                watch=[setting.held_out],
                options=setting.options.get(backend),
                **keeps,
            )
            if result.status == "interrupted":
                raise KeyboardInterrupt
            result.save(done)
    except bl.BackendError as error:
        return Outcome(backend, f"refused: {str(error).splitlines()[0]}", {}, math.nan)
    checkpoint.unlink(missing_ok=True)
    numbers = {"F": result.F} | {name: float(result.reports[name]) for name in setting.reports}
    followed = [(r.reports[setting.held_out], r.time) for r in result.history if r.reports]
    best, at = _best(followed, setting.larger)
    name = f"auto ({result.backend})" if backend == "auto" else backend
    return Outcome(
        name, str(result.status), numbers, result.time["total"], _evaluations(result), best, at
    )


def _kept(path: Path, model: bl.Model) -> bl.Result | None:
    """The result of an earlier run of the same model with the same data."""
    if not path.exists():
        return None
    result = bl.load_result(path)
    now = text_hash(model.bound), data_hashes(model.bound)
    return (
        result if now == (result.provenance["model_hash"], result.provenance["data_hash"]) else None
    )


def _evaluations(result: bl.Result) -> int:
    return sum(result.counts.values())


def _best(followed: Sequence[tuple[float, float]], larger: bool) -> tuple[float, float]:
    found = [(v, t) for v, t in followed if math.isfinite(v)]
    if not found:
        return math.nan, math.nan
    return max(found, key=lambda p: p[0]) if larger else min(found, key=lambda p: p[0])


def _baseline(setting: Setting, name: str, data: Data, seed: int, state: Path) -> Outcome:
    path = _place(state, setting, f"baseline {name}", seed).with_suffix(".json")
    if path.exists():
        kept = storage.read_json(path)
    else:
        began = time.perf_counter()
        try:
            numbers = setting.baselines[name](data, seed)
        except ImportError as error:
            raise bl.UsageError(f"baseline `{name}`: {error} (the extra `bench` has it)") from error
        kept = {"numbers": numbers, "seconds": time.perf_counter() - began}
        storage.write_json(path, kept)
    return Outcome(name, "baseline", kept["numbers"], kept["seconds"])


def _place(state: Path, setting: Setting, method: str, seed: int) -> Path:
    """Where a run is kept, without its ending."""
    folder = state / setting.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{method.replace(' ', '-')}-{seed}"


def table(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Mean and spread (standard deviation) over the seeds, a row for each method."""
    names = ["F", *setting.reports]
    head = ["method", "status", *names, f"best {setting.held_out} (at s)", "evaluations", "s"]
    rows = []
    for method in dict.fromkeys(o.method for o in outcomes):
        runs = [o for o in outcomes if o.method == method]
        statuses = dict.fromkeys(o.status for o in runs)
        status = ", ".join(
            s if len(statuses) == 1 else f"{s} {sum(o.status == s for o in runs)}x"
            for s in statuses
        )
        cells = [_spread([o.numbers.get(n, math.nan) for o in runs]) for n in names]
        best = _spread([o.best for o in runs])
        at = statistics.fmean(o.best_at for o in runs)
        found = best if best == "-" else f"{best} ({at:.3g})"
        count = statistics.fmean(o.evaluations for o in runs)
        shown = f"{count:,.0f}" if count else "-"
        rows.append([method, status, *cells, found, shown, _spread([o.seconds for o in runs])])
    lines = [f"## {setting.name}", "", f"Model: `{setting.model}`.", ""]
    lines += ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    lines += ["", _winners(setting, outcomes)]
    return "\n".join(lines)


def _winners(setting: Setting, outcomes: Sequence[Outcome]) -> str:
    """Who has the lowest upper objective, and who is best on held-out data: often another one."""

    def mean(method: str, name: str) -> float:
        found = [o.numbers.get(name, math.nan) for o in outcomes if o.method == method]
        return statistics.fmean(found)

    methods = dict.fromkeys(o.method for o in outcomes if o.numbers)
    if not methods:
        return "No method has a result."
    lowest = min(methods, key=lambda m: mean(m, "F"))
    sign = -1.0 if setting.larger else 1.0
    best = min(methods, key=lambda m: sign * mean(m, setting.held_out))
    return (
        f"Lowest F: {lowest} ({mean(lowest, 'F'):.4g}). "
        f"Best {setting.held_out}: {best} ({mean(best, setting.held_out):.4g})."
    )


def _spread(values: Sequence[float]) -> str:
    found = [v for v in values if math.isfinite(v)]
    if not found:
        return "-"
    mean = f"{statistics.fmean(found):.4g}"
    return mean if len(found) < 2 else f"{mean} ± {statistics.stdev(found):.2g}"
