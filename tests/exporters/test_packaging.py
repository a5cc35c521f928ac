"""The wheel has everything in it: it works where no checkout is."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCHEMA = (
    "import json, sys; from importlib import resources; import jsonschema\n"
    "schema = resources.files('bilevelpy') / 'docs_schema' / 'bilevelpy-ir-1.json'\n"
    "jsonschema.validate(json.load(open(sys.argv[1])), json.loads(schema.read_text()))\n"
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A function that runs Python, from elsewhere, with what the wheel holds and nothing else."""
    build = pytest.importorskip("hatchling.build", reason="needs hatchling (pip install hatchling)")
    folder = tmp_path_factory.mktemp("wheel")
    here = Path.cwd()
    os.chdir(ROOT)
    try:
        name = build.build_wheel(str(folder))
    finally:
        os.chdir(here)
    with zipfile.ZipFile(folder / name) as wheel:
        wheel.extractall(folder / "site")
    away = folder / "away"
    away.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1"}

    def run(*arguments):
        done = subprocess.run(
            [sys.executable, *arguments],
            capture_output=True, text=True, timeout=120, cwd=away, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert str(folder / "site") in run("-c", "import bilevelpy; print(bilevelpy.__file__)")
    return run


def test_grammar_and_library(installed):
    # `new` writes a template, `check` reads the grammar.
    installed("-m", "bilevelpy", "new", "first")
    installed("-m", "bilevelpy", "check", "first.blv")
    code = "from importlib import resources as r; print((r.files('bilevelpy') / 'stdlib').is_dir())"
    assert installed("-c", code).strip() == "True"


def test_export_with_the_schema_of_the_wheel(installed):
    pytest.importorskip("jsonschema", reason="needs jsonschema (pip install jsonschema)")
    installed("-m", "bilevelpy", "new", "second", "--template", "market")
    installed("-m", "bilevelpy", "export", "second.blv", "--to", "json", "--out", "second.json")
    installed("-c", SCHEMA, "second.json")
    installed("-m", "bilevelpy", "import", "second.json", "--out", "again.blv")


def test_pages_of_errors(installed):
    assert "BLV0701" in installed("-m", "bilevelpy", "explain", "BLV0701")
    # The command is there with and without its extra.
    assert "language server" in installed("-m", "bilevelpy", "lsp", "--help")
