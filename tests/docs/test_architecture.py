"""The pages about the inside name what is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bilevelpy"
INSIDE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
FOLDERS = "## Inside the larger packages"
ADDING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def _parts(folder: Path) -> set[str]:
    """Modules and packages of a folder."""
    files = {p.stem for p in folder.glob("*.py")} | {p.name for p in folder.iterdir() if p.is_dir()}
    return files - {"__init__", "__main__", "__pycache__"}


def _named(text: str) -> list[str]:
    """What stands in the first column of tables."""
    rows = re.findall(r"^\| (`[^|]*) \|", text, re.M)
    return [n for row in rows for n in re.findall(r"`([\w.]+)`", row)]


def test_every_part_of_the_package_is_in_the_table() -> None:
    named = _named(INSIDE.split(FOLDERS)[0])
    assert len(named) == len(set(named))
    assert {n for n in named if "." not in n} == _parts(PACKAGE)


@pytest.mark.parametrize("layer", ["backends", "numerics", "lowering", "reductions", "analysis"])
def test_folders_of_the_larger_packages_are_in_their_tables(layer: str) -> None:
    table = INSIDE.split(FOLDERS)[1].split(f"| `{layer}` |")[1].split("\n\n")[0]
    folders = {p.name for p in (PACKAGE / layer).iterdir() if (p / "__init__.py").exists()}
    assert folders <= set(_named(table)) <= _parts(PACKAGE / layer)


def test_guides_in_packages_name_modules_that_exist() -> None:
    for init in PACKAGE.rglob("__init__.py"):
        said = ast.get_docstring(ast.parse(init.read_text("utf-8"))) or ""
        if "\n\n" in said:
            assert set(re.findall(r"``([a-z]\w+)``", said)) - {"assume"} <= _parts(init.parent)


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
