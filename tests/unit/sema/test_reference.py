"""The models in the language's reference check clean."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.sema import check

PAGE = Path(__file__).parents[3] / "docs" / "language" / "reference.md"
MODELS = re.findall(r"```blv\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.parametrize("text", MODELS, ids=range(len(MODELS)))
def test_example(text: str) -> None:
    assert check(Source("model.blv", text)).diagnostics == []
