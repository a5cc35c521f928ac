"""What a caller gets who sets no number of threads, beside one thread: wall time of warm solves.

Libraries with threads of their own wait by spinning, and more of them can be slower than one.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator

from benchmarks.measure import Row, compare, in_subprocess

TASKS = ("quadratic-1000", "digits", "logistic-22", "text")
# Solves of which the shortest counts.
REPEATS = 3
ONE = {"OMP_NUM_THREADS": "1"}


def run(names: list[str] | None = None) -> Iterator[Row]:
    """A row for each task: as it comes, and with one thread."""
    plain = {k: v for k, v in os.environ.items() if k not in ONE}
    for name in names or TASKS:
        mine = in_subprocess("benchmarks.threads", name, environment=plain)
        one = in_subprocess("benchmarks.threads", name, environment=plain | ONE)
        note = f"wall time, {mine['threads']} threads of torch beside one"
        yield compare(f"threads: {mine['task']}", mine["time"], one["time"], "1.2", note)


def main() -> None:
    import time

    import torch

    import bilevelpy as bl
    from benchmarks.tasks import RACES

    race = RACES[sys.argv[1]]()
    model = race.model()
    best = float("inf")
    for _ in range(1 + REPEATS):
        begin = time.perf_counter()
        bl.solve(model, progress=False, **race.options)
        best = min(best, time.perf_counter() - begin)
    print(json.dumps({"task": race.name, "time": best, "threads": torch.get_num_threads()}))


if __name__ == "__main__":
    main()
