"""The pages of the syntax errors: each shows its own message and a corrected text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bilevelpy.diagnostics import CATALOG, Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.syntax.parser import parse

PAGES = Path(__file__).parents[3] / "docs" / "errors"
CODES = sorted(code for code in CATALOG if code.startswith("BLV01"))
PAGE = re.compile(
    r"# (?P<code>BLV01\d\d): (?P<title>[^\n]+)\n\n(?P<what>[^\n]+)\n\n"
    r"## Wrong\n\n```blv\n(?P<wrong>.*?)```\n\n## Message\n\n```text\n(?P<message>.*?)\n```\n\n"
    r"## Right\n\n```blv\n(?P<right>.*?)```\n\n## Why\n\n(?P<why>[^\n]+)\n",
    re.DOTALL,
)


def page(code):
    found = PAGE.fullmatch((PAGES / f"{code}.md").read_text(encoding="utf-8"))
    assert found is not None, "the page does not have the common layout"
    return found


@pytest.mark.parametrize("code", CODES)
def test_wrong_example_gives_exactly_its_message(code):
    found = page(code)
    assert found["code"] == code
    source = Source("model.blv", found["wrong"])
    shown = [render_full(d, {source.name: source}) for d in parse(source).diagnostics]
    assert "\n\n".join(shown) == found["message"]
    assert len(shown) == 1
    assert shown[0].startswith(f"error[{code}]")


@pytest.mark.parametrize("code", CODES)
def test_right_example_is_clean_and_complete(code):
    text = page(code)["right"]
    result = parse(Source("model.blv", text))
    assert result.diagnostics == []
    kinds = [type(item).__name__ for item in result.file.items]
    assert kinds[0] == "ModelHeader"
    assert kinds.count("Upper") == 1
    assert kinds.count("Lower") >= 1


def test_no_page_without_a_code():
    assert sorted(path.stem for path in PAGES.glob("BLV01*.md")) == CODES
