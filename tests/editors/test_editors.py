"""The editor folders: grammars as current as the token tables, and as right as the parser."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.sema import check
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.parser import lex

ROOT = Path(__file__).parents[2]
EDITORS = ROOT / "editors"
FILES = sorted([*ROOT.glob("models/**/*.blv"), *ROOT.glob("bilevelpy/stdlib/*.blv")])


@pytest.fixture(scope="module")
def build() -> Any:
    spec = importlib.util.spec_from_file_location("editors_build", EDITORS / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_grammars_are_current(build: Any) -> None:
    assert build.main(["--check"]) == 0


def scopes(line: str, patterns: list[tuple[str, re.Pattern[str]]]) -> list[tuple[int, str, str]]:
    """A line as TextMate reads it: the earliest match wins, among equals the first pattern."""
    found, position = [], 0
    while position < len(line):
        best = None
        for name, pattern in patterns:
            match = pattern.search(line, position)
            if (
                match
                and match.end() > match.start()
                and (best is None or match.start() < best[1].start())
            ):
                best = (name, match)
        if best is None:
            break
        found.append((best[1].start(), best[1].group(), best[0]))
        position = best[1].end()
    return found


def family(kind: str, text: str) -> tuple[str, ...]:
    if kind in table.KEYWORD_TYPES:
        return ("keyword.control", "keyword.other", "constant.language")
    if kind in ("REL", "CMP") or text in table.OPERATORS:
        return ("keyword.operator",)
    if kind == "NAME":
        return ("variable", "support", "constant.language")
    return {"NUMBER": ("constant.numeric",), "STRING": ("string",)}.get(kind, ("punctuation",))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_textmate_grammar_reads_models_as_the_parser_does(path: Path) -> None:
    grammar = json.loads((EDITORS / "vscode/syntaxes/blv.tmLanguage.json").read_text())
    patterns = [(p["name"], re.compile(p["match"])) for p in grammar["patterns"]]
    text = path.read_text()
    tokens = {t.start_pos: t for t in lex(Source("m", text)).tokens}
    offset = 0
    seen = set()
    for line in text.splitlines(keepends=True):
        for start, piece, scope in scopes(line.rstrip("\n"), patterns):
            if scope.startswith("comment"):
                assert offset + start not in tokens
                continue
            token = tokens[offset + start]
            assert piece == str(token)
            assert scope.startswith(family(token.type, piece)), (piece, scope)
            seen.add(token.start_pos)
        offset += len(line)
    assert seen == set(tokens)


def test_the_extension_packs_into_a_vsix(build: Any, tmp_path: Path) -> None:
    target = tmp_path / "blv.vsix"
    assert build.main(["--vsix", str(target)]) == 0
    with zipfile.ZipFile(target) as archive:
        names = set(archive.namelist())
        manifest = archive.read("extension.vsixmanifest").decode()
        package = json.loads(archive.read("extension/package.json"))
        ElementTree.fromstring(archive.read("[Content_Types].xml"))
    assets = re.findall(r'<Asset [^>]*Path="([^"]+)"', manifest)
    ElementTree.fromstring(manifest)
    assert set(assets) <= names
    contributed = package["contributes"]
    for path in (
        package["main"],
        contributed["languages"][0]["configuration"],
        contributed["grammars"][0]["path"],
        contributed["snippets"][0]["path"],
    ):
        assert f"extension/{path.removeprefix('./')}" in names
    from bilevelpy import __version__

    assert package["version"] == __version__


NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="no Node.js on this machine")
def test_the_client_of_the_extension_talks_to_the_server(tmp_path: Path) -> None:
    """The client runs in Node with a stand-in for the editor, the server is the real one."""
    pytest.importorskip("pygls", reason="the language server needs the extra `lsp`")
    program = Path(sys.executable).parent / "bilevelpy"
    if not program.exists():
        pytest.skip("the package is not installed in this environment")
    (tmp_path / "model.blv").write_text(
        "model toy;\nupper {\n  var x in [0, 1];\n  minimize x + y;\n}\n"
        "lower low {\n  var y;\n  minimize (y - x)^2 + yy;\n}\n"
    )
    assert NODE is not None
    arguments = [NODE, EDITORS.parent / "tests/editors/drive.js", EDITORS / "vscode", program]
    done = subprocess.run(
        [*arguments, tmp_path], capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["diagnostics"] == [["BLV0201", 0, 7]]
    assert found["fixes"] == [["replace `yy` with `y`", "y"]]
    assert "a variable of `upper`" in found["hover"]
    assert found["definition"] == 2
    assert (found["references"], found["rename"]) == (3, 3)
    assert found["symbols"] == ["upper", "low"]
    assert found["completion"] > 0
    assert found["tokens"] == 0


def test_the_snippet_of_a_model_is_a_model() -> None:
    snippets = json.loads((EDITORS / "vscode/snippets/blv.json").read_text())
    text = "\n".join(snippets["Bilevel model"]["body"]).replace("$0", "")
    while "${" in text:
        text = re.sub(r"\$\{\d+:([^${}]*)\}", r"\1", text)
    assert check(Source("snippet.blv", text)).diagnostics == []


def test_the_vim_syntax_has_every_keyword() -> None:
    text = (EDITORS / "vim/syntax/blv.vim").read_text()
    for word in table.KEYWORDS:
        assert re.search(rf"\b{word}\b", text) or word == "subject to"


DUMP = """
set nocompatible
set runtimepath^={vim}
filetype plugin on
syntax on
let out = []
for file in {files}
  execute 'edit ' . fnameescape(file)
  call add(out, &filetype)
  for l in range(1, line('$'))
    let row = []
    for c in range(1, len(getline(l)))
      call add(row, synIDattr(synID(l, c, 1), 'name'))
    endfor
    call add(out, join(row, ','))
  endfor
