"""Every command that a page shows runs, or stands in ``NOT_RUN`` with its reason."""

from __future__ import annotations

import fnmatch
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

from bilevelpy.cli.main import app
from tests.docs.blocks import blocks, lines, prepare
from tests.docs.commands import NOT_RUN, OTHERS, ROOT, SHORTER, check_names, reason, run_other

DOCS = ROOT / "docs"
PAGES = [
    *ROOT.glob("*.md"),
    *(p for p in sorted(DOCS.rglob("*.md")) if "_build" not in p.parts),
    *(p for folder in ("models", "editors", "grammar", "benchmarks")
      for p in sorted((ROOT / folder).rglob("*.md")) if "node_modules" not in p.parts),
]  # fmt: skip


def _shown() -> dict[str, Path]:
    """Commands and one page that shows each, without those that the tests of the pages run."""
    found: dict[str, Path] = {}
    for page in PAGES:
        # README and docs run their lines of `bilevelpy` page by page: they build on each other.
        by_page = page.parent != DOCS / "gallery" and (DOCS in page.parents or page.parent == ROOT)
        for block in blocks(page):
            for command, _ in lines(block) if block.said("skip") is None else ():
                if not (by_page and block.language == "console" and command.startswith("bilevel")):
                    found.setdefault(command, page)
    return found


SHOWN = _shown()
# `program argument ...` in the middle of a sentence; braces and capitals stand for what a user has.
_MENTION = re.compile(r"`((?:bilevelpy|make|pip|python|" + "|".join(OTHERS) + r") [^`\n]+)`")
MENTIONED = {
    (page.name, found): page
    for page in PAGES
    if page.parent.name != "errors" and page.name != "CHANGELOG.md"
    for found in _MENTION.findall(page.read_text(encoding="utf-8"))
}


@pytest.mark.parametrize("command", SHOWN, ids=str)
def test_a_command_runs(
    command: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    # Pictures of reports, each of whose points solves the lower level, have fewer of them.
    drawing = importlib.import_module("bilevelpy.pictures.draw")
    monkeypatch.setattr(drawing, "POINTS", 41)
    monkeypatch.setattr(drawing, "GRID", 9)
    prepare(tmp_path, ROOT / "README.md")
    run_other(command, tmp_path)


def test_what_is_not_run_has_a_reason_and_a_page() -> None:
    """The whole list; an entry that no page needs any more has to go."""
    for pattern, why in NOT_RUN.items():
        found = [c for c in SHOWN if fnmatch.fnmatch(c, pattern)]
        print(f"{pattern}: {why} ({len(found)})")
        assert found, pattern
        assert len(why) > 10, pattern
    assert sum(reason(c) is not None for c in SHOWN) <= 1
    for pattern in SHORTER:
        plain = [c.removeprefix(".venv/bin/") for c in SHOWN]
        assert any(fnmatch.fnmatch(c, pattern) for c in plain), pattern


@pytest.mark.parametrize("mention", MENTIONED, ids=lambda m: f"{m[0]}: {m[1]}")
def test_a_command_in_a_sentence_exists(mention: tuple[str, str]) -> None:
    program, *arguments = shlex.split(re.sub(r"\[([A-Z][^]]*|--[^]]*)\]", r" \1 ", mention[1]))
    if program != "bilevelpy":
        check_names(shlex.join([program, *(a for a in arguments if a.strip("."))]))
        return
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    if arguments[0].startswith("--"):
        assert arguments[0] in ("--help", "--version", "--install-completion")
        return
    assert arguments[0] in commands
    known = {o for p in commands[arguments[0]].params for o in p.opts} | {"--help"}
    assert {a for a in arguments if a.startswith("--")} <= known
