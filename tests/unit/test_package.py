"""The package as a whole: what an import costs, what is public, what ships with it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import bilevelpy
from bilevelpy.cli.explain import error_page

ROOT = Path(__file__).parents[2]
HEAVY = ("torch", "cvxpy", "sympy", "matplotlib", "scipy", "pandas", "rich")


def loaded_by(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``code``."""
    script = f"{code}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return set(done.stdout.splitlines()[-1].split())


def test_import_loads_no_library() -> None:
    assert not loaded_by("import bilevelpy") & {*HEAVY, "numpy", "lark", "typer"}


def test_check_loads_no_heavy_library(tmp_path: Path) -> None:
    model = tmp_path / "toy.blv"
    model.write_text(
        "upper { var x in [0, 1]; minimize (y - 1)^2; }\nlower a { var y; minimize (y - x)^2; }\n"
    )
    code = f"from bilevelpy.cli.main import main\nassert main(['check', {str(model)!r}]) == 0"
    assert not loaded_by(code) & {*HEAVY, "numpy"}


def test_every_public_name_exists_and_is_documented() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in bilevelpy.__all__:
        assert getattr(bilevelpy, name) is not None
        assert re.search(rf"`{name}\b", page), f"docs/api.md does not mention `{name}`"
    assert set(dir(bilevelpy)) == set(bilevelpy.__all__)


def test_unknown_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'solv'"):
        bilevelpy.solv  # noqa: B018


def test_every_solve_option_is_documented() -> None:
    from bilevelpy.api import SOLVE_OPTIONS

    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    for name in SOLVE_OPTIONS:
        assert re.search(rf"\b{name}\b", page), name


def test_version_is_one_everywhere() -> None:
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"version: {bilevelpy.__version__}" in citation


def test_error_page_of_an_unknown_code() -> None:
    assert error_page("BLV9999") is None


def test_nobody_is_told_to_install_the_other_project() -> None:
    """The name on the package index is another project's."""
    texts = [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        ROOT / "Makefile",
        ROOT / "pyproject.toml",
    ]
    for path in texts:
        assert not re.search(
            r"pip install [^\n]*\bbilevelpy\b", path.read_text(encoding="utf-8")
        ), path
