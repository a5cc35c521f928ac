"""The published schema of the JSON form: every export is valid by it, and damaged ones are not."""

import json
from pathlib import Path

import problems
import pytest

import bilevelpy as bl

jsonschema = pytest.importorskip("jsonschema", reason="needs jsonschema (pip install jsonschema)")

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "schema" / "bilevelpy-ir-1.json").read_text())
# Models of experiments get their data from a script.
FOLDERS = (ROOT / "models", ROOT / "models" / "applications")
MODELS = [path for folder in FOLDERS for path in sorted(folder.glob("*.blv"))]
TEXTS = [text for text, *_ in problems.KNOWN.values()]
TEXTS += [problems.INTEGER, problems.PESSIMISTIC, problems.FAMILY, problems.BALL, problems.EXP]
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def document(model, tmp_path):
    bl.export(model, to="json", path=tmp_path / "m.json")
    return json.loads((tmp_path / "m.json").read_text())


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("text", TEXTS, ids=lambda t: t.split()[1])
def test_small_models(text, tmp_path):
    VALIDATOR.validate(document(bl.parse(text), tmp_path))


@pytest.mark.parametrize("path", MODELS, ids=lambda p: p.stem)
def test_the_catalogue(path, tmp_path):
    VALIDATOR.validate(document(bl.load(path), tmp_path))


def test_it_names_every_class_of_nodes():
    from bilevelpy.ir.serial import ATTRIBUTES, FORMAT, VERSION

    named = {d["properties"]["node"]["const"] for d in SCHEMA["$defs"].values()
             if "node" in d.get("properties", {})}  # fmt: skip
    assert named == {kind.__name__ for kind in ATTRIBUTES}
    assert SCHEMA["properties"]["format"]["const"] == FORMAT
    assert SCHEMA["properties"]["version"]["const"] == VERSION


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d.pop("digest"),
        lambda d: d.update(version=2),
        lambda d: d["objects"][0].pop("axes" if "axes" in d["objects"][0] else "kind"),
        lambda d: d["program"]["levels"][0].update(sense="min"),
        lambda d: d["program"].update(more=1),
        lambda d: d.update(arrays="../elsewhere.npz"),
    ],
)
def test_damaged_documents_are_not_valid(damage, tmp_path):
    content = document(bl.parse(problems.P1), tmp_path)
    damage(content)
    assert not VALIDATOR.is_valid(content)
