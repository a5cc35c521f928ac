"""Wall time of an import and of `bilevelpy check`, next to a bare interpreter."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.measure import MODELS, ROOT, Row, seconds


def _best(*arguments: str, repeats: int = 7) -> float:
    best = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, capture_output=True)
        best = min(best, time.perf_counter() - begin)
    return best


def run() -> Iterator[Row]:
    bare = _best("-c", "pass")
    loaded = _best("-c", "import bilevelpy")
    checked = _best("-m", "bilevelpy", "check", str(MODELS / "breast_cancer.blv"))
    own = loaded - bare
    yield Row("import bilevelpy", seconds(own), seconds(bare), None, "60 ms", "a bare interpreter")
    yield Row(
        "bilevelpy check", seconds(checked), seconds(bare), None, "0.4 s", "a bare interpreter"
    )
