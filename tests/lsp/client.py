"""A client that drives the real server process over its standard streams."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from lsprotocol import types
from pygls.lsp.client import LanguageClient

# A server that does not answer fails a test after this many seconds.
PATIENCE = 60


class Client:
    """Requests in, answers out; notifications of the server are kept."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.runner = asyncio.Runner()
        self.client = LanguageClient("tests", "1")
        self.published: dict[str, list[types.PublishDiagnosticsParams]] = {}
        self.log: list[str] = []
        self.versions: dict[str, int] = {}
        self.client.feature(types.TEXT_DOCUMENT_PUBLISH_DIAGNOSTICS)(lambda p: self._keep(p))
        self.client.feature(types.WINDOW_LOG_MESSAGE)(lambda p: self.log.append(p.message))
        self.wait(self.client.start_io(sys.executable, "-m", "bilevelpy", "lsp"))
        parameters = types.InitializeParams(
            capabilities=types.ClientCapabilities(),
            root_uri=root.as_uri(),
            initialization_options=options or None,
        )
        self.capabilities = self.wait(self.client.initialize_async(parameters)).capabilities
        self.client.initialized(types.InitializedParams())

    def _keep(self, params: types.PublishDiagnosticsParams) -> None:
        self.published.setdefault(params.uri, []).append(params)

    def wait(self, awaitable: Any) -> Any:
        async def bounded() -> Any:
            return await asyncio.wait_for(awaitable, PATIENCE)

        return self.runner.run(bounded())

    def close(self) -> None:
        self.wait(self.client.shutdown_async(None))
        self.client.exit(None)
        self.wait(self.client.stop())
        self.runner.close()

    # --- documents

    def uri(self, name: str) -> str:
        return (self.root / name).as_uri()

    def open(self, name: str, text: str) -> str:
        uri = self.uri(name)
        self.versions[uri] = 1
        item = types.TextDocumentItem(uri, "blv", 1, text)
        self.client.text_document_did_open(types.DidOpenTextDocumentParams(item))
        return uri

    def change(self, uri: str, text: str) -> None:
        self.versions[uri] += 1
        self.client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(self.versions[uri], uri),
                [types.TextDocumentContentChangeWholeDocument(text)],
            )
        )

    def diagnostics(self, uri: str) -> list[types.Diagnostic]:
        """Those of the current version, as soon as they are published."""

        async def arrive() -> list[types.Diagnostic]:
            while True:
                for params in self.published.get(uri, []):
                    if params.version == self.versions[uri]:
                        return list(params.diagnostics)
                await asyncio.sleep(0.01)

        found: list[types.Diagnostic] = self.wait(arrive())
        return found

    def ask(self, method: str, params: Any) -> Any:
        return self.wait(getattr(self.client, f"{method}_async")(params))

    def at(self, kind: Any, uri: str, text: str, word: str, offset: int = 0, **more: Any) -> Any:
        """Parameters of a request at the first ``word`` of ``text`` (plus ``offset``)."""
        index = text.index(word) + offset
        before = text[:index]
        line = before.count("\n")
        column = index - (before.rfind("\n") + 1)
        return kind(
            text_document=types.TextDocumentIdentifier(uri),
            position=types.Position(line, column),
            **more,
        )
