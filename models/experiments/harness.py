"""Runs an experiment: every setting with several backends, seeds and baselines, as one table.

Finished runs are kept as results, unfinished ones as checkpoints, both below ``--state``: an
experiment that was ended, by whatever, goes on where it was when it is started again.
"""

from __future__ import annotations

import argparse
import gc
import math
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from datasets import fingerprint
from experiment import Data, Outcome, Setting, made

import bilevelpy as bl
from bilevelpy.backends import registry
from bilevelpy.records.provenance import data_hashes, text_hash
from bilevelpy.system import storage

HERE = Path(__file__).resolve().parent
# The name of the row of `auto` ended by a report, and for how many iterations it waits.
ENDED = "auto, ended by"
PATIENCE = 20


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
    parser.add_argument("--no-baselines", action="store_true", help="the backends alone")
    parser.add_argument("--time-limit", type=float, default=300.0, help="seconds for each run")
    parser.add_argument(
        "--processor-time", action="store_true",
        help="seconds and limits in processor time, on a machine that others use",
    )  # fmt: skip
    parser.add_argument("--state", type=Path, default=Path("experiment-output"), help="kept runs")
    parser.add_argument("--kept", action="store_true", help="tables of kept runs; solve nothing")
    parser.add_argument("--page", type=Path, help="write the tables to this Markdown file")
    parser.add_argument("--plots", type=Path, help="write a picture of each setting to this folder")
    parser.add_argument("--list", action="store_true", help="list the settings")
    given = parser.parse_args(arguments)
    clock = time.perf_counter
    if given.processor_time:
        # The one clock that limits, histories and results are measured by.
        time.perf_counter = time.process_time
    try:
        known = {s.name: s for s in settings(given.data)}
        if given.list:
            print("\n".join(f"{s.name:<28} {s.model}" for s in known.values()))
            return 0
        chosen = [_known(known, name) for name in given.settings or known]
        backends = _checked(given)
        sections = []
        if given.no_baselines:
            chosen = [replace(setting, baselines={}) for setting in chosen]
        for setting in chosen:
            limit = None if given.kept else given.time_limit
            outcomes = run(setting, given.seeds, backends, limit, given.state)
            if not outcomes:  # nothing is kept
                continue
            sections.append(_section(setting, outcomes, given.page, given.plots))
            print(sections[-1], flush=True)
            if given.page is not None:
                # What is there so far: a later setting may fail.
                storage.write_text(given.page, "\n\n".join([f"# {title}", *sections]) + "\n")
        if not sections:
            raise bl.UsageError(f"nothing of these settings is kept below {given.state}")
    except bl.BilevelError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; start it again to go on", file=sys.stderr)
        return 130
    finally:
        time.perf_counter = clock
    return 0


def _checked(given: argparse.Namespace) -> list[str] | None:
    """The backends that were asked for. Numbers that are none, and places that cannot be written,
    are told before any run.
    """
    if given.seeds < 1:
        raise bl.UsageError(f"--seeds must be 1 or more, found {given.seeds}")
    if not given.time_limit > 0:
        raise bl.UsageError(f"--time-limit must be above 0 seconds, found {given.time_limit:g}")
    places = (given.state, given.plots, given.page and given.page.parent)
    for folder in places if not given.kept else places[1:]:
        if folder is not None:
            made(folder)
    if given.backends is None:
        return None
    names = [name.strip() for name in given.backends.split(",")]
    for name in names:
        if name != "auto":
            registry.get(name)
    return names


def _known(settings: Mapping[str, Setting], name: str) -> Setting:
    if name not in settings:
        raise bl.UsageError(f"no setting is called `{name}`; there are: {', '.join(settings)}")
    return settings[name]


