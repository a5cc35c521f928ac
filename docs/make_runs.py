"""Write ``docs/runs.md``: a run of every method that takes one model, with its convergence."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from make_gallery import ROOT, save, table

MODEL = ROOT / "models" / "diabetes_ridge.blv"
PICTURES = ROOT / "docs" / "runs"
TIME_LIMIT, MAX_ITER = 120.0, 500


def main() -> int:
    """Solve with every backend and write the page."""
    import bilevelpy as bl
    from bilevelpy.backends import registry
    from bilevelpy.exporters.latex import latex

    model = bl.load(MODEL)
    PICTURES.mkdir(exist_ok=True)
    structure = bl.analyze(model)
    answers = {name: registry.get(name).accepts(structure) for name in registry.names()}
    accepted = [name for name, answer in answers.items() if answer]
    comparison = bl.compare(
        model, backends=accepted, time_limit=TIME_LIMIT, max_iter=MAX_ITER, tol=1e-6
    )
    rows, sections = [], []
    for name, r in sorted(comparison.results.items(), key=lambda item: _rank(item[1])):
        evaluations = sum(r.counts.values())
        rows.append((name, str(r.status), f"{r.F:.8g}", str(r.iterations), f"{evaluations:,}"))
        if len(r.history) > 1:
            save(r.plot(), PICTURES / f"{name}.png")
            sections.append(_section(name, r))
    refused = [(name, answer.reason) for name, answer in answers.items() if not answer]
    parts = [
        "# Runs of the methods",
        "<!-- written by docs/make_runs.py -->",
        f"Every method that takes `models/{MODEL.name}` (a ridge regression with ten penalties, "
        "optimum 0.4688635), each with its own defaults, as `bilevelpy compare` runs them: tol "
        f"1e-6, at most {MAX_ITER} iterations and two minutes. Evaluations count values, gradients "
        "and products alike. Methods that are made for merely convex or huge lower levels are "
        "shown on the same model, where they have no advantage.",
        f"```math\n{latex(model.program)}\n```",
        table(("method", "status", "F", "iterations", "evaluations"), rows),
        *sections,
    ]
    if refused:
        parts += ["## Not for this model", table(("method", "why not"), refused)]
    text = "\n\n".join(parts) + "\n"
    (ROOT / "docs" / "runs.md").write_text(text, encoding="utf-8")
    return 0


def _rank(r: Any) -> tuple[bool, float]:
    return (not r.success, sum(r.counts.values()))


def _section(name: str, r: Any) -> str:
    page = ROOT / "docs" / "backends" / f"{name}.md"
    title = f"[`{name}`](backends/{name}.md)" if page.exists() else f"`{name}`"
    return f"## {title}\n\n![convergence of {name}](runs/{name}.png)"


if __name__ == "__main__":
    sys.exit(main())
