"""``python -m benchmarks [--write FILE] [--plots DIR] [NAME...]``: measure, print one table."""

from __future__ import annotations

import argparse
import importlib
import os
import platform
from datetime import date
from pathlib import Path

from benchmarks.measure import Row

NAMES = ["startup", "derivatives", "overhead", "races", "memory", "cleaning", "curves"]
PLOTS = {"races", "curves"}
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
        f"NumPy {numpy.__version__}, SciPy {scipy.__version__}, {torch.get_num_threads()} threads"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description="Measure against hand-written code."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)} (default: all)"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="put the table into this file")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="one plot per race and curve")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - set(NAMES))
    if unknown:
        parser.error(f"no benchmark {', '.join(unknown)}; there are {', '.join(NAMES)}")
    rows: list[Row] = []
    for name in options.names or NAMES:
        plots = {"plots": options.plots} if name in PLOTS else {}
        for row in importlib.import_module(f"benchmarks.{name}").run(**plots):
            print("  ".join(filter(None, cells(row))), flush=True)
            rows.append(row)
    print(f"\n{machine()}\n\n{table(rows)}")
    if options.write:
        before, mark, _ = options.write.read_text("utf-8").partition("<!-- measured -->")
        options.write.write_text(f"{before}{mark}\n\n{machine()}\n\n{table(rows)}\n", "utf-8")


if __name__ == "__main__":
    main()
