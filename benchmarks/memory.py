"""Peak memory of a ridge model of 100,000 x 1,000, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

from benchmarks.measure import Row, in_subprocess, peak_megabytes

MODEL = """
model ridge;
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m];
upper { var lam in [-10, 5] start 0; minimize mean((Xv @ w - yv)^2); }
lower fit { var w[p]; minimize mean((X @ w - y)^2)/2 + exp(lam) * sumsq(w)/2; }
"""


def run() -> Iterator[Row]:
    found = in_subprocess("benchmarks.memory", "100000", "1000")
    data, peak = found["data"], found["peak"]
    yield Row(
        "ridge, 100,000 x 1,000: peak memory",
        f"{peak:,.0f} MB",
        f"{data:,.0f} MB of data",
        peak / data,
        f"{1.5 * data + 500:,.0f} MB",
        f"{found['status']}, {found['backend']}, {found['time']:.1f} s",
    )


def main(rows: int, columns: int) -> None:
    import time

    import numpy as np

    import bilevelpy as bl

    draw = np.random.default_rng(0)
    w = draw.standard_normal(columns)
    X, Xv = draw.standard_normal((rows, columns)), draw.standard_normal((1000, columns))
    data = {"X": X, "Xv": Xv}
    data["y"] = X @ w + 30 * draw.standard_normal(rows)
    data["yv"] = Xv @ w + 30 * draw.standard_normal(len(Xv))
    begin = time.perf_counter()
    result = bl.solve(bl.parse(MODEL, data=data), time_limit=300)
    print(
        json.dumps(
            {
                "data": sum(a.nbytes for a in data.values()) / 1e6,
                "peak": peak_megabytes(),
                "status": str(result.status),
                "backend": result.backend,
                "time": time.perf_counter() - begin,
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
