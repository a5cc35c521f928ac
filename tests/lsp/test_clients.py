"""The same server under editors that can do different things, by what each says of itself.

pytest-lsp warns (here: fails) where an answer is more than the client has said it understands.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("pygls", reason="the language server needs the extra `lsp`")

import pytest_lsp
from lsprotocol import types

from tests.lsp.editor import EVERYWHERE, SERVER, Editor, applied, at

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The smiling face is one, two or four units long, by the encoding that client and server agree on.
TEXT = """\
model m "\U0001f600";  param q in [0, 1] = 1;
upper { var x in [0, 2]; minimize x + q + y; }
lower low { var y; minimize (y - x)^2 + exp(y); }
"""
PLAIN = types.ClientCapabilities(
    text_document=types.TextDocumentClientCapabilities(
        hover=types.HoverClientCapabilities(content_format=[types.MarkupKind.PlainText])
    )
)


@pytest_lsp.fixture(
    config=SERVER, scope="module", params=["visual-studio-code", "neovim", "emacs", "plain"]
)
async def client(
    made: Editor, request: Any, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[None]:
    kind = request.param
    able = PLAIN if kind == "plain" else pytest_lsp.client_capabilities(kind)
    await made.begin(tmp_path_factory.mktemp("clients"), able)
    yield
    await made.end()


async def test_diagnostics_and_their_fix(client: Editor) -> None:
    text = TEXT.replace("+ q +", "+ qq +").replace("param q", "param qqq")
    uri = client.open("wrong.blv", text)
    (found,) = await client.found(uri)
    assert found.code == "BLV0201"
    document = types.TextDocumentIdentifier(uri)
    asked = types.CodeActionParams(document, EVERYWHERE, types.CodeActionContext([found]))
    (action,) = await client.ask("code_action", asked)
    client.change(uri, applied(text, action.edit.changes[uri]))
    assert await client.found(uri) == []


async def test_hover_speaks_what_the_client_reads(client: Editor) -> None:
    uri = client.open("hover.blv", TEXT)
    found = await client.ask("hover", at(types.HoverParams, uri, TEXT, "x in"))
    assert "var x in [0, 2]" in found.contents.value
    assert "a variable of `upper`" in found.contents.value
    plain = client.capabilities == PLAIN
    assert ("```" in found.contents.value) is not plain
    assert found.contents.kind is (
        types.MarkupKind.PlainText if plain else types.MarkupKind.Markdown
    )


async def test_completion_places_the_cursor_where_the_client_can(client: Editor) -> None:
    uri = client.open("complete.blv", TEXT)
    found = await client.ask("completion", at(types.CompletionParams, uri, TEXT, "exp(y)", 2))
    (item,) = [i for i in found.items if i.label == "exp"]
    asked = client.capabilities.text_document.completion
    able = asked is not None and asked.completion_item.snippet_support
    assert item.insert_text == ("exp($0)" if able else None)


async def test_rename_counts_in_the_units_of_the_client(client: Editor) -> None:
    """Python counts characters, the first line has one that is longer in UTF-8 and UTF-16."""
    units = {"utf-8": 4, "utf-16": 2, "utf-32": 1}[client.offered.position_encoding or "utf-16"]
    uri = client.open("rename.blv", TEXT)
    asked = at(types.RenameParams, uri, TEXT, "q in", new_name="level")
    asked.position = types.Position(0, asked.position.character + units - 1)
    edits = (await client.ask("rename", asked)).changes[uri]
    (first,) = [e for e in edits if e.range.start.line == 0]
    assert first.range.start == asked.position
    moved = types.Position(0, asked.position.character - units + 1)
    first.range = types.Range(moved, types.Position(0, moved.character + 1))
    assert applied(TEXT, edits) == TEXT.replace("q in", "level in").replace("+ q", "+ level")


async def test_the_rest_is_answered(client: Editor) -> None:
    uri = client.open("rest.blv", TEXT)
    document = types.TextDocumentIdentifier(uri)
    options = types.FormattingOptions(2, True)
    definition = at(types.DefinitionParams, uri, TEXT, "+ y;", 2)
    assert (await client.ask("definition", definition)).range.start.line == 2
    context = types.ReferenceContext(True)
    references = at(types.ReferenceParams, uri, TEXT, "y - x", context=context)
    assert len(await client.ask("references", references)) == 4
    symbols = await client.ask("document_symbol", types.DocumentSymbolParams(document))
    assert [s.name for s in symbols] == ["q", "upper", "low"]
    assert await client.ask("formatting", types.DocumentFormattingParams(document, options))
    tokens = types.SemanticTokensParams(document)
    assert (await client.ask("semantic_tokens_full", tokens)).data
