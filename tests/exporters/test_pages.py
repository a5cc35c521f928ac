"""The pages of export codes: each message comes from its model, each correction is exported."""

import re
from pathlib import Path

import pytest

import bilevelpy as bl
from bilevelpy.diagnostics import CATALOG, Source
from bilevelpy.model import Given, build

PAGES = Path(__file__).parents[2] / "docs" / "errors"
BIG_M = {"reformulation": "big-m"}
ASKED = {
    "BLV0701": ("lp", {}),
    "BLV0702": ("lp", {}),
    "BLV0703": ("lp", {}),
    "BLV0704": ("lp", {}),
    "BLV0705": ("lp", BIG_M),
    "BLV0706": ("sympy", {}),
    "BLV0707": ("nl", {}),
    "BLV0708": ("lp", {**BIG_M, "dual_bound": 5}),
    "BLV0709": ("mps-aux", {}),
}
PAGE = re.compile(
    r"# (?P<code>BLV\d{4}): [^\n]+\n\n<!-- not run: [^\n]+ -->\n\n[^\n]+\n\n"
    r"## Wrong\n\n```\w+\n(?P<wrong>.*?)```\n\n## Message\n\n```text\n(?P<message>.*?)\n```\n\n"
    r"## Right\n\n```\w+\n(?P<right>.*?)```\n\n## Why\n\n[^\n]+\n",
    re.DOTALL,
)
MPS = "NAME p\nROWS\n N OBJ\n L c1\nCOLUMNS\n    x OBJ 1 c1 1\n    y OBJ -4 c1 1\nRHS\n" + (
    "    RHS c1 3\nBOUNDS\n UP BND x 1\nENDATA\n"
)
AUX = "N 1\nM 1\nLC 1\nLR 0\nLO 1\nOS 1\n"


def parts(code):
    match = PAGE.fullmatch((PAGES / f"{code}.md").read_text(encoding="utf-8"))
    assert match is not None, f"{code}.md is not laid out like the others"
    assert match["code"] == code
    return match["wrong"], match["message"], match["right"]


def test_every_code_has_a_page():
    codes = {code for code in CATALOG if code.startswith("BLV07")}
    assert codes == {*ASKED, "BLV0720", "BLV0721"}


@pytest.mark.parametrize("code", ASKED)
def test_export_pages(code, tmp_path):
    if code == "BLV0707":
        pytest.importorskip("pyomo", reason="needs pyomo (pip install pyomo)")
    wrong, message, right = parts(code)
    to, options = ASKED[code]
    model = build(Source("model.blv", wrong), Given())
    with pytest.raises(bl.ExportError) as caught:
        bl.export(model, to=to, path=tmp_path / "f", options=options)
    assert str(caught.value).rstrip() == message
    assert list(tmp_path.iterdir()) == []
    corrected = build(Source("model.blv", right), Given())
    assert bl.export(corrected, to=to, path=tmp_path / "f", options=options)


@pytest.mark.parametrize("code", ["BLV0720", "BLV0721"])
def test_import_pages(code, tmp_path, monkeypatch):
    pytest.importorskip("highspy", reason="needs HiGHS (pip install highspy)")
    monkeypatch.chdir(tmp_path)
    wrong, message, right = parts(code)
    # The page shows the file that is at fault.
    shown = "model.aux" if "model.aux" in message else "model.mps"
    Path("model.mps").write_text(MPS)
    Path("model.aux").write_text(AUX)
    Path(shown).write_text(wrong)
    with pytest.raises(bl.ModelError) as caught:
        bl.read("model.mps")
    assert str(caught.value).rstrip() == message
    Path(shown).write_text(right)
    assert bl.read("model.mps").program.lowers
