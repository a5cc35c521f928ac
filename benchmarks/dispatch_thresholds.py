"""Where the thresholds of the decision table lie: ``python -m benchmarks.dispatch_thresholds``.

Each family of models grows in one size; two or more backends solve every member. The threshold is
where their CPU times cross. Results are kept in ``bench-output/thresholds.json``; ``--write``
puts the table into ``docs/dispatch_measured.md``, between its marks.
"""

from __future__ import annotations

import argparse
import json
import math
from functools import partial
from typing import Any

import torch

import bilevelpy as bl
from benchmarks.dispatch import MEASURED, measured, put
from benchmarks.dispatch_families import FAMILIES, Family
from benchmarks.dispatch_models import Entry
from benchmarks.measure import ROOT

STORE = ROOT / "bench-output" / "thresholds.json"


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.dispatch_thresholds")
    parser.add_argument("names", nargs="*", metavar="FAMILY", help="only those that start so")
    parser.add_argument("--report", action="store_true", help="only show what is stored")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    stored: dict[str, Any] = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    for family in FAMILIES:
        if options.report or (options.names and not family.name.startswith(tuple(options.names))):
            continue
        for size in family.sizes:
            keys = {b: f"{family.name} | {size} | {b}" for b in family.backends}
            if all(key in stored for key in keys.values()):
                continue
            externs = family.externs(size) if family.externs is not None else None
            model = bl.parse(family.text, data=family.data(size), externs=externs)
            known = family.known(size) if family.known is not None else None
            entry = Entry(f"{family.name} {size}", family.name, partial(_same, model), known)
            bl.analyze(model)
            for backend, key in keys.items():
                if key in stored:
                    continue
                run = measured(entry, model, backend, family.seconds, family.score)
                end = run.get("score", run["F"])
                print(f"{key:70} {run['status']:12} {run['cpu']:.3f} s {end!r}", flush=True)
                if run["status"] != "failed":  # what was disturbed or broken is measured again
                    stored[key] = run
                    STORE.parent.mkdir(exist_ok=True)
                    STORE.write_text(json.dumps(stored, indent=0), "utf-8")
    text = table(stored)
    print(text)
    if options.write:
        put(MEASURED, "thresholds", text)


def _same(model: bl.Model) -> bl.Model:
    return model


def table(stored: dict[str, Any]) -> str:
    """CPU seconds by family, size and backend; or the score where the limit ends all."""
    lines = [
        "| family | decides | size | CPU s |",
        "| --- | --- | --- | --- |",
    ]
    for family in FAMILIES:
        for size in family.sizes:
            runs = {b: stored.get(f"{family.name} | {size} | {b}") for b in family.backends}
            cells = [(*_judged(family, run), b) for b, run in runs.items() if run is not None]
            if cells:
                best = min(cells)[0]
                shown = ", ".join(
                    f"**{b} {words}**" if rank == best < math.inf else f"{b} {words}"
                    for rank, words, b in cells
                )
                size_words = f"{size:,} {family.counts}"
                lines.append(f"| {family.name} | `{family.threshold}` | {size_words} | {shown} |")
    return "\n".join(lines)


def _judged(family: Family, run: dict[str, Any]) -> tuple[float, str]:
    """What ranks a run, and what stands in the table."""
    if family.score is not None and "score" in run:
        return run["score"], f"F {run['score']:.3f}"
    if run["status"] != "converged":
        return math.inf, run["status"]
    return run["cpu"], f"{run['cpu']:.2f}"


if __name__ == "__main__":
    main()
