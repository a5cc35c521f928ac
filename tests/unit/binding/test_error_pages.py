"""Every page of a data error: its wrong example gives its message, its right one is clean."""

import json
import re
from pathlib import Path

import pytest

from bilevelpy.diagnostics import CATALOG, Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.errors import DataError
from bilevelpy.sema import check
from bilevelpy.sema.bind import bind

FOLDER = Path(__file__).parents[3] / "docs" / "errors"
CODES = sorted(code for code in CATALOG if code.startswith("BLV04"))
HEADINGS = ["Wrong", "Message", "Right", "Why"]


def parse(text):
    """Headings with their blocks by language."""
    parts = re.split(r"^## (\w+)$", text, flags=re.MULTILINE)
    assert parts[1::2] == HEADINGS
    return {
        heading: dict(re.findall(r"^```(\w+)\n(.*?)\n```$", body, flags=re.MULTILINE | re.DOTALL))
        for heading, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def messages(blocks, name="model.blv"):
    """Everything that is said about an example."""
    result = check(Source(name, blocks["blv"] + "\n"))
    found = list(result.diagnostics)
    if not found:
        try:
            bind(result.program, json.loads(blocks["json"]) if "json" in blocks else None)
        except DataError as error:
            found = error.diagnostics
    return "\n".join(render_full(d, result.sources) for d in found)


@pytest.mark.parametrize("code", CODES)
def test_page(code):
    text = (FOLDER / f"{code}.md").read_text(encoding="utf-8")
    assert text.startswith(f"# {code}: ")
    sections = parse(text)
    assert sections["Message"]["text"].startswith(f"error[{code}]: ")
    if "<!-- not run: " in text:
        return
    assert messages(sections["Wrong"]) == sections["Message"]["text"]
    assert messages(sections["Right"]) == ""


@pytest.mark.parametrize(
    ("code", "files"),
    [
        ("BLV0412", {"costs.csv": "prices\n1\n2\n"}),
        ("BLV0413", {"costs.csv": "price\n1\n2\n"}),
        ("BLV0423", {"demand.csv": "OD,demand\na-b,1\na-c,2\na-b,3\n"}),
    ],
)
def test_pages_that_need_files(code, files, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "costs.csv").write_text("price\n1\n2\n")
    (folder / "linked").symlink_to(tmp_path)
    for name, content in files.items():
        (folder / name).write_text(content)
    sections = parse((FOLDER / f"{code}.md").read_text(encoding="utf-8"))
    path = str(folder / "model.blv")
    found = messages(sections["Wrong"], path).replace(path, "model.blv")
    assert found == sections["Message"]["text"]
    if code != "BLV0423":
        assert messages(sections["Right"], path) == ""
