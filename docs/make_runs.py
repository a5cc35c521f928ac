"""Write ``docs/runs.md``: a run of every method, with its convergence.

Methods that take it run on one ridge regression; those for constraints, matrices and proofs have a
model each that shows what they are for. Pictures and numbers also end the pages of the methods.
Names of methods as arguments run only these and keep the other numbers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parent))

from make_gallery import ROOT, save, table

if TYPE_CHECKING:
    import bilevelpy as bl

RUNS = ROOT / "docs" / "runs"
TIME_LIMIT, MAX_ITER, TOL = 120.0, 500, 1e-6
# What plain stochastic steps are for: their error falls like one over the square root of the steps.
ROUGH = 1e-3
# The bias of a penalty, or of a series that is cut off, beside their noise.
COARSE = 1e-2
ROWS = 1200


@dataclass(frozen=True)
class Problem:
    """A model, its methods (None: all that no other problem names), and a word about it."""

    what: str
    load: Callable[[], bl.Model]
    methods: tuple[str, ...] | None = None
    tol: float = TOL
    options: dict[str, Any] = field(default_factory=dict)


def _model(path: Path, **data: Any) -> bl.Model:
    import bilevelpy as bl

    return bl.load(path, data=data or None)


def _calibration() -> bl.Model:
    """Noisy readings of two instruments, and half as many rows whose truth is known."""
    import numpy as np

    rng = np.random.default_rng(0)
    Z = np.eye(2)[rng.integers(2, size=ROWS)]
    truth, offset = np.array([1.0, -2.0, 0.5, 1.5]), np.array([1.0, -2.0])
    X = rng.normal(size=(ROWS, 4)) + 0.7 * Z @ rng.normal(size=(2, 4))
    Xv = rng.normal(size=(ROWS // 2, 4))
    y = X @ truth + Z @ offset + 0.1 * rng.normal(size=ROWS)
    yv = Xv @ truth + 0.1 * rng.normal(size=ROWS // 2)
    return _model(RUNS / "calibration.blv", X=X, Z=Z, y=y, Xv=Xv, yv=yv)


PROBLEMS = (
    Problem(
        "`models/diabetes_ridge.blv`, a ridge regression with ten penalties (optimum 0.4688635)",
        lambda: _model(ROOT / "models" / "diabetes_ridge.blv"),
    ),
    Problem(
        "`models/diabetes_ridge.blv` in batches of half of its rows (`batch=110`, "
        f"`upper_batch=110`, `decay=0.5`), to tol {COARSE:g}",
        lambda: _model(ROOT / "models" / "diabetes_ridge.blv"),
        ("stocbio", "f2sa"),
        COARSE,
        {"batch": 110, "upper_batch": 110, "decay": 0.5},
    ),
    Problem(
        "`models/ridge_small.blv`, a ridge regression with one penalty (optimum 0.08389643); for "
        "methods that pay for every variable, or take more lower steps the nearer they come",
        lambda: _model(ROOT / "models" / "ridge_small.blv"),
        ("pzobo", "bda"),
    ),
    Problem(
        f"`docs/runs/calibration.blv`, offsets of two instruments from {ROWS} readings (optimum "
        f"0.009980158); steps on single batches, to tol {ROUGH:g}",
        _calibration,
        ("soba", "ma_soba", "fsla", "amigo_sgd", "nsbo", "fdehbo", "pzobo_s"),
        ROUGH,
    ),
    Problem(
        "`docs/runs/allocation.blv`, four products on three machines, a quadratic follower with "
        "rows (optimum 0.8073970)",
        lambda: _model(RUNS / "allocation.blv"),
        ("kkt", "gaffa", "blocc", "lvhba"),
    ),
    Problem(
        "`docs/runs/correlation.blv`, the nearest correlation matrix of order four",
        lambda: _model(RUNS / "correlation.blv"),
        ("conic",),
    ),
    Problem(
        "`docs/runs/prices.blv`, six prices, each with several good places; every better point",
        lambda: _model(RUNS / "prices.blv"),
        ("exact",),
    ),
    Problem(
        "`docs/runs/allocation.blv` by the reduced form (`form=reduced`); every better point",
        lambda: _model(RUNS / "allocation.blv"),
        ("nlp",),
        options={"form": "reduced"},
    ),
)


def main(arguments: Sequence[str] = ()) -> int:
    """Solve with every backend (or those named) and write the page."""
    from bilevelpy.backends import registry

    special = {name for problem in PROBLEMS for name in problem.methods or ()}
    for problem in PROBLEMS:
        names = problem.methods or [n for n in registry.names() if n not in special]
        chosen = [n for n in names if not arguments or n in arguments]
        if chosen:
            model = problem.load()
            for name in chosen:
                # Written at once: a run of all methods takes minutes.
                entry = _run(model, name, problem)
                _write({**_kept(), name: entry})
    known = _kept()
    kept = {name: known[name] for name in registry.names()}
    _write(kept)
    for picture in RUNS.glob("*.png"):
        if picture.stem not in kept:
            picture.unlink()
    (ROOT / "docs" / "runs.md").write_text(page(kept), encoding="utf-8")
    return 0


def _kept() -> dict[str, dict[str, Any]]:
    """The numbers of the last run of every method."""
    path = RUNS / "runs.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _write(runs: dict[str, dict[str, Any]]) -> None:
    (RUNS / "runs.json").write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")


def _run(model: bl.Model, name: str, problem: Problem) -> dict[str, Any]:
    """One run; its picture is written, its numbers are returned."""
    import bilevelpy as bl
    from bilevelpy.plotting import convergence

    print(name, file=sys.stderr, flush=True)
    seen: list[bl.Record] = []
    r = bl.solve(
        model, backend=name, time_limit=TIME_LIMIT, max_iter=MAX_ITER, tol=problem.tol,
        options=problem.options,
        callback=lambda record: seen.append(record) or False,
    )  # fmt: skip
    history = r.history if len(r.history) >= len(seen) else [*seen, r.history[-1]]
    if not sum(r.counts.values()):
        history = [*_better(history[:-1], r.F), history[-1]]
    save(convergence({name: history}, title=f"{r.model}: {r.status}"), RUNS / f"{name}.png")
    return {
        "what": problem.what, "status": str(r.status), "F": r.F, "iterations": r.iterations,
        "evaluations": sum(r.counts.values()),
    }  # fmt: skip


def _better(seen: Sequence[bl.Record], last: float) -> list[bl.Record]:
    """Methods that take the program as a whole tell the points of all their searches: those that
    are nearer to the answer than all before.
    """
    found: list[bl.Record] = []
    for record in seen:
        if not found or abs(record.F - last) < abs(found[-1].F - last):
            found.append(record)
    return found


def page(runs: dict[str, dict[str, Any]]) -> str:
    """The page: a table and pictures for each problem."""
    from bilevelpy.exporters.latex.model import latex

    parts = [
        "# Runs of the methods",
        "<!-- written by docs/make_runs.py -->",
        f"Every method with its own defaults and tol {TOL:g} where nothing else is said, at most "
        f"{MAX_ITER} iterations and {TIME_LIMIT:g} seconds. Evaluations count values, gradients "
        "and products alike; methods that take the program as a whole (`exact`, `nlp`) count "
        "none. Methods that are made for merely convex or huge lower levels are shown on a small "
        "problem, where they have no "
        "advantage. `python docs/make_runs.py` writes this page.",
    ]  # fmt: skip
    for problem in PROBLEMS:
        chosen = {n: r for n, r in runs.items() if r["what"] == problem.what}
        title = problem.what[0].upper() + problem.what[1:]
        rows = [
            (f"[{n}](backends/{n}.md)", r["status"], f"{r['F']:.8g}", f"{r['iterations']:,}",
             f"{r['evaluations']:,}" if r["evaluations"] else "-")
            for n, r in sorted(chosen.items(), key=lambda item: _rank(item[1]))
        ]  # fmt: skip
        formulas = latex(problem.load().program)
        head = table(("method", "status", "F", "iterations", "evaluations"), [])
        lines = [f"| {' | '.join(row)} |" for row in rows]
        parts += [f"## {title}", f"```math\n{formulas}\n```", "\n".join([head, *lines])]
        parts += [f"### `{n}`\n\n![convergence of {n}](runs/{n}.png)" for n in chosen]
    return "\n\n".join(parts) + "\n"


def _rank(r: dict[str, Any]) -> tuple[bool, float]:
    return (r["status"] != "converged", r["evaluations"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
