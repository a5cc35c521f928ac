"""The tables of the dispatcher's study, from stored runs."""

from __future__ import annotations

import math
from typing import Any

from benchmarks.dispatch_models import Entry
from bilevelpy.backends import registry
from bilevelpy.dispatcher import RULES

Runs = dict[str, dict[str, Any]]
# Clock ticks and the first call of anything: times below this are equal.
TICK = 0.01
# What `auto` may take at most.
AUTO_SECONDS = 12.0


def rules() -> str:
    """The decision table as it is in the package."""
    lines = ["| row | structure | backend | because |", "| --- | --- | --- | --- |"]
    for rule in RULES:
        when = "; ".join(condition.words for condition in rule.when)
        options = f" ({', '.join(rule.options)})" if rule.options else ""
        why = rule.why.format(m="m", n="n", kappa=0.0).replace("about 0", "kappa")
        lines.append(f"| {rule.row} | {when} | `{rule.backend}`{options} | {why} |")
    return "\n".join(lines)


def report(entries: list[Entry], runs: Runs) -> str:
    """Markdown: the summary, the backends, the models."""
    rows = [_model(entry, runs) for entry in entries if f"{entry.name} | auto" in runs]
    return "\n\n".join([_summary(rows), _backends(rows), _models(rows)])


def _model(entry: Entry, runs: Runs) -> dict[str, Any]:
    """A model with its runs and the best of them."""
    own = {
        name: runs[f"{entry.name} | {name}"]
        for name in registry.names()
        if f"{entry.name} | {name}" in runs
    }
    solved = {n: max(r["cpu"], TICK) for n, r in own.items() if r["status"] == "converged"}
    auto = runs[f"{entry.name} | auto"]
    done = auto["status"] == "converged"
    best = min(solved, key=solved.__getitem__, default="")
    ratio = math.nan
    if done and best:
        ratio = max(auto["cpu"], TICK) / solved[best]
    return {
        "entry": entry,
        "auto": auto,
        "done": done,
        "runs": own,
        "solved": solved,
        "best": best,
        "ratio": ratio,
    }


def _summary(rows: list[dict[str, Any]]) -> str:
    done = sum(row["done"] for row in rows)
    ratios = [row["ratio"] for row in rows if not math.isnan(row["ratio"])]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios)) if ratios else math.nan
    worst = max(rows, key=lambda row: -1.0 if math.isnan(row["ratio"]) else row["ratio"])
    lost = ", ".join(f"{r['entry'].name} ({r['auto']['status']})" for r in rows if not r["done"])
    return (
        f"`auto` solves {done} of {len(rows)} models ({done / max(len(rows), 1):.0%}) to a "
        f"supported certificate. Its CPU time is {mean:.2f} times that of the best single backend "
        f"on the model (geometric mean; worst: {worst['ratio']:.1f} on {worst['entry'].name})."
        + (f" Not solved in its {AUTO_SECONDS:g} CPU seconds: {lost}." if lost else "")
    )


def _backends(rows: list[dict[str, Any]]) -> str:
    """Each backend over the whole catalogue, auto among them."""
    lines = [
        "| backend | accepts | solves | wrong | refuted | out of time | mean time / auto |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    auto = [row["auto"] for row in rows]
    lines.append(_line("auto", auto, 1.0))
    table = []
    for name in registry.names():
        own = [row["runs"][name] for row in rows if name in row["runs"]]
        own = [run for run in own if run["status"] not in ("rejected", "refused")]
        if not own:
            continue
        shared = [
            row["solved"][name] / max(row["auto"]["cpu"], TICK)
            for row in rows
            if name in row["solved"] and row["done"]
        ]
        mean = math.exp(sum(map(math.log, shared)) / len(shared)) if shared else math.nan
        solves = sum(run["status"] == "converged" for run in own)
        table.append((-solves, _line(name, own, mean)))
    return "\n".join([*lines, *(line for _, line in sorted(table))])


def _line(name: str, runs: list[dict[str, Any]], mean: float) -> str:
    def count(*statuses: str) -> int:
        return sum(run["status"] in statuses for run in runs)

    late = count("interrupted", "time_limit", "iteration_limit")
    lost = len(runs) - count("converged", "wrong") - late
    ratio = "-" if math.isnan(mean) else f"{mean:.2f}"
    return (
        f"| {name} | {len(runs)} | {count('converged')} | {count('wrong')} | {lost} | {late} | "
        f"{ratio} |"
    )


def _models(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| model | structure | chosen | status | CPU s | best single | ratio |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        auto, entry = row["auto"], row["entry"]
        best = f"{row['best']} {row['solved'][row['best']]:.2f}" if row["best"] else "none"
        ratio = "-" if math.isnan(row["ratio"]) else f"{row['ratio']:.1f}"
        lines.append(
            f"| {entry.name} | {entry.kind} | {auto.get('backend', '-')} | {auto['status']} | "
            f"{auto['cpu']:.2f} | {best} | {ratio} |"
        )
    return "\n".join(lines)
