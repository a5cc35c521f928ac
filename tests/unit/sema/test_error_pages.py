"""The pages of errors of names, levels, axes and shapes: each shows its own message."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bilevelpy.diagnostics import CATALOG, Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.sema import check

PAGES = Path(__file__).parents[3] / "docs" / "errors"
FRONT = ("BLV02", "BLV03", "BLV053")
CODES = sorted(code for code in CATALOG if code.startswith(FRONT))
PAGE = re.compile(
    r"# (?P<code>BLV\d{4}): (?P<title>[^\n]+)\n\n(?P<what>[^\n]+)\n\n"
    r"## Wrong\n\n```blv\n(?P<wrong>.*?)```\n\n## Message\n\n```text\n(?P<message>.*?)\n```\n\n"
    r"## Right\n\n```blv\n(?P<right>.*?)```\n\n## Why\n\n(?P<why>[^\n]+)\n",
    re.DOTALL,
)


def page(code: str) -> re.Match[str]:
    found = PAGE.fullmatch((PAGES / f"{code}.md").read_text(encoding="utf-8"))
    assert found is not None, "the page does not have the common layout"
    assert found["code"] == code
    return found


@pytest.mark.parametrize("code", CODES)
def test_wrong_example_gives_exactly_its_message(code: str) -> None:
    found = page(code)
    checked = check(Source("model.blv", found["wrong"]))
    shown = [render_full(d, checked.sources) for d in checked.diagnostics]
    assert "\n\n".join(shown) == found["message"]
    assert [d.code for d in checked.diagnostics] == [code]
    assert (checked.program is None) == (CATALOG[code].severity == "error")


@pytest.mark.parametrize("code", CODES)
def test_right_example_is_clean(code: str) -> None:
    checked = check(Source("model.blv", page(code)["right"]))
    assert checked.diagnostics == []
    assert checked.program is not None


def test_every_page_has_a_code() -> None:
    pages = [p.stem for prefix in FRONT for p in PAGES.glob(f"{prefix}*.md")]
    assert sorted(pages) == CODES
    assert sum(c.startswith(("BLV02", "BLV03")) for c in CODES) >= 26
