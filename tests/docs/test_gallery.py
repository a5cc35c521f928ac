"""The gallery: written by its command, from the models."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.exporters.latex.model import latex
from bilevelpy.sema import check

ROOT = Path(__file__).parents[2]
GALLERY = ROOT / "docs" / "gallery"
PAGES = [p for p in sorted(GALLERY.glob("*.md")) if p.stem != "index"]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location("make_gallery", ROOT / "docs" / "make_gallery.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "GALLERY", tmp_path)
    return module


def test_a_page_is_written_and_stays_current(make: Any, tmp_path: Path) -> None:
    (tmp_path / "gone.md").write_text("a page of a model that is gone")
    assert make.main(["box_kink"]) == 0
    assert not (tmp_path / "gone.md").exists()
    page = (tmp_path / "box_kink.md").read_text()
    path = ROOT / "models" / "box_kink.blv"
    assert path.read_text().strip() in page
    for words in ("# Optimum at a kink", "```math", "`converged`", "| x | 1 |", "**local**",
                  "$ bilevelpy solve models/box_kink.blv", "![the upper objective"):  # fmt: skip
        assert words in page, words
    assert (tmp_path / "box_kink.png").stat().st_size > 2000
    assert make.is_current(tmp_path / "box_kink.md", path)
    assert "[Optimum at a kink of the response](box_kink.md)" in (tmp_path / "index.md").read_text()


def test_no_page_is_stale_and_no_model_without_one(make: Any) -> None:
    """`make gallery` mends both."""
    models = {p.stem: p for p in ROOT.glob("models/**/*.blv") if "data" not in p.parts}
    stale = [n for n, p in models.items() if not make.is_current(GALLERY / f"{n}.md", p)]
    assert stale == [], "run `make gallery` (hyper_cleaning needs --slow)"
    assert len(models) == len(list(ROOT.glob("models/**/*.blv")))  # no two of one name
    assert {p.stem for p in PAGES} == set(models)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_has_its_parts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for part in ("# ", "## Model", "```math", "```blv", "## Answer", "## Decision",
                 "## Certificate", "## Run it", "```console", "!["):  # fmt: skip
        assert part in text, part
    (path,) = ROOT.glob(f"models/**/{page.stem}.blv")
    source = path.read_text(encoding="utf-8")
    assert source.strip() in text
    program = check(Source(str(path), source)).program
    assert program is not None
    assert latex(program) in text, "its formulas are written in another way now"
    for line in re.findall(r"^\$ (.*)$", text, re.M):
        program, subject, *_ = line.split()
        assert program in ("bilevelpy", "python"), line
        if program == "python":
            assert (ROOT / subject).is_file(), line
        else:
            assert subject in ("solve", "explain", "report", "check"), line


def test_a_model_that_waits_for_data_has_a_page_too(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "ROOT", tmp_path)
    path = tmp_path / "fit.blv"
    path.write_text(
        "## A fit.\nmodel fit;\ndim n;\nparam a[n], b = 1;\n"
        "upper { var x; minimize y^2; }\nlower low { var y; minimize sum((y - a)^2) + b * x; }\n"
    )
    page = make.write(path, {})
    assert "It needs `a`:" in page
    assert "$ bilevelpy check fit.blv" in page
    assert "## Answer" not in page


def test_text_of_models_is_no_markup(make: Any) -> None:
    assert make.plain("a*b_c <x> $5 `a_b`") == r"a\*b\_c \<x> \$5 `a_b`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_page_belongs_to_a_model(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<!-- written by docs/make_gallery.py" in text
    assert list(ROOT.glob(f"models/**/{page.stem}.blv"))
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (GALLERY / picture).exists()
    for command in re.findall(r"^\$ bilevelpy \w+ (\S+)", text, re.M):
        assert (ROOT / command).exists()
