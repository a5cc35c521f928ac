"""The language server as an editor meets it: a process, driven over its standard streams."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pygls", reason="the language server needs the extra `lsp`")

import pytest_lsp
from lsprotocol import types
from pygls.exceptions import JsonRpcException

from tests.lsp.editor import EVERYWHERE, SERVER, START, Editor, applied, at, place

pytestmark = pytest.mark.asyncio(loop_scope="module")

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


@pytest_lsp.fixture(config=SERVER, scope="module")
async def client(made: Editor, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[None]:
    folder = tmp_path_factory.mktemp("lsp")
    np.savez(folder / "ridge.npz", X=np.zeros((7, 2)), extra=np.zeros(3))
    await made.begin(folder, pytest_lsp.client_capabilities("visual-studio-code"))
    made.open("ridge.blv", RIDGE)
    yield
    await made.end()


@pytest.fixture(scope="module")
def ridge(client: Editor) -> str:
    return client.uri("ridge.blv")


async def hover(client: Editor, uri: str, text: str, word: str, offset: int = 0) -> str:
    params = at(types.HoverParams, uri, text, word, offset)
    found = await client.ask("hover", params)
    return found.contents.value if found else ""


async def labels(client: Editor, uri: str, text: str, word: str) -> dict[str, types.CompletionItem]:
    params = at(types.CompletionParams, uri, text, word, len(word))
    found = await client.ask("completion", params)
    return {i.label: i for i in found.items}


async def test_a_correct_model_has_no_diagnostics(client: Editor, ridge: str) -> None:
    assert await client.found(ridge) == []


async def test_mistakes_are_shown_with_code_place_and_fix(client: Editor) -> None:
    text = RIDGE.replace("total <= cap", "totle <= cap").replace("exp(lam) * w^2", "exp(lam) * v^2")
    uri = client.open("wrong.blv", text)
    found = await client.found(uri)
    assert [d.code for d in found] == ["BLV0201", "BLV0201"]
    line = text[: text.index("totle")].count("\n")
    assert found[0].range == types.Range(types.Position(line, 12), types.Position(line, 17))
    assert "did you mean `total`?" in found[0].message
    assert found[0].related_information
    asked = types.CodeActionParams(DOCUMENT(uri), found[0].range, types.CodeActionContext([]))
    (action,) = await client.ask("code_action", asked)
    assert action.title == "replace `totle` with `total`"
    (edit,) = action.edit.changes[uri]
    assert (edit.range, edit.new_text) == (found[0].range, "total")


async def test_diagnostics_follow_the_text(client: Editor) -> None:
    uri = client.open("follow.blv", RIDGE)
    assert await client.found(uri) == []
    client.change(uri, RIDGE.replace("minimize error(Xv, yv, w);", "minimize error(Xv, yv, w)"))
    (found,) = await client.found(uri)
    assert found.code == "BLV0101"
    client.change(uri, RIDGE)
    assert await client.found(uri) == []


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
async def test_hover(client: Editor, ridge: str, word: str, parts: list[str]) -> None:
    text = await hover(client, ridge, RIDGE, word)
    for part in parts:
        assert part in text


async def test_hover_on_nothing_is_nothing(client: Editor, ridge: str) -> None:
    assert await hover(client, ridge, RIDGE, "{\n  var lam") == ""


async def test_definition_of_names_files_and_constraints(client: Editor, ridge: str) -> None:
    async def target(word: str, offset: int = 0) -> tuple[str, int]:
        params = at(types.DefinitionParams, ridge, RIDGE, word, offset)
        found = await client.ask("definition", params)
        return found.uri, found.range.start.line

    def line(word: str) -> int:
        return RIDGE[: RIDGE.index(word)].count("\n")

    assert await target("w^2") == (ridge, line("var w"))
    assert await target("cap;") == (ridge, line("param cap"))
    assert await target("fit.small", 4) == (ridge, line("small:"))
    assert await target("fit.small") == (ridge, line("lower fit"))
    assert await target("lam[j]", 4) == (ridge, line("each"))
    uri, _ = await target("mse(X")
    assert uri.endswith("stdlib/losses.blv")
    assert await target("std:losses", 2) == (uri, 0)


async def test_a_line_that_is_being_typed_has_its_names(client: Editor) -> None:
    """It is in no tree yet: a name means what it would mean there."""
    half = RIDGE.replace(
        "minimize mse(X, y, w) + sum(exp(lam) * w^2);", "minimize sum(exp(lam) * w"
    )
    uri = client.open("half.blv", half)
    assert [d.code for d in await client.found(uri)] == ["BLV0104"]
    assert "a variable of `upper` over (p)" in await hover(client, uri, half, "lam) * w")
    assert "nondecreasing" in await hover(client, uri, half, "exp(lam) * w")
    assert await hover(client, uri, half, "* w") == ""
    found = await client.ask("definition", at(types.DefinitionParams, uri, half, "* w", 2))
    assert found.range.start.line == half[: half.index("var w")].count("\n")
    asked = at(types.RenameParams, uri, half, "lam) * w", new_name="penalty")
    with pytest.raises(JsonRpcException, match="syntax errors first"):
        await client.ask("rename", asked)


async def test_references_and_rename_reach_every_use(client: Editor, ridge: str) -> None:
    params = at(types.ReferenceParams, ridge, RIDGE, "lam[p]", context=types.ReferenceContext(True))
    assert len(await client.ask("references", params)) == 4
    asked = at(types.RenameParams, ridge, RIDGE, "lam[j]", new_name="penalty")
    edits = (await client.ask("rename", asked)).changes[ridge]
    assert applied(RIDGE, edits) == RIDGE.replace("lam", "penalty")


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
async def test_a_rename_that_would_break_the_model_is_refused(
    client: Editor, ridge: str, word: str, new: str, why: str
) -> None:
    with pytest.raises(JsonRpcException, match=why):
        await client.ask(
            "rename",
            at(types.RenameParams, ridge, RIDGE, word, new_name=new),
        )


async def test_refusals_do_not_fill_the_pipe_that_nobody_reads(client: Editor, ridge: str) -> None:
    """A traceback each on standard error, 64 kB of them, would stop the server."""
    params = at(types.RenameParams, ridge, RIDGE, "exp(lam)", new_name="e" * 400)
    for _ in range(60):
        with pytest.raises(JsonRpcException, match="language"):
            await client.ask("rename", params)


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
        + "".join(f"def f{k}(x) = f{k - 1}(x + 1) + f{k - 1}(2 * x);\n" for k in range(1, 40))
        + "upper { var x; minimize f39(x); }", "BLV0227"
    ),
    "hundreds of mistakes": (
        "upper { var x; minimize x; " + "".join(f"let a{k} = z{k}; " for k in range(300)) + "}",
        "BLV0201",
    ),
    "statements only": (";" * 3000, "BLV0127"),
}  # fmt: skip


@pytest.fixture(scope="module")
def odd_files(client: Editor) -> None:
    (client.root / "folder.blv").mkdir()
    os.mkfifo(client.root / "pipe.blv")
    (client.root / "link.blv").symlink_to("link.blv")
    (client.root / "bytes.blv").write_bytes(os.urandom(20_000))
    (client.root / "long.blv").write_text("# " + "x" * 10_000_000)
    (client.root / "nothing.npz").write_bytes(b"PK\x03\x04 no archive")
    os.mkfifo(client.root / "nothing.csv")
    (client.root / "nothing.json").write_text("[" * 100_000)


@pytest.mark.parametrize("kind", ODD)
async def test_odd_files_are_answered(client: Editor, odd_files: None, kind: str) -> None:
    """Every request at the beginning, in the middle, at the end and beyond."""
    text, code = ODD[kind]
    uri = client.open(f"{kind.replace(' ', '_')}.blv", text)
    found = await client.found(uri)
    assert [d.code for d in found[:1]] == ([] if code is None else [code])
    document = DOCUMENT(uri)
    for here in (START, place(text[: len(text) // 2]), types.Position(10**6, 10**6)):
        await client.ask("completion", types.CompletionParams(document, here))
        await client.ask("hover", types.HoverParams(document, here))
        await client.ask("definition", types.DefinitionParams(document, here))
        context = types.ReferenceContext(True)
        await client.ask("references", types.ReferenceParams(context, document, here))
    await client.ask("semantic_tokens_full", types.SemanticTokensParams(document))
    await client.ask("document_symbol", types.DocumentSymbolParams(document))
    context = types.CodeActionContext([])
    await client.ask("code_action", types.CodeActionParams(document, EVERYWHERE, context))
    await client.close(uri)


async def test_completion_knows_levels_atoms_members_and_data(client: Editor, ridge: str) -> None:
    uri = ridge
    await client.found(uri)
    text = RIDGE.replace("minimize error(Xv, yv, w);", "minimize err")
    client.change(uri, text)
    found = await labels(client, uri, text, "minimize err")
    assert {"error", "lam", "w", "X", "total", "exp", "fit"} <= set(found)
    assert found["exp"].detail == "exp(x)"
    assert found["w"].detail == "a variable of fit over (p)"
    text = RIDGE.replace("minimize mse(X, y, w) + ", "minimize ")
    client.change(uri, text)
    assert "total" not in await labels(client, uri, text, "minimize sum(")  # a `let` of upper
    text = RIDGE.replace("dual(fit.small)", "dual(fit.")
    client.change(uri, text)
    assert set(await labels(client, uri, text, "dual(fit.")) == {"small"}
    text = RIDGE.replace("error(X, y, w);", "fit.")
    client.change(uri, text)
    assert set(await labels(client, uri, text, "train = fit.")) == {"w", "objective"}
    text = RIDGE.replace("param cap", "param ")
    client.change(uri, text)
    found = await labels(client, uri, text, "yv[m];\nparam ")
    assert set(found) == {"extra"}
    assert found["extra"].detail == "(3) in ridge.npz"
    text = RIDGE.replace("= 100", '= file("ridge.npz", "')
    client.change(uri, text)
    assert set(await labels(client, uri, text, '"ridge.npz", "')) == {"X", "extra"}
    client.change(uri, "")
    assert "model" in await labels(client, uri, "", "")
    client.change(uri, RIDGE)


async def test_outline_and_formatting(client: Editor, ridge: str) -> None:
    uri = client.open("outline.blv", RIDGE.replace("var w[p];", "var   w[p] ;"))
    found = await client.ask("document_symbol", types.DocumentSymbolParams(DOCUMENT(uri)))
    tree = {s.name: [c.name for c in s.children or []] for s in found}
    assert tree["upper"] == ["lam", "total", "minimize", "budget", "each"]
    assert tree["fit"] == ["w", "minimize", "small"]
    options = types.FormattingOptions(2, True)
    (edit,) = await client.ask("formatting", types.DocumentFormattingParams(DOCUMENT(uri), options))
    assert edit.new_text == RIDGE


Colours = dict[str, set[tuple[str, frozenset[str]]]]


async def colours(client: Editor, uri: str, text: str) -> Colours:
    """For each word its kinds, each with its modifiers."""
    asked = types.SemanticTokensParams(DOCUMENT(uri))
    data = (await client.ask("semantic_tokens_full", asked)).data
    legend = client.offered.semantic_tokens_provider.legend  # type: ignore[union-attr]
    lines = text.split("\n")
    line = column = 0
    seen: Colours = {}
    for k in range(0, len(data), 5):
        step, shift, length, kind, bits = data[k : k + 5]
        line, column = line + step, shift if step else column + shift
        marks = frozenset(m for b, m in enumerate(legend.token_modifiers) if bits >> b & 1)
        word = lines[line][column : column + length]
        seen.setdefault(word, set()).add((legend.token_types[kind], marks - {"declaration"}))
    return seen


async def test_semantic_tokens_tell_upper_from_lower(client: Editor) -> None:
    uri = client.open("colours.blv", RIDGE)
    await client.found(uri)
    seen = await colours(client, uri, RIDGE)
    assert seen["lam"] == {("variable", frozenset({"upper"}))}
    assert seen["w"] == {("variable", frozenset({"lower"})), ("parameter", frozenset())}
    assert seen["X"] == {("variable", frozenset({"readonly"}))}
    assert seen["fit"] == {("namespace", frozenset())}
    assert seen["exp"] == {("function", frozenset({"defaultLibrary"}))}
    assert seen["minimize"] == {("keyword", frozenset())}


async def test_colours_follow_the_text(client: Editor) -> None:
    """At once by the names of the last check; after the next one the client is told to ask."""
    uri = client.open("follow_colours.blv", RIDGE)
    await client.found(uri)
    told = client.refreshes
    text = RIDGE.replace("lam", "penalty")
    client.change(uri, text)
    assert ("keyword", frozenset()) in (await colours(client, uri, text))["minimize"]
    await client.found(uri)
    assert client.refreshes == told + 1
    assert (await colours(client, uri, text))["penalty"] == {("variable", frozenset({"upper"}))}


async def test_typing_a_model_key_by_key_never_fails(client: Editor) -> None:
    """Half of a model at any time: every request is answered, and the log stays empty."""
    text = RIDGE
    uri = client.open("typing.blv", "")
    document, layout = DOCUMENT(uri), types.FormattingOptions(2, True)
    context = types.CodeActionContext([])
    requests = {
        "completion": lambda here: types.CompletionParams(document, here),
        "hover": lambda here: types.HoverParams(document, here),
        "semantic_tokens_full": lambda _: types.SemanticTokensParams(document),
        "document_symbol": lambda _: types.DocumentSymbolParams(document),
        "definition": lambda here: types.DefinitionParams(document, here),
        "formatting": lambda _: types.DocumentFormattingParams(document, layout),
        "code_action": lambda _: types.CodeActionParams(document, EVERYWHERE, context),
    }
    for end in range(1, len(text) + 1):
        client.change(uri, text[:end])
        method = [*requests][end % len(requests)]
        await client.ask(method, requests[method](place(text[:end])))
    assert await client.found(uri) == []
    # While somebody types, a text is checked only in pauses.
    assert len(client.published[uri]) < len(text) / 2


async def test_vanished_files_long_files_and_junk(client: Editor, tmp_path: Path) -> None:
    part = client.root / "part.blv"
    part.write_text("param extra = 1;\n")
    text = RIDGE.replace('include "std:losses";', 'include "part.blv"; include "std:losses";')
    uri = client.open("vanish.blv", text)
    assert await client.found(uri) == []
    part.unlink()
    client.text_document_did_save(types.DidSaveTextDocumentParams(DOCUMENT(uri)))
    client.change(uri, text + "\n")
    assert [d.code for d in await client.found(uri)] == ["BLV0225"]
    gone = client.uri("never.blv")
    assert await client.ask("hover", types.HoverParams(DOCUMENT(gone), START)) is None
    long = client.open("long.blv", "# " + "x" * 10_000_000 + "\n")
    (note,) = await client.found(long)
    assert "not checked while you type" in note.message
    junk = client.open("junk.blv", os.urandom(20_000).decode("latin-1"))
    assert await client.found(junk)
    await client.ask("semantic_tokens_full", types.SemanticTokensParams(DOCUMENT(junk)))
    surrogates = client.open("odd.blv", "model a; # \U0001f600 \u2028 \x0c\r\nupper { var x; }")
    assert await client.found(surrogates)
    assert await hover(client, client.uri("ridge.blv"), RIDGE, "lam[p]")  # still there


async def test_positions_count_utf16_units(client: Editor) -> None:
    text = 'model a "\U0001f600\U0001f600"; param q = zz;\nupper { var x; minimize x; }\n'
    uri = client.open("emoji.blv", text)
    (found,) = await client.found(uri)
    # Each of the two characters counts twice.
    assert found.range.start == types.Position(0, text.index("zz") + 2)
