"""The pages of structure and dispatch: each shows its message, its corrected model is clean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bilevelpy.analysis import analyze
from bilevelpy.backends import registry
from bilevelpy.diagnostics import CATALOG, Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.dispatcher import dispatch
from bilevelpy.errors import BackendError, ModelError
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.sema.bind import bind
from bilevelpy.sema.check import check

PAGES = Path(__file__).parents[3] / "docs" / "errors"
CODES = ["BLV0502", "BLV0503", "BLV0504", "BLV0601", "BLV0602"]
ASKED = {"BLV0602": "direct"}
PAGE = re.compile(
    r"# (?P<code>BLV\d{4}): [^\n]+\n\n(?:<!-- not run: [^\n]+ -->\n\n)?[^\n]+\n\n"
    r"## Wrong\n\n```blv\n(?P<wrong>.*?)```\n\n## Message\n\n```text\n(?P<message>.*?)\n```\n\n"
    r"## Right\n\n```blv\n(?P<right>.*?)```\n\n## Why\n\n[^\n]+\n",
    re.DOTALL,
)


def messages(code, text):
    """Everything that checking, analysing and (for 06 codes) choosing among three backends says."""
    result = check(Source("model.blv", text))
    assert result.diagnostics == []
    bound = bind(result.program)
    try:
        found = analyze(bound, lambda: TorchOracle(bound))
    except ModelError as error:
        return [render_full(d, error.sources) for d in error.diagnostics]
    shown = [render_full(w, found.sources) for w in found.warnings]
    if code.startswith("BLV06"):
        backends = [registry.get(name) for name in ("direct", "aid", "qnbo")]
        try:
            dispatch(found, backend=ASKED.get(code, "auto"), backends=backends)
        except BackendError as error:
            shown.append(str(error))
    return shown


@pytest.mark.parametrize("code", CODES)
def test_page(code):
    found = PAGE.fullmatch((PAGES / f"{code}.md").read_text(encoding="utf-8"))
    assert found is not None, "the page does not have the common layout"
    assert found["code"] == code
    assert code in CATALOG
    assert "\n\n".join(messages(code, found["wrong"])) == found["message"]
    assert found["message"].startswith((f"error[{code}]", f"warning[{code}]"))
    assert messages(code, found["right"]) == []