def _section(
    setting: Setting, outcomes: Sequence[Outcome], page: Path | None, plots: Path | None
) -> str:
    """The table of a setting, with its picture where one was asked for."""
    import tables

    shown = tables.table(setting, outcomes)
    if plots is None:
        return shown
    import curves

    path = plots / f"{setting.name}.svg"
    if not curves.draw(setting, outcomes, path):
        return shown
    try:
        place = path.resolve().relative_to((page or path).resolve().parent)
    except ValueError:
        place = path
    return f"{shown}\n\n![Runs of {setting.name} against time and evaluations]({place.as_posix()})"


class NotKept(Exception):
    """A run that was asked for as it is kept, and is not."""


def run(
    setting: Setting, seeds: int, backends: Sequence[str] | None, limit: float | None, state: Path
) -> list[Outcome]:
    """All methods of a setting over all seeds (one where nothing is random), ``limit`` seconds
    each; None takes what is kept and solves nothing.
    """
    outcomes: list[Outcome] = []
    for seed in range(seeds if setting.random else 1):
        if limit is None and not any((state / setting.name).glob(f"*-{seed}.npz")):
            continue
        data = setting.data(seed)
        calls = [
            partial(_solve, setting, backend, data, seed, limit, state)
            for backend in backends or setting.backends
        ]
        if setting.stop_by and (not backends or "auto" in backends):
            calls.append(partial(_ended, setting, data, seed, limit, state))
        solved = _all(calls)
        # Searches get the time of `auto`, or of whatever stands in its place.
        taken = next((o.seconds for o in solved if math.isfinite(o.seconds)), limit)
        seconds = None if limit is None else taken
        compared = [
            partial(_baseline, setting, n, data, seed, seconds, state) for n in setting.baselines
        ]
        outcomes += [*_all(compared), *solved]
    return outcomes


def _all(calls: Sequence[Callable[[], Outcome]]) -> list[Outcome]:
    """The outcomes that there are."""
    found = []
    for call in calls:
        with suppress(NotKept):
            found.append(call())
    return found


def _solve(
    setting: Setting, backend: str, data: Data, seed: int, limit: float | None, state: Path
) -> Outcome:
    """One run, from its result if there is one, else from its checkpoint if there is one."""
    stem = _place(state, setting, backend, seed)
    try:
        model = bl.load(HERE / setting.model, data=data, externs=setting.externs(seed))
        result, spent = _finished(setting, model, stem, backend, seed, limit)
    except bl.BackendError as error:
        return Outcome(backend, seed, f"refused: {str(error).splitlines()[0]}", {}, math.nan)
    # Without a history the run ended before its first step: these are figures of the start.
    reports = {name: float(result.reports[name]) for name in setting.reports}
    numbers = {"F": result.F, **reports} if result.history else {}
    return _outcome(
        f"auto ({result.backend})" if backend == "auto" else backend, seed, result, numbers, spent
    )


def _ended(setting: Setting, data: Data, seed: int, limit: float | None, state: Path) -> Outcome:
    """A run of `auto` that a report on rows of its own ended; its reports are on the test rows."""
    name = f"{ENDED} {setting.stop_by.split()[-1]}"
    model = bl.load(HERE / setting.model, data=data, externs=setting.externs(seed))
    followed = model.bind(data=setting.stop_rows(seed))
    stem = _place(state, setting, name, seed)
    result, spent = _finished(setting, followed, stem, "auto", seed, limit, setting.stop_by)
    lower = {f"{k}.{n}": v for k, vs in result.lower.items() for n, v in vs.items()}
    at = bl.solve(model, start={**result.upper, **lower}, max_iter=0, verify=False)
    numbers = {"F": result.F} | {n: float(at.reports[n]) for n in setting.reports}
    return _outcome(name, seed, result, numbers, spent)


