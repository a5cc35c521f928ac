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
# Those that a reader meets in a checkout, too.
EVERYWHERE = [
    *ALL,
    *sorted(ROOT.glob("*.md")),
    *(p for folder in ("models", "editors", "grammar", "benchmarks", "tests")
      for p in sorted((ROOT / folder).rglob("*.md")) if "node_modules" not in p.parts),
]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(DOCS)))
def test_the_blocks_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    run(page, tmp_path, prepare(tmp_path, ROOT / "README.md"))


def test_blocks_that_do_not_run_say_why() -> None:
    reasons = [(p.name, b.said("skip")) for p in PAGES for b in blocks(p) if b.said("skip")]
    assert all(len(str(reason)) > 10 for _, reason in reasons)


def _links(page: Path) -> list[str]:
    """What a page links to: inline, by reference, in angle brackets and in HTML."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"^(`{3,}).*?^\1$|`[^`\n]+`", "", text, flags=re.M | re.S)
    ways = (r"\]\(<?([^)\s>]+)>?[^)]*\)", r"^\[[^]\n]+\]: +(\S+)$", r"<(\w+:[^>\s]+)>",
            r"(?:href|src)=\"([^\"]+)\"")  # fmt: skip
    return [found for way in ways for found in re.findall(way, text, re.M)]


def _named(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", EVERYWHERE, ids=_named)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    for target in _links(page):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / urllib.parse.unquote(path)).resolve() if path else page
        assert file.exists(), target
        assert file.is_relative_to(ROOT), target
        if anchor:
            assert anchor in _anchors(file), target


def _anchors(file: Path) -> set[str]:
    """The headings of a page, those of one text numbered from the second; labels of MyST."""
    text = re.sub(r"^(`{3,}).*?^\1$", "", file.read_text(encoding="utf-8"), flags=re.M | re.S)
    slugs = [_slug(heading) for heading in re.findall(r"^#+ (.*)$", text, re.M)]
    before = [slugs[:k].count(slug) for k, slug in enumerate(slugs)]
    found = {f"{s}-{n}" if n else s for s, n in zip(slugs, before, strict=True)}
    return found | set(re.findall(r"^\(([\w-]+)\)=$", text, re.M))


@pytest.mark.parametrize("page", EVERYWHERE, ids=_named)
def test_links_to_other_places_are_well_formed(page: Path) -> None:
    """`make linkcheck` asks whether they answer; that takes a network."""
    for target in _links(page):
        if "://" in target:
            parts = urllib.parse.urlsplit(target)
            assert parts.scheme == "https", target
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", parts.netloc), target
            assert not re.search(r"[.,;:]$|//", parts.path), target
        else:
            assert not re.match(r"\w+:", target) or target.startswith("mailto:"), target


def test_what_counts_as_a_link_and_as_a_place(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        '# A `b` c\n# A b c\n[in](a.md#x "title") <https://b.org>\n[r]: c.md\n<img src="d.png">\n'
        "(here)=\n```text\n# none\n[no](e.md)\n```\n`[no](f.md)`\n"
    )
    assert _links(page) == ["a.md#x", "c.md", "https://b.org", "d.png"]
    assert _anchors(page) == {"a-b-c", "a-b-c-1", "here"}


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


def test_the_table_of_models_has_them_all_with_their_values() -> None:
    """Sizes are those of the gallery, which is written by solving; optima those of `expect`."""
    row = r"^\| `(\w+)` \| [^|]* \| ([\d,]+) / ([\d,]+) \| (\S+) \|$"
    found = re.findall(row, (DOCS / "models.md").read_text(encoding="utf-8"), re.M)
    paths = {p.stem: p for f in (".", "applications") for p in ROOT.glob(f"models/{f}/*.blv")}
    assert sorted(name for name, *_ in found) == sorted(paths)
    for name, upper, lower, value in found:
        expected = re.search(r"expect upper\.objective == (\S+)", paths[name].read_text())
        assert expected is not None, name
        assert float(value) == pytest.approx(float(expected[1]), rel=1e-6), name
        page = (DOCS / "gallery" / f"{name}.md").read_text(encoding="utf-8")
        size = f"{upper} upper and {lower} lower variables".replace(",", "")
        assert size in page, name


def test_no_two_pages_have_one_title() -> None:
    """Those of the gallery have the titles of their models."""
    pages = [p for p in ALL if p.parent.name != "gallery"]
    heads = [re.search(r"^# (.*)$", p.read_text(encoding="utf-8"), re.M) for p in pages]
    titles = [head[1] for head in heads if head is not None]
    assert len(titles) == len(pages)
    assert sorted(set(titles)) == sorted(titles)


def test_every_page_is_in_the_tree() -> None:
    """Each folder has an index whose pattern takes in all of its pages."""
    for folder in ("backends", "exporters", "errors", "tutorial", "howto", "gallery"):
        assert (DOCS / folder / "index.md").is_file()
    for page in DOCS.rglob("index.md"):
        for tree in re.findall(r"^```\{toctree\}\n(.*?)^```", page.read_text(), re.M | re.S):
            for entry in tree.splitlines():
                if entry and not entry.startswith(":"):
                    assert list(page.parent.glob(f"{entry}.md")), f"{page}: {entry}"