endfor
call writefile(out, '{out}')
quitall!
"""
GROUPS = {"NUMBER": {"blvNumber"}, "STRING": {"blvString"}}
WORDS = {"blvStatement", "blvClause", "blvConstant", "blvType", "blvFact"}


def test_vim_itself_colours_models_as_the_parser_reads_them(tmp_path: Path) -> None:
    """Every keyword, number, text and comment of three models, by the groups that Vim gives."""
    vim = shutil.which("vim")
    if (
        vim is None
        or "+syntax"
        not in subprocess.run([vim, "--version"], capture_output=True, text=True, check=True).stdout
    ):
        pytest.skip("no vim with +syntax on this machine")
    files = [
        ROOT / "models" / f"{name}.blv"
        for name in ("breast_cancer", "principal_agent", "stackelberg")
    ]
    script = tmp_path / "dump.vim"
    listed = "[" + ", ".join(f"'{f}'" for f in files) + "]"
    script.write_text(DUMP.format(vim=EDITORS / "vim", files=listed, out=tmp_path / "out"))
    subprocess.run(
        [vim, "-N", "-u", "NONE", "-n", "-es", "-S", str(script)], check=False, timeout=60
    )
    rows = iter((tmp_path / "out").read_text().splitlines())
    for path in files:
        assert next(rows) == "blv"
        text = path.read_text()
        groups = {}
        start = 0
        for line in text.splitlines(keepends=True):
            named = next(rows).split(",")
            at = 0
            for k, character in enumerate(line.rstrip("\n")):
                groups[start + k] = named[at]
                at += len(character.encode())  # Vim counts bytes
            start += len(line)
        for token in lex(Source("m", text)).tokens:
            found = groups[token.start_pos]
            if token.type in GROUPS:
                assert found in GROUPS[token.type], (path.name, str(token))
            elif token.type in table.KEYWORD_TYPES:
                assert found in WORDS, (path.name, str(token))
        for comment in re.finditer(r"(?m)^##.*$", text):
            assert groups[comment.start()] == "blvDoc"
