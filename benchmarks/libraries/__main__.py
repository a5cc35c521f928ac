"""One library on one task, in a process of its own: ``python -m benchmarks.libraries T LIBRARY``.

Prints the true values of the upper points it visits, with their times in a first and a warm run.
"""

from __future__ import annotations

import importlib
import json
import sys
from importlib.metadata import version

import numpy as np

from benchmarks.libraries import DISTRIBUTIONS
from benchmarks.libraries.problem import Problem, Watch, clock, followed

# As many points are judged at most, half of them the first: the lower level is solved exactly at
# each.
JUDGED = 200


def chosen(count: int) -> list[int]:
    """Up to `JUDGED` places: the first ones, then by a constant factor up to the last."""
    early = min(count, JUDGED // 2)
    if early == count:
        return list(range(count))
    later = np.geomspace(early, count - 1, JUDGED - early).round().astype(int)
    return sorted({*range(early), *later.tolist()})


def main() -> None:
    task, library = sys.argv[1:]
    problem = Problem(task)
    module = importlib.import_module(f"benchmarks.libraries.by_{library}")
    began = clock()
    drive = module.drive(problem)
    first = followed(drive, Watch(began=began))
    again = drive if library in ("jaxopt", "optimistix") else module.drive(problem)
    warm = followed(again, Watch())
    judged = chosen(len(warm.points))
    print(
        json.dumps(
            {
                "version": f"{library} {version(DISTRIBUTIONS[library])}",
                "values": [problem.truth.reduced(warm.points[k])[0] for k in judged],
                "times": [warm.times[k] for k in judged],
                "first_times": [first.times[k] for k in judged if k < len(first.times)],
                "points": len(warm.points),
            }
        )
    )


if __name__ == "__main__":
    main()
