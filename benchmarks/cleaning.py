"""Hyper-cleaning of MNIST digits: time, memory, test accuracy, F1 of the wrong labels found."""

from __future__ import annotations

import json
from collections.abc import Iterator

from benchmarks.measure import MODELS, Row, in_subprocess, peak_megabytes, seconds


def run() -> Iterator[Row]:
    found = in_subprocess("benchmarks.cleaning")
    note = f"{found['status']}, {found['backend']}, {found['iterations']} iterations"
    yield Row("hyper-cleaning: time", seconds(found["time"]), "", None, "120 s", note)
    yield Row("hyper-cleaning: peak memory", f"{found['peak']:,.0f} MB", "", None, "2,000 MB")
    yield Row(
        "hyper-cleaning: test accuracy",
        f"{found['accuracy']:.4f}",
        "0.8156 uncleaned",
        None,
        "0.89",
    )
    yield Row("hyper-cleaning: F1 of the wrong labels", f"{found['f1']:.4f}", "", None, "0.9")


def main() -> None:
    import time

    import bilevelpy as bl

    begin = time.perf_counter()
    result = bl.solve(MODELS / "hyper_cleaning.blv", time_limit=600)
    print(
        json.dumps(
            {
                "time": time.perf_counter() - begin,
                "peak": peak_megabytes(),
                "status": str(result.status),
                "backend": result.backend,
                "iterations": result.iterations,
                "accuracy": float(result.reports["test_accuracy"]),
                "f1": float(result.reports["f1"]),
            }
        )
    )


if __name__ == "__main__":
    main()
