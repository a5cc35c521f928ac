"""The pages of the methods: what a reader looks for is there, the options are those of the code."""

from __future__ import annotations

import dataclasses
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from bilevelpy.backends import registry

DOCS = Path(__file__).parents[2] / "docs"
RUNS = DOCS / "runs"
SHARED = (DOCS / "stochastic.md").read_text(encoding="utf-8")
NAMES = registry.names()


def page(name: str) -> str:
    return (DOCS / "backends" / f"{name}.md").read_text(encoding="utf-8")


def own(name: str) -> list[Any]:
    """The options of a method without those of every solve."""
    return [f for f in dataclasses.fields(registry.get(name).options) if f.name != "tol"]


def said(text: str) -> set[str]:
    """Every word inside of backticks."""
    return {w for code in re.findall(r"`([^`\n]+)`", text) for w in re.findall(r"\w+", code)}


def test_there_is_a_page_for_every_method_and_none_else() -> None:
    found = {p.stem for p in (DOCS / "backends").glob("*.md")} - {"index"}
    assert found == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_its_parts(name: str) -> None:
    text = page(name)
    assert re.match(rf"# `{name}`: \S", text)
    formula = re.search(r"^    \S.*$|^```math", text, re.M) or re.search(r"`[^`]*=[^`]*`", text)
    assert formula, "no formula"
    for part in ("When.", "Options", "Cost"):
        assert re.search(rf"^\*\*{re.escape(part)}", text, re.M), part
    cited = re.search(r"^\*\*References?\.\*\*", text, re.M)
    assert cited or re.search(r"\[[A-Z]\w+ et al\. \d{4}\]", text), "no reference"


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_described_and_no_other(name: str) -> None:
    text = page(name)
    known = {f.name for f in own(name)}
    words = said(text) | (said(SHARED) if "stochastic.md" in text else set())
    assert known <= words, f"not described: {sorted(known - words)}"
    tables = "".join(re.findall(r"^\| option .*\n\| ---.*\n((?:\|.*\n)*)", text, re.M))
    named = {w for cell in re.findall(r"^\| ([^|]*) \|", tables, re.M) for w in said(cell)}
    assert named <= known, f"no option of {name}: {sorted(named - known)}"


@pytest.mark.parametrize("name", NAMES)
def test_written_defaults_are_those_of_the_code(name: str) -> None:
    for field in own(name):
        cell = re.search(rf"^\| `{field.name}` \| ([^|]*) \|", page(name), re.M)
        if cell is None:
            continue
        written = cell[1].strip().strip("`")
        if isinstance(field.default, bool):
            assert written == str(field.default).lower()
        elif isinstance(field.default, int | float):
            assert float(written) == field.default
        else:
            assert written == field.default


def test_every_page_ends_with_all_options_and_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documentation adds to the pages when it is built."""
    monkeypatch.syspath_prepend(str(DOCS))
    from extensions import methods

    for name in NAMES:
        text = methods.additions(name)
        for field in own(name):
            assert f"| `{field.name}` | `" in text
        assert f"![convergence of {name}](../runs/{name}.png)" in text
        assert (RUNS / f"{name}.png").stat().st_size > 1000
    source = ["# page"]
    methods.extend(None, "backends/direct", source)
    assert "## A run" in source[0]
    for other in ("backends/index", "runs"):
        source = ["# page"]
        methods.extend(None, other, source)
        assert source == ["# page"]
    sys.modules.pop("extensions", None)


def test_the_page_of_runs_has_them_all() -> None:
    runs = json.loads((RUNS / "runs.json").read_text(encoding="utf-8"))
    assert list(runs) == list(NAMES)
    text = (DOCS / "runs.md").read_text(encoding="utf-8")
    for name, run in runs.items():
        assert f"| [{name}](backends/{name}.md) | {run['status']} |" in text
        assert f"![convergence of {name}](runs/{name}.png)" in text
