"""The language server as an editor meets it: a process, driven over its standard streams."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pygls", reason="the language server needs the extra `lsp`")

from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.client import Client

RIDGE = """\
model ridge "Ridge regression";
include "std:losses";
dim n, m, p;
## Training inputs.
param X[n, p], y[n], Xv[m, p], yv[m];
param cap in [0, inf] = 100;
def error(A, b, w) = mean((A @ w - b)^2);
upper {
  var lam[p] in [-10, 10] start 0;
  let total = sum(exp(lam));
  minimize error(Xv, yv, w);
  subject to
    budget: total <= cap;
    each[j in p]: lam[j] <= 9;
}
lower fit {
  var w[p];
  minimize mse(X, y, w) + sum(exp(lam) * w^2);
  subject to
    small: sumsq(w) <= 50;
}
report train = error(X, y, w);
report price = dual(fit.small);
"""
DOCUMENT = types.TextDocumentIdentifier


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("lsp")
    np.savez(folder / "ridge.npz", X=np.zeros((7, 2)), extra=np.zeros(3))
    made = Client(folder)
    yield made
    made.close()
    assert made.log == [], "the server reported errors of its own"


@pytest.fixture(scope="module")
def ridge(client: Client) -> str:
    return client.open("ridge.blv", RIDGE)


def hover(client: Client, uri: str, text: str, word: str, offset: int = 0) -> str:
    params = client.at(types.HoverParams, uri, text, word, offset)
    found = client.ask("text_document_hover", params)
    return found.contents.value if found else ""


def labels(client: Client, uri: str, text: str, word: str) -> dict[str, types.CompletionItem]:
    params = client.at(types.CompletionParams, uri, text, word, len(word))
    return {i.label: i for i in client.ask("text_document_completion", params).items}


def test_a_correct_model_has_no_diagnostics(client: Client, ridge: str) -> None:
    assert client.diagnostics(ridge) == []


def test_mistakes_are_shown_with_code_place_and_fix(client: Client) -> None:
    text = RIDGE.replace("total <= cap", "totle <= cap").replace("exp(lam) * w^2", "exp(lam) * v^2")
    uri = client.open("wrong.blv", text)
    found = client.diagnostics(uri)
    assert [d.code for d in found] == ["BLV0201", "BLV0201"]
    line = text[: text.index("totle")].count("\n")
    assert found[0].range == types.Range(types.Position(line, 12), types.Position(line, 17))
    assert "did you mean `total`?" in found[0].message
    assert found[0].related_information
    asked = types.CodeActionParams(DOCUMENT(uri), found[0].range, types.CodeActionContext([]))
    (action,) = client.ask("text_document_code_action", asked)
    assert action.title == "replace `totle` with `total`"
    (edit,) = action.edit.changes[uri]
    assert (edit.range, edit.new_text) == (found[0].range, "total")


def test_diagnostics_follow_the_text(client: Client) -> None:
    uri = client.open("follow.blv", RIDGE)
    assert client.diagnostics(uri) == []
    client.change(uri, RIDGE.replace("minimize error(Xv, yv, w);", "minimize error(Xv, yv, w)"))
    (found,) = client.diagnostics(uri)
    assert found.code == "BLV0101"
    client.change(uri, RIDGE)
    assert client.diagnostics(uri) == []


@pytest.mark.parametrize(
    ("word", "parts"),
    [
        (
            "lam[p] in",
            ["var lam[p] in [-10, 10]", "a variable of `upper` over (p)", r"\mathrm{lam}_{"],
        ),
        ("X[n, p]", ["a param over (n, p)", "Training inputs", "(7, 2)", "ridge.npz"]),
        ("total =", ["a `let` of `upper`", r"\sum", r"\exp"]),
        ("budget", ["a constraint of `upper`", r"\le"]),
        ("train", ["a report", r"\frac"]),
        ("fit {", ["a lower level", "**strongly convex** in its variables"]),
        ("j in p", ["an iterator of `upper` over `p`"]),
        ("exp(lam)", ["exp(x)", "convex", "nonnegative", "nondecreasing", "smooth"]),
        ("minimize mse", ["objective of `fit`", r"\sum", "strongly convex"]),
        ("model ridge", ["Ridge regression", r"\operatorname{argmin}"]),
        ("mse(X", ["a function", "def mse(A, b, w)"]),
    ],
)
def test_hover(client: Client, ridge: str, word: str, parts: list[str]) -> None:
    text = hover(client, ridge, RIDGE, word)
    for part in parts:
        assert part in text


def test_hover_on_nothing_is_nothing(client: Client, ridge: str) -> None:
    assert hover(client, ridge, RIDGE, "{\n  var lam") == ""


def test_definition_of_names_files_and_constraints(client: Client, ridge: str) -> None:
    def target(word: str, offset: int = 0) -> tuple[str, int]:
        params = client.at(types.DefinitionParams, ridge, RIDGE, word, offset)
        found = client.ask("text_document_definition", params)
        return found.uri, found.range.start.line

    def line(word: str) -> int:
        return RIDGE[: RIDGE.index(word)].count("\n")

    assert target("w^2") == (ridge, line("var w"))
    assert target("cap;") == (ridge, line("param cap"))
    assert target("fit.small", 4) == (ridge, line("small:"))
    assert target("fit.small") == (ridge, line("lower fit"))
    assert target("lam[j]", 4) == (ridge, line("each"))
    uri, _ = target("mse(X")
    assert uri.endswith("stdlib/losses.blv")
    assert target("std:losses", 2) == (uri, 0)


def test_references_and_rename_reach_every_use(client: Client, ridge: str) -> None:
    params = client.at(
        types.ReferenceParams, ridge, RIDGE, "lam[p]", context=types.ReferenceContext(True)
    )
    assert len(client.ask("text_document_references", params)) == 4
    asked = client.at(types.RenameParams, ridge, RIDGE, "lam[j]", new_name="penalty")
    edits = client.ask("text_document_rename", asked).changes[ridge]
    lines = RIDGE.split("\n")
    for e in sorted(edits, key=lambda e: (e.range.start.line, -e.range.start.character)):
        at = e.range
        old = lines[at.start.line]
        lines[at.start.line] = old[: at.start.character] + e.new_text + old[at.end.character :]
    assert "\n".join(lines) == RIDGE.replace("lam", "penalty")


@pytest.mark.parametrize(
    ("word", "new", "why"),
    [
        ("lam[p]", "lower", "reserved"),
        ("lam[p]", "3x", "no name"),
        ("lam[p]", "exp", "language"),
        ("lam[p]", "w", "in use"),
        ("mse(X", "loss", "standard library"),
        ("exp(lam)", "e", "language"),
    ],
)
def test_a_rename_that_would_break_the_model_is_refused(
    client: Client, ridge: str, word: str, new: str, why: str
) -> None:
    with pytest.raises(JsonRpcException, match=why):
        client.ask(
            "text_document_rename",
            client.at(types.RenameParams, ridge, RIDGE, word, new_name=new),
        )


def test_refusals_do_not_fill_the_pipe_that_nobody_reads(client: Client, ridge: str) -> None:
    """A traceback each on standard error, 64 kB of them, would stop the server."""
    params = client.at(types.RenameParams, ridge, RIDGE, "exp(lam)", new_name="e" * 400)
    for _ in range(60):
        with pytest.raises(JsonRpcException, match="language"):
            client.ask("text_document_rename", params)


# What an editor may open: odd texts with the code of the first thing found (None: nothing).
ODD = {
    "nothing": ("", "BLV0207"),
    "a zero byte": (RIDGE.replace("lam", "l\0m"), "BLV0107"),
    "a mark of direction": (RIDGE.replace("budget", "bud\u202eget"), "BLV0107"),
    "brackets without end": ("upper { var x; minimize " + "(" * 5000, "BLV0104"),
    "signs without end": ("upper { var x; minimize " + "-" * 5000 + "x; }", "BLV0111"),
    "powers of powers": ("upper { var x; minimize " + "^".join("x" * 900) + "; }", "BLV0111"),
    "a text without its end": ('model a "abc\nupper { var x; minimize x; }', "BLV0108"),
    "other ends of lines": (RIDGE.replace("\n", "\r\n"), None),
    "a byte-order mark": ("\ufeff" + RIDGE, None),
    "itself": ('include "itself.blv";\n' + RIDGE, "BLV0226"),
    "a folder": ('include "folder.blv";\n' + RIDGE, "BLV0225"),
    "a pipe": ('include "pipe.blv";\n' + RIDGE, "BLV0225"),
    "a circle of links": ('include "link.blv";\n' + RIDGE, "BLV0225"),
    "junk": ('include "bytes.blv";\n' + RIDGE, "BLV0225"),
    "ten million letters": ('include "long.blv";\n' + RIDGE, "BLV0225"),
    "another folder": ('include "../../etc/passwd";\n' + RIDGE, "BLV0225"),
    "a billion elements": (
        "set S = 0..1000000000; param c[S] = 1; upper { var x[S]; minimize sum(c * x); }", None
    ),
    "definitions that double": (
        "def f0(x) = x + x;\n"
        + "".join(f"def f{k}(x) = f{k - 1}(x) + f{k - 1}(x);\n" for k in range(1, 40))
        + "upper { var x; minimize f39(x); }", "BLV0227"
    ),
    "hundreds of mistakes": (
        "upper { var x; minimize x; " + "".join(f"let a{k} = z{k}; " for k in range(300)) + "}",
        "BLV0201",
    ),
    "statements only": (";" * 3000, "BLV0127"),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd_files(client: Client) -> None:
    (client.root / "folder.blv").mkdir()
    os.mkfifo(client.root / "pipe.blv")
    (client.root / "link.blv").symlink_to("link.blv")
    (client.root / "bytes.blv").write_bytes(os.urandom(20_000))
    (client.root / "long.blv").write_text("# " + "x" * 10_000_000)
    (client.root / "nothing.npz").write_bytes(b"PK\x03\x04 no archive")
    os.mkfifo(client.root / "nothing.csv")
    (client.root / "nothing.json").write_text("[" * 100_000)


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_answered(client: Client, odd_files: None, kind: str) -> None:
    """Every request at the beginning, in the middle, at the end and beyond."""
    text, code = ODD[kind]
    uri = client.open(f"{kind.replace(' ', '_')}.blv", text)
    found = client.diagnostics(uri)
    assert [d.code for d in found[:1]] == ([] if code is None else [code])
    document = DOCUMENT(uri)
    half = text[: len(text) // 2]
    middle = types.Position(half.count("\n"), len(half) - half.rfind("\n") - 1)
    for place in (_START, middle, types.Position(10**6, 10**6)):
        client.ask("text_document_completion", types.CompletionParams(document, place))
        client.ask("text_document_hover", types.HoverParams(document, place))
        client.ask("text_document_definition", types.DefinitionParams(document, place))
        context = types.ReferenceContext(True)
        client.ask("text_document_references", types.ReferenceParams(context, document, place))
    client.ask("text_document_semantic_tokens_full", types.SemanticTokensParams(document))
    client.ask("text_document_document_symbol", types.DocumentSymbolParams(document))
    everywhere = types.Range(_START, types.Position(10**6, 0))
    context = types.CodeActionContext([])
    client.ask("text_document_code_action", types.CodeActionParams(document, everywhere, context))
    client.client.text_document_did_close(types.DidCloseTextDocumentParams(document))


def test_completion_knows_levels_atoms_members_and_data(client: Client) -> None:
    uri = client.open("ridge.blv", RIDGE)
    client.diagnostics(uri)
    text = RIDGE.replace("minimize error(Xv, yv, w);", "minimize err")
    client.change(uri, text)
    found = labels(client, uri, text, "minimize err")
    assert {"error", "lam", "w", "X", "total", "exp", "fit"} <= set(found)
    assert found["exp"].detail == "exp(x)"
    assert found["w"].detail == "a variable of fit over (p)"
    text = RIDGE.replace("minimize mse(X, y, w) + ", "minimize ")
    client.change(uri, text)
    assert "total" not in labels(client, uri, text, "minimize sum(")  # a `let` of upper
    text = RIDGE.replace("dual(fit.small)", "dual(fit.")
    client.change(uri, text)
    assert set(labels(client, uri, text, "dual(fit.")) == {"small"}
    text = RIDGE.replace("error(X, y, w);", "fit.")
    client.change(uri, text)
    assert set(labels(client, uri, text, "train = fit.")) == {"w", "objective"}
    text = RIDGE.replace("param cap", "param ")
    client.change(uri, text)
    found = labels(client, uri, text, "yv[m];\nparam ")
    assert set(found) == {"extra"}
    assert found["extra"].detail == "(3) in ridge.npz"
    text = RIDGE.replace("= 100", '= file("ridge.npz", "')
    client.change(uri, text)
    assert set(labels(client, uri, text, '"ridge.npz", "')) == {"X", "extra"}
    client.change(uri, "")
    assert "model" in labels(client, uri, "", "")


def test_outline_and_formatting(client: Client, ridge: str) -> None:
    uri = client.open("outline.blv", RIDGE.replace("var w[p];", "var   w[p] ;"))
    found = client.ask("text_document_document_symbol", types.DocumentSymbolParams(DOCUMENT(uri)))
    tree = {s.name: [c.name for c in s.children or []] for s in found}
    assert tree["upper"] == ["lam", "total", "minimize", "budget", "each"]
    assert tree["fit"] == ["w", "minimize", "small"]
    options = types.FormattingOptions(2, True)
    (edit,) = client.ask(
        "text_document_formatting", types.DocumentFormattingParams(DOCUMENT(uri), options)
    )
    assert edit.new_text == RIDGE


def test_semantic_tokens_tell_upper_from_lower(client: Client, ridge: str) -> None:
    client.change(ridge, RIDGE)
    provider = client.capabilities.semantic_tokens_provider
    data = client.ask(
        "text_document_semantic_tokens_full", types.SemanticTokensParams(DOCUMENT(ridge))
    ).data
    lines = RIDGE.split("\n")
    line = column = 0
    seen: dict[str, set[tuple[str, frozenset[str]]]] = {}
    for k in range(0, len(data), 5):
        step, shift, length, kind, bits = data[k : k + 5]
        line, column = line + step, shift if step else column + shift
        names = provider.legend.token_modifiers
        marks = frozenset(m for b, m in enumerate(names) if bits >> b & 1) - {"declaration"}
        word = lines[line][column : column + length]
        seen.setdefault(word, set()).add((provider.legend.token_types[kind], marks))
    assert seen["lam"] == {("variable", frozenset({"upper"}))}
    assert seen["w"] == {("variable", frozenset({"lower"})), ("parameter", frozenset())}
    assert seen["X"] == {("variable", frozenset({"readonly"}))}
    assert seen["fit"] == {("namespace", frozenset())}
    assert seen["exp"] == {("function", frozenset({"defaultLibrary"}))}
    assert seen["minimize"] == {("keyword", frozenset())}


def test_typing_a_model_key_by_key_never_fails(client: Client) -> None:
    """Half of a model at any time: every request is answered, and the log stays empty."""
    text = RIDGE
    uri = client.open("typing.blv", "")
    for end in range(1, len(text) + 1):
        client.change(uri, text[:end])
        if end % 6 == 0:
            half = text[:end]
            place = types.Position(half.count("\n"), len(half) - half.rfind("\n") - 1)
            document = DOCUMENT(uri)
            for method, params in (
                ("text_document_completion", types.CompletionParams(document, place)),
                ("text_document_hover", types.HoverParams(document, place)),
                ("text_document_semantic_tokens_full", types.SemanticTokensParams(document)),
                ("text_document_document_symbol", types.DocumentSymbolParams(document)),
            ):
                client.ask(method, params)
    assert client.diagnostics(uri) == []
    # While somebody types, a text is checked only in pauses.
    assert len(client.published[uri]) < len(text) / 2


def test_vanished_files_long_files_and_junk(client: Client, tmp_path: Path) -> None:
    part = client.root / "part.blv"
    part.write_text("param extra = 1;\n")
    text = RIDGE.replace('include "std:losses";', 'include "part.blv"; include "std:losses";')
    uri = client.open("vanish.blv", text)
    assert client.diagnostics(uri) == []
    part.unlink()
    client.client.text_document_did_save(types.DidSaveTextDocumentParams(DOCUMENT(uri)))
    client.change(uri, text + "\n")
    assert [d.code for d in client.diagnostics(uri)] == ["BLV0225"]
    gone = client.uri("never.blv")
    assert client.ask("text_document_hover", types.HoverParams(DOCUMENT(gone), _START)) is None
    long = client.open("long.blv", "# " + "x" * 10_000_000 + "\n")
    (note,) = client.diagnostics(long)
    assert "not checked while you type" in note.message
    junk = client.open("junk.blv", os.urandom(20_000).decode("latin-1"))
    assert client.diagnostics(junk)
    client.ask("text_document_semantic_tokens_full", types.SemanticTokensParams(DOCUMENT(junk)))
    surrogates = client.open("odd.blv", "model a; # \U0001f600 \u2028 \x0c\r\nupper { var x; }")
    assert client.diagnostics(surrogates)
    assert hover(client, client.uri("ridge.blv"), RIDGE, "lam[p]")  # still there


_START = types.Position(0, 0)


def test_positions_count_utf16_units(client: Client) -> None:
    text = 'model a "\U0001f600\U0001f600"; param q = zz;\nupper { var x; minimize x; }\n'
    uri = client.open("emoji.blv", text)
    (found,) = client.diagnostics(uri)
    # Each of the two characters counts twice.
    assert found.range.start == types.Position(0, text.index("zz") + 2)
