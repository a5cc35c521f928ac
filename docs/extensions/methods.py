"""Adds to the page of every method what is known by its code: all options with their defaults, and
the convergence of a run (``docs/make_runs.py`` writes picture and numbers).
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

RUNS = Path(__file__).resolve().parents[1] / "runs"


def additions(name: str) -> str:
    """The sections that end the page of the method called ``name``, in Markdown."""
    return "\n\n".join(["", options(name), run(name)]) + "\n"


def options(name: str) -> str:
    """All options of a method, in the order of its class."""
    from bilevelpy.backends import registry

    found = dataclasses.fields(registry.get(name).options)
    rows = [f"| `{f.name}` | `{_written(f.default)}` |" for f in found if f.name != "tol"]
    if not rows:
        return "## All options\n\nNone beside those of [every solve](../cli.md)."
    return "\n".join(
        [
            "## All options",
            "",
            "As `--option NAME=VALUE`, or `options={...}` in Python.",
            "",
            "| option | default |",
            "| --- | --- |",
            *rows,
        ]
    )


def _written(value: Any) -> str:
    """A default as a command line would give it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def run(name: str) -> str:
    """The picture of a run, with what was solved and how it ended."""
    entry = json.loads((RUNS / "runs.json").read_text(encoding="utf-8"))[name]
    words = (
        f"On {entry['what']}: `{entry['status']}` with F = {entry['F']:.8g} after "
        f"{entry['iterations']:,} iterations"
    )
    if entry["evaluations"]:
        words += f" and {entry['evaluations']:,} evaluations (values, gradients, products)"
    return "\n\n".join(
        [
            "## A run",
            f"{words}. [All runs](../runs.md) side by side.",
            f"![convergence of {name}](../runs/{name}.png)",
        ]
    )


def extend(app: Any, name: str, source: list[str]) -> None:
    """Sphinx has read a page: that of a method gets its sections."""
    folder, _, method = name.rpartition("/")
    if folder == "backends" and method != "index":
        source[0] += additions(method)


def setup(app: Any) -> dict[str, Any]:
    """Listen to pages as they are read."""
    app.connect("source-read", extend)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
