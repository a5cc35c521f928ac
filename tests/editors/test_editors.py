"""The editor folders: grammars as current as the token tables, and as right as the parser."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bilevelpy.cli.main import main
from bilevelpy.diagnostics import Severity, Source
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


NODE = shutil.which("node")
MODULES = Path(os.environ.get("BILEVELPY_CONSUMERS", ROOT / ".consumers")) / "node_modules"


def need(*packages: str) -> None:
    if NODE is None or not all((MODULES / p).is_dir() for p in packages):
        pytest.skip(f"no Node.js with {', '.join(packages)} (tests/exporters/setup_consumers.sh)")


def test_the_engine_of_vs_code_reads_models_as_the_parser_does() -> None:
    """The same comparison by Oniguruma and vscode-textmate, which VS Code itself uses."""
    need("vscode-textmate", "vscode-oniguruma")
    script = ROOT / "tests/editors/tokenise.js"
    grammar = EDITORS / "vscode/syntaxes/blv.tmLanguage.json"
    assert NODE is not None
    done = subprocess.run(
        [NODE, script, MODULES, grammar, *FILES], capture_output=True, text=True, timeout=120,
        check=True,
    )  # fmt: skip
    rows = json.loads(done.stdout)
    for path in FILES:
        tokens = {t.start_pos: t for t in lex(Source("m", path.read_text())).tokens}
        seen = set()
        for start, piece, scope in rows[str(path)]:
            if scope == "source.blv":
                assert not piece.strip()
            elif not scope.startswith("comment"):
                token = tokens[start]
                assert piece == str(token)
                assert scope.startswith(family(token.type, piece)), (path.name, piece, scope)
                seen.add(start)
        assert seen == set(tokens), path.name


def test_the_packer_of_the_marketplace_takes_the_extension(tmp_path: Path) -> None:
    """What `vsce` refuses, the marketplace does."""
    need("@vscode/vsce")
    folder = tmp_path / "extension"
    shutil.copytree(EDITORS / "vscode", folder)
    shutil.copy(ROOT / "LICENSE", folder)
    package = json.loads((folder / "package.json").read_text())
    (folder / "package.json").write_text(json.dumps(package | {"version": "0.1.0"}))
    assert NODE is not None
    arguments = ["package", "--no-dependencies", "--allow-missing-repository", "-o", "blv.vsix"]
    done = subprocess.run(
        [NODE, MODULES / "@vscode/vsce/vsce", *arguments],
        cwd=folder, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    with zipfile.ZipFile(folder / "blv.vsix") as archive:
        assert "extension/client.js" in archive.namelist()


def test_the_extension_says_what_the_marketplace_asks() -> None:
    package = json.loads((EDITORS / "vscode/package.json").read_text())
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", package["name"])
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]*", package["publisher"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", package["version"])
    assert re.fullmatch(r"\^1\.\d+\.0", package["engines"]["vscode"])
    assert package["license"] == "Apache-2.0"
    language = package["contributes"]["languages"][0]["id"]
    assert package["activationEvents"] == [f"onLanguage:{language}"]
    for part in ("grammars", "snippets", "semanticTokenScopes"):
        assert [entry["language"] for entry in package["contributes"][part]] == [language]
    # Every setting that the client reads is declared, and no other.
    client = (EDITORS / "vscode/client.js").read_text()
    read = set(re.findall(r'settings\.get\("(\w+)"\)', client))
    declared = package["contributes"]["configuration"]["properties"]
    assert {f"bilevelpy.{name}" for name in read} == set(declared)


def test_the_language_configuration_opens_and_indents() -> None:
    found = json.loads((EDITORS / "vscode/language-configuration.json").read_text())
    assert found["comments"]["lineComment"] == "#"
    assert {tuple(pair) for pair in found["brackets"]} == {("{", "}"), ("[", "]"), ("(", ")")}
    word = re.compile(found["wordPattern"])
    assert word.findall("lam[p] + 3*w2_") == ["lam", "p", "w2_"]
    indent = re.compile(found["indentationRules"]["increaseIndentPattern"])
    outdent = re.compile(found["indentationRules"]["decreaseIndentPattern"])
    for line in ("upper {", "lower firm[i in FIRM] {", "  subject to"):
        assert indent.search(line)
    for line in ("  var x;", "}", 'set S = {"a", "b"};'):
        assert not indent.search(line)
    assert outdent.search("}")
    enter = re.compile(found["onEnterRules"][0]["beforeText"])
    assert enter.search("## A doc line")
    assert not enter.search("# a comment")


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


# What stands around a snippet to make it a model; `{}` is the snippet.
AROUND = {
    "Bilevel model": "{}",
    "Family of followers": 'set FIRM = {{"a", "b"}}; upper {{ var x; minimize sum(firm.q); }}\n{}',
    "Constraints": "upper {{ var x in [0, 2]; minimize x + y;\n{}\n}}\n"
    "lower low {{ var y; minimize (y - x)^2; }}",
    "Sum": "set I = 1..3; upper {{ var x[I] in [0, 1]; minimize {}; }}",
    "Expected answer": "upper {{ var x in [0, 1]; minimize x; }}\n{}",
}


def expanded(body: str | list[str]) -> str:
    """A snippet as an editor inserts it, every proposal taken as it is."""
    text = body if isinstance(body, str) else "\n".join(body)
    while "${" in text:
        text = re.sub(r"\$\{\d+:([^${}]*)\}", r"\1", text)
    return re.sub(r"\$\d", "", text)


SNIPPETS = json.loads((EDITORS / "vscode/snippets/blv.json").read_text())


@pytest.mark.parametrize("name", SNIPPETS)
def test_snippets_expand_to_models_without_mistakes(name: str, tmp_path: Path) -> None:
    snippet = SNIPPETS[name]
    assert {"prefix", "body", "description"} == set(snippet)
    text = AROUND[name].format(expanded(snippet["body"]))
    path = tmp_path / "model.blv"
    path.write_text(text)
    found = check(Source("snippet.blv", text)).diagnostics
    assert [d for d in found if d.severity is Severity.ERROR] == []
    assert main(["check", str(path)]) == 0


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
