"""``python -m benchmarks [--write FILE] [--plots DIR] [NAME...]``: measure, print one table.

Everything but ``threads`` runs with one thread. Rows are kept in ``--state`` as they are measured,
so that a run that was ended goes on from there; once the table is written the state is removed.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy reads it

import argparse
import importlib
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict
from datetime import date
from pathlib import Path

from benchmarks.measure import Row

NAMES = [
    "startup",
    "derivatives",
    "overhead",
    "races",
    "libraries",
    "memory",
    "cleaning",
    "curves",
    "threads",
]
# Names with parts that are measured, and kept, one by one.
PARTS = {"races": "NAMES", "libraries": "TASKS", "curves": "CURVES", "threads": "TASKS"}
PLOTS = {"races", "curves"}
STATE = Path("bench-output/rows.json")
COLUMNS = ["task", "bilevelpy", "yardstick", "ratio", "aim", "remark"]


def cells(row: Row) -> list[str]:
    """A row as text."""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    return [row.task, row.ours, row.yardstick, ratio, row.aim, row.note]


def table(rows: list[Row]) -> str:
    """A Markdown table with aligned columns."""
    lines = [COLUMNS, *map(cells, rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(COLUMNS))]
    padded = [[c.ljust(w) for c, w in zip(line, widths, strict=True)] for line in lines]
    text = [f"| {' | '.join(line)} |" for line in padded]
    text.insert(1, "| " + " | ".join("-" * w for w in widths) + " |")
    return "\n".join(text)


def machine() -> str:
    """What the figures were measured on."""
    import numpy
    import scipy
    import torch

    return (
        f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, "
        f"Python {platform.python_version()}, PyTorch {torch.__version__}, "
        f"NumPy {numpy.__version__}, SciPy {scipy.__version__}, {torch.get_num_threads()} thread"
    )


def units(names: list[str]) -> Iterator[tuple[str, str | None]]:
    """What is measured at once: a name, or a part of one (``races/digits``)."""
    for wanted in names:
        name, _, part = wanted.partition("/")
        if part:
            known = list(
                getattr(importlib.import_module(f"benchmarks.{name}"), PARTS.get(name, ""), [])
            )
            if part not in known:
                raise SystemExit(
                    f"no part {part} of {name}; there are {', '.join(known) or 'none'}"
                )
            yield name, part
        elif name in PARTS:
            module = importlib.import_module(f"benchmarks.{name}")
            for single in getattr(module, PARTS[name]):
                yield name, single
        else:
            yield name, None


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description="Measure against hand-written code and other libraries."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"of {', '.join(NAMES)}, or a part such as races/digits (default: all)",
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="one plot per race and curve")
    parser.add_argument("--state", type=Path, metavar="FILE", default=STATE, help="kept rows")
    parser.add_argument("--again", action="store_true", help="measure anew what is kept there")
    options = parser.parse_args()
    unknown = sorted({n.partition("/")[0] for n in options.names} - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    import torch

    torch.set_num_threads(1)
    kept: dict[str, list[dict[str, object]]] = {}
    if options.state.exists() and not options.again:
        kept = json.loads(options.state.read_text("utf-8"))
    rows: list[Row] = []
    for name, part in list(units(options.names or NAMES)):
        key = name if part is None else f"{name}/{part}"
        if key not in kept:
            arguments = {} if part is None else {"names": [part]}
            if name in PLOTS:
                arguments["plots"] = options.plots
            found = []
            for row in importlib.import_module(f"benchmarks.{name}").run(**arguments):
                print("  ".join(filter(None, cells(row))), flush=True)
                found.append(asdict(row))
            kept[key] = found
            options.state.parent.mkdir(parents=True, exist_ok=True)
            options.state.write_text(json.dumps(kept, indent=1), "utf-8")
        rows += [Row(**row) for row in kept[key]]
    print(f"\n{machine()}\n\n{table(rows)}")
    if options.write:
        before, mark, _ = options.write.read_text("utf-8").partition("<!-- measured -->")
        options.write.write_text(f"{before}{mark}\n\n{machine()}\n\n{table(rows)}\n", "utf-8")
        options.state.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
