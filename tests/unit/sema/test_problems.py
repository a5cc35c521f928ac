"""Every problem of the shared collection, written as a model, checks without an error."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.sema import check

FOLDER = Path(__file__).parents[4] / "shared" / "problems"


def test_collection() -> None:
    if not (FOLDER / "to_blv.py").exists():
        pytest.skip("the problem collection is not beside the checkout")
    spec = importlib.util.spec_from_file_location("to_blv", FOLDER / "to_blv.py")
    assert spec is not None
    assert spec.loader is not None
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    records = json.loads((FOLDER / "bolib_public.json").read_text())
    assert len(records) == 115
    for record in records:
        found = check(Source("<text>", writer.model(record)))
        assert [d.code for d in found.diagnostics if d.severity == "error"] == [], record["name"]
        assert found.program is not None
        assert len(found.program.upper.variables) == record["n_x"]
        assert len(found.program.lowers[0].variables) == record["n_y"]