def _finished(
    setting: Setting,
    model: bl.Model,
    stem: Path,
    backend: str,
    seed: int,
    limit: float | None,
    stop_by: str | None = None,
) -> tuple[bl.Result, Mapping[str, float]]:
    """A result and what it took: kept, or solved and kept."""
    done, checkpoint, took = (stem.with_name(stem.name + s) for s in (".npz", ".ckpt", ".json"))
    options = dict(setting.options.get(backend, {}))
    result = _kept(done, model, setting.tol, options)
    if result is None or not took.exists():
        if limit is None:
            raise NotKept
        keeps = {} if backend == "exact" else {"checkpoint": checkpoint, "resume": True}
        before = time.process_time()
        result = bl.solve(
            model,
            backend=backend,
            seed=seed,
            tol=setting.tol,
            time_limit=limit,
            max_iter=setting.max_iter,
            watch=[setting.held_out],
            stop_by=stop_by,
            patience=PATIENCE,
            options=options,
            force=backend in setting.forced,
            **keeps,
        )
        if result.status == "interrupted":
            raise KeyboardInterrupt
        cpu = time.process_time() - before
        # Kilobytes on Linux, bytes on macOS.
        unit = 1e9 if sys.platform == "darwin" else 1e6
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
        storage.write_json(took, {"cpu": cpu, "memory": memory})
        result.save(done)
        # Oracles hold their data in cycles, which may lie about for long.
        gc.collect()
    checkpoint.unlink(missing_ok=True)
    return result, storage.read_json(took)


def _outcome(
    name: str,
    seed: int,
    result: bl.Result,
    numbers: Mapping[str, float],
    spent: Mapping[str, float],
) -> Outcome:
    return Outcome(
        name,
        seed,
        str(result.status),
        numbers,
        # A run that went on from a checkpoint has its history from the first iteration on.
        max(result.time["total"], result.history[-1].time if result.history else 0.0),
        spent["cpu"],
        spent["memory"],
        sum(result.counts.values()),
        result.history,
        tuple(_decided(result)["why"]) if name.startswith("auto (") else (),
        result.provenance["options"]["time_limit"],
    )


def _decided(result: bl.Result) -> Mapping[str, Any]:
    """The decision as it was when the run began; a result that was read back has plain mappings."""
    decision = result.decision
    return decision if isinstance(decision, Mapping) else decision.to_json()


def _kept(path: Path, model: bl.Model, tol: float, options: Mapping[str, Any]) -> bl.Result | None:
    """The result of an earlier run of the same model with the same data, tolerance and options."""
    if not path.exists():
        return None
    result = bl.load_result(path)
    then = result.provenance
    # Options that come with the choice of the backend are noted with those that were given.
    options = {**_decided(result)["options"], **options}
    same = (
        then["model_hash"] == text_hash(model.bound)
        and then["data_hash"] == data_hashes(model.bound)
        and then["options"]["tol"] == tol
        and then["options"]["backend_options"] == options
    )
    return result if same else None


def _baseline(
    setting: Setting, name: str, data: Data, seed: int, seconds: float | None, state: Path
) -> Outcome:
    stem = _place(state, setting, f"baseline {name}", seed)
    path, now = stem.with_name(f"{stem.name}.json"), fingerprint(data)
    kept = storage.read_json(path) if path.exists() else {}
    if kept.get("data") != now:
        if seconds is None:
            raise NotKept
        began, before = time.perf_counter(), time.process_time()
        try:
            numbers = setting.baselines[name](data, seed, seconds)
        except ImportError as error:
            raise bl.UsageError(
                f"baseline `{name}`: {error} (the extra `experiments` has it)"
            ) from error
        kept = {
            "numbers": numbers,
            "seconds": time.perf_counter() - began,
            "cpu": time.process_time() - before,
            "data": now,
        }
        storage.write_json(path, kept)
    numbers = {k: storage.number(v) for k, v in kept["numbers"].items()}
    status = "reference" if name in setting.references else "baseline"
    return Outcome(name, seed, status, numbers, kept["seconds"], kept["cpu"])


def _place(state: Path, setting: Setting, method: str, seed: int) -> Path:
    """Where a run is kept, without its ending."""
    folder = state / setting.name
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{method.replace(',', '').replace(' ', '-')}-{seed}"
