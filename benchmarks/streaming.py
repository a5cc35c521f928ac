"""A model on data that stays on disk: ``python -m benchmarks.streaming --gigabytes 2``.

Writes generated data of that size as .npy files, solves a model with five penalties by name and
path alone in a process of its own, and prints passes, time and the largest memory of that process.
``--loss`` is "squares", which two passes turn into sufficient statistics, or "logistic";
``--backend`` takes any backend; ``--keep`` leaves the files where they are.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.measure import ROOT

FEATURES = 50
MODEL = """\
## One penalty per group of features, chosen on validation rows; all data stays in files.
model streamed "Penalties on data larger than memory";
dim n, m, p = 50, g = 5;
param X[n, p], y[n], Xv[m, p], yv[m], G[g, p];
upper {
  var lam[g] in [-12, 6] start -2;
  minimize mean(LOSS_ABOVE) + 1e-3 * sumsq(lam);
}
lower fit {
  var w[p];
  minimize mean(LOSS_BELOW) + sum(exp(lam @ G) * w^2);
}
"""
LOSSES = {
    "squares": ("(Xv @ w - yv)^2", "(X @ w - y)^2"),
    "logistic": ("softplus(-yv * (Xv @ w))", "softplus(-y * (X @ w))"),
}
SOLVE = """\
import json, sys, time
import bilevelpy as bl
from benchmarks.measure import peak_megabytes
folder, options = sys.argv[1], json.loads(sys.argv[2])
began = time.perf_counter()
names = ("X", "y", "Xv", "yv", "G")
model = bl.load(f"{folder}/model.blv", data=[f"{folder}/{n}.npy" for n in names])
loaded = time.perf_counter()
result = bl.solve(model, **options)
print(json.dumps({"backend": result.backend, "status": str(result.status), "F": result.F,
    "message": result.message, "counts": dict(result.counts), "iterations": result.iterations,
    "lam": result["lam"].tolist(), "load": loaded - began, "time": dict(result.time),
    "kind": result.certificate.kind if result.certificate else "none",
    "peak_gb": peak_megabytes() / 1e3}))
"""


def write(folder: Path, gigabytes: float, dtype: str, loss: str) -> None:
    """Rows of correlated features, their responses (or the signs of them), and a fifth of them for
    validation.
    """
    rng = np.random.default_rng(0)
    item = np.dtype(dtype).itemsize
    rows = int(gigabytes * 1e9 / 1.2 / (FEATURES * item))
    truth = rng.normal(size=FEATURES) * (rng.random(FEATURES) < 0.5)
    mix = np.eye(FEATURES) + 0.2 * rng.normal(size=(FEATURES, FEATURES)) / np.sqrt(FEATURES)
    for inputs, outputs, count in (("X", "y", rows), ("Xv", "yv", rows // 5)):
        X = np.lib.format.open_memmap(
            folder / f"{inputs}.npy", mode="w+", dtype=dtype, shape=(count, FEATURES)
        )
        y = np.lib.format.open_memmap(
            folder / f"{outputs}.npy", mode="w+", dtype=dtype, shape=(count,)
        )
        for low in range(0, count, 100_000):
            high = min(low + 100_000, count)
            block = rng.normal(size=(high - low, FEATURES)) @ mix
            X[low:high] = block
            response = block @ truth + 3.0 * rng.normal(size=high - low)
            y[low:high] = np.sign(response) if loss == "logistic" else response
        X.flush()
        y.flush()
    np.save(folder / "G.npy", np.kron(np.eye(5), np.ones(FEATURES // 5)))
    above, below = LOSSES[loss]
    text = MODEL.replace("LOSS_ABOVE", above).replace("LOSS_BELOW", below)
    (folder / "model.blv").write_text(text, encoding="utf-8")


def measured(folder: Path, memory: float, options: dict[str, object]) -> dict[str, object]:
    """The solve in a process of its own."""
    environment = {**os.environ, "BILEVELPY_MEMORY": str(memory)}
    done = subprocess.run(
        [sys.executable, "-c", SOLVE, str(folder.resolve()), json.dumps(options)],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, object] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--memory", type=float, default=0.25, help="BILEVELPY_MEMORY of the solve")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    parser.add_argument("--loss", default="squares", choices=tuple(LOSSES))
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--tol", type=float, default=1e-6)
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "model.blv").exists():
            write(folder, given.gigabytes, given.dtype, given.loss)
        found = measured(folder, given.memory, {"backend": given.backend, "tol": given.tol})
        print(json.dumps(found, indent=1))
        if given.folder and not given.keep:
            for name in ("X", "y", "Xv", "yv", "G"):
                (folder / f"{name}.npy").unlink()
            (folder / "model.blv").unlink()


if __name__ == "__main__":
    main()
