"""The pages about the inside name what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bilevelpy"
INSIDE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
ADDING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_every_part_of_the_package_is_in_the_table() -> None:
    rows = re.findall(r"^\| (`[^|]*) \|", INSIDE, re.M)
    named = [n for row in rows for n in re.findall(r"`([\w.]+)`", row)]
    parts = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.name for p in PACKAGE.iterdir() if p.is_dir()
    }
    parts -= {"__init__", "__main__", "__pycache__"}
    assert len(named) == len(set(named))
    assert {n for n in named if "." not in n} == parts


@pytest.mark.parametrize("text", [INSIDE, ADDING], ids=["architecture", "contributing"])
def test_files_that_are_named_exist(text: str) -> None:
    for path in re.findall(r"`((?:bilevelpy|docs|grammar|tests|models)/[\w./]+)`", text):
        if "NAME" not in path and "BLVnnnn" not in path:
            assert (ROOT / path).exists(), path
    for path in re.findall(r"`((?:backends|exporters|dispatcher)/\w+\.py)`", text):
        if "NAME" not in path:
            assert (PACKAGE / path).exists(), path


def test_targets_that_are_named_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)`", INSIDE + ADDING):
        assert re.search(rf"^{target}:", makefile, re.M), target
    listed = re.search(r"^\.PHONY: (.*)$", makefile, re.M)
    assert listed is not None
    assert set(listed[1].split()) == set(re.findall(r"^([a-z-]+):", makefile, re.M))
