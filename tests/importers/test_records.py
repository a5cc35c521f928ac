"""Records of problem collections."""

import json
import math
from pathlib import Path

import pytest

import bilevelpy as bl
from bilevelpy.importers.records import text_of

SHARED = Path(__file__).parents[3] / "shared" / "problems"
RECORD = {
    "name": "Bard-88 (QP)",
    "class": "QP-QP",
    "n_x": 1,
    "n_y": 1,
    "upper": {"objective": "(x1 - 5)**2 + (2*y1 + 1)^2", "constraints": ["-x1 <= 0"]},
    "lower": {"objective": "(y1 - 1)^2 - 1.5*x1*y1", "constraints": ["x1 + y1 - 7 <= 0"]},
    "start": {"x": [1.0], "y": [1e-3]},
}


def test_a_record_becomes_a_model():
    text = text_of(RECORD, "records.json")
    assert "model Bard_88__QP" in text
    assert "var x1 start 1;" in text
    assert "minimize (x1 - 5)^2 + (2*y1 + 1)^2;" in text
    assert bl.parse(text).program.upper.constraints[0].name == "u1"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("objective", "x1; }"),
        ("objective", "open(x1)"),
        ("objective", "y2 + 1"),
        ("constraints", ["x1 < 0"]),
        ("constraints", ["x1 <= 0 # <= 1"]),
    ],
)
def test_what_is_no_expression_is_refused(key, value):
    broken = {**RECORD, "upper": {**RECORD["upper"], key: value}}
    with pytest.raises(bl.UsageError, match="upper"):
        text_of(broken, "records.json")


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("n_x", 10**12, "`n_x` is a whole number from 0 to 100,000, found 1000000000000"),
        ("n_x", 1.5, "whole number"),
        ("n_y", -1, "whole number"),
        ("n_y", True, "whole number"),
        ("start", [1.0], "`start` has lists"),
        ("start", {"x": ["a"]}, "a start of x is a finite number"),
        ("start", {"x": [math.inf]}, "a start of x is a finite number"),
        ("start", {"x": [1.0, 2.0]}, "at most 1 numbers"),
        ("start", {"y": 3.0}, "at most 1 numbers"),
    ],
)
def test_counts_and_starts_that_cannot_be(key, value, says):
    with pytest.raises(bl.UsageError, match="problem Bard-88") as caught:
        text_of({**RECORD, key: value}, "records.json")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (None, "`upper` has no `objective`"),
        ({"constraints": []}, "`upper` has no `objective`"),
        ({"objective": "x1", "constraints": None}, "a list of texts, found null"),
        ({"objective": "x1", "constraints": "x1 <= 0"}, "a list of texts, found"),
        ({"objective": ["x1"]}, "the objective of `upper` is a text"),
    ],
)
def test_levels_that_cannot_be(section, says):
    with pytest.raises(bl.UsageError, match="problem Bard-88") as caught:
        text_of({**RECORD, "upper": section}, "records.json")
    assert says in str(caught.value)
    assert "Error" not in str(caught.value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps(RECORD).replace('"n_y": 1', '"n_y": 1, "n_y": 2'))
    with pytest.raises(bl.UsageError, match='it has the key "n_y" twice'):
        bl.read(path)


def test_incomplete_records(tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps({**RECORD, "upper": {}}))
    with pytest.raises(bl.UsageError, match="not a complete record"):
        bl.read(path)
    path.write_text(json.dumps([RECORD, RECORD]))
    with pytest.raises(bl.UsageError, match="name one of them"):
        bl.read(path)
    with pytest.raises(bl.UsageError, match="no problem called"):
        bl.read(path, name="other")


def test_the_public_collection_is_read():
    path = SHARED / "bolib_public.json"
    if not path.is_file():
        pytest.skip("the standard problems (../shared/problems) are not here")
    for record in json.loads(path.read_text()):
        model = bl.parse(text_of(record, "bolib_public.json"))
        counts = [len(level.variables) for level in model.program.levels]
        assert counts == [record["n_x"], record["n_y"]], record["name"]
