"""An editor: the client of pytest-lsp on a server process, with documents that are open in it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.protocol import default_converter
from pytest_lsp import ClientServerConfig, LanguageClient
from pytest_lsp.client import DEFAULT_CLIENT_FEATURES, register_lsp_features

# A server that does not answer fails a test after this many seconds.
PATIENCE = 60
START = types.Position(0, 0)
EVERYWHERE = types.Range(START, types.Position(10**6, 0))


class Editor(LanguageClient):
    """Requests in, answers out; every notification of the server is kept.

    pytest-lsp checks each answer against what the client says that it can do, and hands errors of
    the server to the test that runs.
    """

    def __init__(self) -> None:
        super().__init__(converter_factory=default_converter)
        self.root = Path()
        self.offered = types.ServerCapabilities()
        self.published: dict[str, list[types.PublishDiagnosticsParams]] = {}
        self.versions: dict[str, int | None] = {}
        self.refreshes = 0

    async def begin(self, root: Path, capabilities: types.ClientCapabilities) -> None:
        self.root = root
        asked = types.InitializeParams(capabilities=capabilities, root_uri=root.as_uri())
        self.offered = (await self._bounded(self.initialize_session(asked))).capabilities

    async def end(self) -> None:
        await self._bounded(self.shutdown_session())
        assert self._server is not None
        assert self._server.returncode == 0
        said = [m.message for m in self.log_messages]
        assert said == [], "the server reported errors of its own"

    @staticmethod
    async def _bounded(awaitable: Any) -> Any:
        return await asyncio.wait_for(awaitable, PATIENCE)

    # --- documents

    def uri(self, name: str) -> str:
        return (self.root / name).as_uri()

    def open(self, name: str, text: str) -> str:
        uri = self.uri(name)
        assert uri not in self.versions, f"{name} is open"
        self.versions[uri] = 1
        item = types.TextDocumentItem(uri, "blv", 1, text)
        self.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return uri

    def change(self, uri: str, text: str) -> None:
        version = self.versions[uri]
        assert version is not None
        self.versions[uri] = version + 1
        self.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(version + 1, uri),
                [types.TextDocumentContentChangeWholeDocument(text)],
            )
        )

    async def close(self, uri: str) -> None:
        """Close a document; its diagnostics are taken back."""
        closed = types.TextDocumentIdentifier(uri)
        self.text_document_did_close(types.DidCloseTextDocumentParams(closed))
        self.versions[uri] = None
        assert await self.found(uri) == []
        del self.versions[uri], self.published[uri]

    async def found(self, uri: str) -> list[types.Diagnostic]:
        """The diagnostics of the current version, as soon as they are published."""

        async def arrive() -> list[types.Diagnostic]:
            while True:
                for params in self.published.get(uri, []):
                    if params.version == self.versions[uri]:
                        return list(params.diagnostics)
                await asyncio.sleep(0.01)

        return await self._bounded(arrive())

    async def ask(self, method: str, params: Any) -> Any:
        """The answer to a request, such as `hover`."""
        return await self._bounded(getattr(self, f"text_document_{method}_async")(params))


def at(kind: Any, uri: str, text: str, word: str, offset: int = 0, **more: Any) -> Any:
    """Parameters of a request at the first ``word`` of ``text`` (plus ``offset``)."""
    return kind(
        text_document=types.TextDocumentIdentifier(uri),
        position=place(text[: text.index(word) + offset]),
        **more,
    )


def place(before: str) -> types.Position:
    """The position after a text, in lines that end with a newline."""
    return types.Position(before.count("\n"), len(before) - before.rfind("\n") - 1)


def applied(text: str, edits: list[types.TextEdit]) -> str:
    """A text after edits whose places do not touch."""
    lines = text.split("\n")
    for e in sorted(edits, key=lambda e: (e.range.start.line, -e.range.start.character)):
        old, start, end = lines[e.range.start.line], e.range.start.character, e.range.end.character
        lines[e.range.start.line] = old[:start] + e.new_text + old[end:]
    return "\n".join(lines)


def _publish(editor: Editor, params: types.PublishDiagnosticsParams) -> None:
    editor.published.setdefault(params.uri, []).append(params)


def _refresh(editor: Editor, params: None) -> None:
    editor.refreshes += 1


def _make() -> Editor:
    editor = Editor()
    own = {
        types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS: _publish,
        types.WORKSPACE_SEMANTIC_TOKENS_REFRESH: _refresh,
    }
    register_lsp_features(editor, {**DEFAULT_CLIENT_FEATURES, **own})
    return editor


SERVER = ClientServerConfig([sys.executable, "-m", "bilevelpy", "lsp"], client_factory=_make)
