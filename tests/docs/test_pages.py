"""Every code block and every command of the documentation runs; links lead somewhere."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import pytest

import bilevelpy
from tests.docs.blocks import blocks, prepare, run

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Pages of errors are tests of their own, pages of the gallery are written by a command.
PAGES = [
    p
    for p in sorted(DOCS.rglob("*.md"))
    if p.parent.name not in ("errors", "gallery", "_build") and any(True for _ in blocks(p))
]
ALL = [p for p in sorted(DOCS.rglob("*.md")) if "_build" not in p.parts]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_the_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run(page, tmp_path, prepare(tmp_path, ROOT / "README.md"))


def test_blocks_that_do_not_run_say_why() -> None:
    reasons = [(p.name, b.said("skip")) for p in PAGES for b in blocks(p) if b.said("skip")]
    assert all(len(str(reason)) > 10 for _, reason in reasons)


@pytest.mark.parametrize("page", ALL, ids=lambda p: str(p.relative_to(DOCS)))
def test_links(page: Path) -> None:
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
            assert anchor in {_slug(h) for h in headings}, target


def test_links_to_other_places_are_well_formed() -> None:
    """`make linkcheck` asks whether they answer; that takes a network."""
    pages = [*ALL, *ROOT.glob("*.md"), *ROOT.glob("models/**/*.md")]
    for page in pages:
        for target in re.findall(r"\]\((\w+://[^)\s]*)\)", page.read_text(encoding="utf-8")):
            parts = urllib.parse.urlsplit(target)
            assert parts.scheme == "https", (page.name, target)
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), (page.name, target)
            assert not re.search(r"[.,;:]$|//", parts.path), (page.name, target)


def test_references_are_complete_and_their_numbers_well_formed() -> None:
    """Numbers of arXiv and DOIs by their form: a test has no network to ask whether they exist."""
    entries = (DOCS / "references.bib").read_text(encoding="utf-8").split("\n@")[1:]
    assert len(entries) > 30
    for entry in entries:
        key = entry.partition("{")[2].partition(",")[0]
        for field in ("author", "title", "year"):
            assert re.search(rf"\b{field}\s*=", entry), f"{key}: no {field}"
        for number in re.findall(r"eprint\s*=\s*\{([^}]*)\}", entry):
            assert re.fullmatch(r"\d{4}\.\d{4,5}", number), f"{key}: {number}"
        for number in re.findall(r"doi\s*=\s*\{([^}]*)\}", entry):
            assert re.fullmatch(r"10\.\d{4,9}/\S+", number), f"{key}: {number}"


def _slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    words = re.sub(r"[^\w\- ]", "", heading.strip().lower().replace("`", ""))
    return words.replace(" ", "-")


def test_the_reference_page_is_the_public_interface() -> None:
    page = (DOCS / "reference.md").read_text(encoding="utf-8")
    listed = re.findall(r"^(?:\.\. |```\{)auto\w+(?:::|\}) bilevelpy\.(\w+)$", page, re.M)
    listed += re.findall(r"^\.\. py:\w+:: bilevelpy\.(\w+)", page, re.M)
    assert sorted(listed) == sorted(n for n in bilevelpy.__all__)


def test_every_page_is_in_the_tree() -> None:
    """Each folder has an index whose pattern takes in all of its pages."""
    for folder in ("backends", "exporters", "errors", "tutorial", "howto", "gallery"):
        assert (DOCS / folder / "index.md").is_file()
    for page in DOCS.rglob("index.md"):
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
            for entry in tree.splitlines():
                if entry and not entry.startswith(":"):
                    assert list(page.parent.glob(f"{entry}.md")), f"{page}: {entry}"
