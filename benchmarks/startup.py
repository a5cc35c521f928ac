"""Wall time of an import and of `bilevelpy check`, next to a bare interpreter, and what a model of
50 lines takes to be loaded and compiled by a process that has done so before.
"""

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


def _long_model(lines: int = 50) -> str:
    """A model of that many lines: data, bounds, constraints above, named terms below."""
    each = (lines - 12) // 3
    return "\n".join(
        [
            "model long;",
            "dim n, p;",
            "param X[n, p], y[n];",
            *(f"param c{k} in [0, 20] = {k + 1};" for k in range(each)),
            "upper {",
            "  var lam[p] in [-10, 10] start 0;",
            "  minimize mean((X @ w - y)^2);",
            "  subject to",
            *(f"    r{k}: sum(exp(lam)) <= c{k} + 50;" for k in range(each)),
            "}",
            "lower fit {",
            "  var w[p];",
            *(f"  let t{k} = c{k} * sum(exp(lam) * w^2);" for k in range(each)),
            f"  minimize mean((X @ w - y)^2) + {' + '.join(f't{k}' for k in range(each))};",
            "}",
            "report largest = max(lam);",
            "report size = sumsq(w);",
        ]
    )


def _loaded() -> tuple[float, float]:
    """Seconds of parsing with data, and of the compiled functions, the best of some."""
    import numpy as np

    import bilevelpy as bl
    from bilevelpy.solving import oracle

    draw = np.random.default_rng(0)
    data = {"X": draw.standard_normal((200, 20)), "y": draw.standard_normal(200)}
    parsed, compiled = [], []
    for k in range(8):
        # Another model each time: what was compiled is shared.
        text = _long_model().replace("50;", f"{50 + k};")
        began = time.process_time()
        model = bl.parse(text, data=data)
        middle = time.process_time()
        made = oracle(model)
        made.value_grad_f(made.x0, made.y0)
        made.value_grad_F(made.x0, made.y0)
        parsed.append(middle - began)
        compiled.append(time.process_time() - middle)
    return min(parsed), min(compiled)


def run() -> Iterator[Row]:
    bare = _best("-c", "pass")
    loaded = _best("-c", "import bilevelpy")
    checked = _best("-m", "bilevelpy", "check", str(MODELS / "breast_cancer.blv"))
    own = loaded - bare
    yield Row("import bilevelpy", seconds(own), seconds(bare), None, "60 ms", "a bare interpreter")
    yield Row(
        "bilevelpy check", seconds(checked), seconds(bare), None, "0.4 s", "a bare interpreter"
    )
    parsed, compiled = _loaded()
    note = f"load {seconds(parsed)}, compile with gradients {seconds(compiled)}"
    yield Row("a model of 50 lines", seconds(parsed + compiled), "", None, "50 ms", note)
