"""``python -m benchmarks.large [--seconds S] [--write FILE] [NAME...]``: one table.

Every method runs in a process of its own, so that a crash of a solver is a row of the table.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from importlib import import_module
from pathlib import Path

from benchmarks.__main__ import machine
from benchmarks.large.answer import Answer
from benchmarks.measure import ROOT

NAMES = ("tolls", "market", "charging", "storage", "folds")
MARK = "<!-- measured -->"
HEAD = ("instance", "method", "F", "gap proved", "s", "CPU s", "remark")


def methods(name: str, seconds: float) -> list[Callable[[], Answer]]:
    """The methods of an instance, each to be called on its own."""
    found: list[Callable[[], Answer]] = import_module(f"benchmarks.large.{name}").methods(seconds)
    return found


def measured(name: str, place: int, seconds: float) -> Answer | None:
    """One method in a process of its own; None where it crashes."""
    command = [sys.executable, "-m", "benchmarks.large", name, "--only", str(place)]
    done = subprocess.run(
        [*command, "--seconds", str(seconds)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        print(done.stderr[-1000:], file=sys.stderr)
        return None
    return Answer(**json.loads(done.stdout.strip().splitlines()[-1]))


def cells(answer: Answer) -> list[str]:
    """A row as text."""
    F = "no point" if math.isnan(answer.F) else f"{answer.F:.6g}"
    gap = "-" if math.isnan(answer.gap) else f"{100 * answer.gap:.2g} %"
    times = [f"{answer.seconds:.1f}", f"{answer.cpu:.1f}"]
    return [answer.instance, answer.method, F, gap, *times, answer.note]


def table(rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [HEAD, ("---",) * len(HEAD), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.large", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--seconds", type=float, default=60.0, help="time limit of each method")
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    parser.add_argument("--only", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    names = options.names or list(NAMES)
    if options.only is not None:
        print(json.dumps(asdict(methods(names[0], options.seconds)[options.only]())))
        return
    rows = []
    for name in names:
        for place, method in enumerate(methods(name, options.seconds)):
            answer = measured(name, place, options.seconds)
            called = method.func.__name__ if isinstance(method, partial) else str(method)
            row = cells(answer) if answer else [name, called, "crashed", "-", "-", "-", ""]
            print("  ".join(filter(None, row)), flush=True)
            rows.append(row)
    text = f"{machine()}; at most {options.seconds:g} s each\n\n{table(rows)}\n"
    if options.write:
        before, mark, _ = options.write.read_text("utf-8").partition(MARK)
        options.write.write_text(f"{before}{mark}\n\n{text}", "utf-8")


if __name__ == "__main__":
    main()
