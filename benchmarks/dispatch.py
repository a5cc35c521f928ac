"""The dispatcher against every fixed backend: ``python -m benchmarks.dispatch``.

Every model of the catalogue is solved by ``auto`` and by every backend that accepts it. A run
counts as solved if its status is "converged" (so its certificate holds) and F is the known optimum
where there is one. Times are CPU seconds of a solve of a model that is compiled and analysed
already, certificate included; a fixed backend has :data:`ROOM` times the CPU seconds of ``auto``,
at least :data:`LEAST` and at most :data:`MOST`.

Runs are kept in ``bench-output/dispatch.json`` and not repeated: ``--again NAME`` forgets those of
a model or a backend. ``--write`` puts the tables into the documentation, between their marks.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

import bilevelpy as bl
from benchmarks.__main__ import machine
from benchmarks.dispatch_models import Entry, catalogue
from benchmarks.dispatch_report import AUTO_SECONDS, report, rules
from benchmarks.measure import ROOT
from bilevelpy.backends import registry
from bilevelpy.backends.base import Accept

STORE = ROOT / "bench-output" / "dispatch.json"
TABLE, MEASURED = (ROOT / "docs" / name for name in ("dispatcher.md", "dispatch_measured.md"))
ROOM, LEAST, MOST = 3.0, 0.75, 6.0
# Wall seconds for one CPU second at most: the machine may have other work.
SLOWER = 12.0
# Runs shorter than this are repeated; the shortest counts.
SHORT = 1.0

Runs = dict[str, dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.dispatch")
    parser.add_argument("names", nargs="*", metavar="MODEL", help="only models that start so")
    parser.add_argument("--backends", default="", metavar="A,B", help="only these, beside auto")
    parser.add_argument("--again", action="append", default=[], metavar="NAME")
    parser.add_argument("--report", action="store_true", help="only show what is stored")
    parser.add_argument("--write", action="store_true", help="put the tables into the pages")
    options = parser.parse_args()
    torch.set_num_threads(1)
    runs = _read()
    for key in [k for k in runs if any(name in k.split(" | ") for name in options.again)]:
        del runs[key]
    if options.again:
        _keep(runs)
    entries = [
        e for e in catalogue() if not options.names or e.name.startswith(tuple(options.names))
    ]
    if not options.report:
        wanted = [name for name in options.backends.split(",") if name] or registry.names()
        for entry in entries:
            for key, run in study(entry, wanted, runs):
                if run["status"] != "failed":  # what was disturbed or broken is measured again
                    runs[key] = run
                    _keep({**_read(), key: run})  # others may be measuring too
                print(f"{key:60} {run['status']:16} {run['cpu']:8.3f} s  {run['F']!r}", flush=True)
    text = f"{machine()}\n\n{report(entries, runs)}"
    print(text)
    if options.write:
        put(TABLE, "rules", rules())
        put(MEASURED, "measured", text)


def put(path: Path, mark: str, text: str) -> None:
    """Replace what stands between the marks ``<!-- mark -->`` and ``<!-- end of mark -->``."""
    before, _, rest = path.read_text("utf-8").partition(f"<!-- {mark} -->")
    _, end, after = rest.partition(f"<!-- end of {mark} -->")
    path.write_text(f"{before}<!-- {mark} -->\n\n{text}\n\n{end}{after}", "utf-8")


def key_of(entry: Entry, backend: str) -> str:
    """How a run is stored."""
    return f"{entry.name} | {backend}"


def study(entry: Entry, backends: list[str], runs: Runs) -> Iterator[tuple[str, dict[str, Any]]]:
    """The runs of a model that are not stored yet: ``auto`` first, then whoever accepts."""
    names = ["auto", *backends]
    if all(key_of(entry, name) in runs for name in names):
        return
    model = entry.make()
    facts = bl.analyze(model)
    first = runs.get(key_of(entry, "auto"))
    for name in names:
        key = key_of(entry, name)
        if key in runs:
            continue
        if name != "auto" and not isinstance(registry.get(name).accepts(facts), Accept):
            yield key, _row("rejected", 0.0, math.nan)
            continue
        limit = AUTO_SECONDS
        if name != "auto" and first is not None:
            limit = min(MOST, max(LEAST, ROOM * first["cpu"]))
        run = measured(entry, model, name, limit)
        if name == "auto":
            first = run
        yield key, run


Score = Callable[[bl.Model, bl.Result], float]


def measured(
    entry: Entry, model: bl.Model, backend: str, limit: float, score: Score | None = None
) -> dict[str, Any]:
    """One solve, or the shorter of two where it is short and comes to its end; with ``score`` its
    result has one, however it ended.
    """
    best: dict[str, Any] | None = None
    for _ in range(2):
        run = _solve(entry, model, backend, limit, score)
        if best is None or run["cpu"] < best["cpu"]:
            best = run
        if run["cpu"] > SHORT or run["status"] != "converged":
            break
    assert best is not None
    return best


def _solve(
    entry: Entry, model: bl.Model, backend: str, limit: float, score: Score | None
) -> dict[str, Any]:
    began = time.process_time()
    try:
        with at_most(limit):
            result = bl.solve(model, backend=backend, time_limit=SLOWER * limit, max_iter=100_000)
    except KeyboardInterrupt:
        return _row("interrupted", time.process_time() - began, math.nan)
    except Exception as error:  # one broken backend must not end the study of the others
        status = "refused" if "BLV06" in str(error) else "failed"
        return {**_row(status, time.process_time() - began, math.nan), "message": str(error)}
    cpu = time.process_time() - began
    if result.status == "time_limit" and cpu < 0.7 * limit:  # the machine was busy elsewhere
        return _row("failed", cpu, result.F)
    solved = result.success
    wrong = (
        solved
        and entry.F is not None
        and abs(result.F - entry.F) > entry.within * (1 + abs(entry.F))
    )
    kind = result.certificate.kind if result.certificate is not None else "none"
    return {
        **_row("wrong" if wrong else str(result.status), cpu, result.F),
        "backend": result.backend,
        "certificate": kind,
        "message": result.message[:400],
        "notes": list(result.decision.notes),
        "iterations": result.iterations,
        "counts": dict(result.counts),
        **({} if score is None else {"score": score(model, result)}),
    }


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Interrupt what runs inside, as Ctrl-C does, after so much CPU time."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


def _row(status: str, cpu: float, F: float) -> dict[str, Any]:
    return {"status": status, "cpu": cpu, "F": F if math.isfinite(F) else None}


def _read() -> Runs:
    found: Runs = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    return found


def _keep(runs: Runs) -> None:
    STORE.parent.mkdir(exist_ok=True)
    STORE.write_text(json.dumps(runs, indent=0), "utf-8")


if __name__ == "__main__":
    main()
