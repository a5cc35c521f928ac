"""The server: documents, a pause before diagnostics, and one handler for each request."""

from __future__ import annotations

import asyncio
import functools
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pygls.lsp.server import LanguageServer

from bilevelpy import __version__
from bilevelpy.diagnostics import Source
from bilevelpy.lsp import abilities, complete, datafiles, describe, navigation, tokens
from bilevelpy.lsp.document import MAX_CHARACTERS, Document, level_at, name_of, uri_of
from bilevelpy.sema.include import read_model
from bilevelpy.sema.scope import State

# Seconds without a key before a text is checked.
PAUSE = 0.15

P = TypeVar("P")
T = TypeVar("T")


class Server(LanguageServer):
    """A language server with the open documents and the checks that wait."""

    def __init__(self) -> None:
        super().__init__(
            "bilevelpy", __version__, text_document_sync_kind=types.TextDocumentSyncKind.Full
        )
        self.documents: dict[str, Document] = {}
        self.last_states: dict[str, State] = {}
        self.waiting: dict[str, asyncio.TimerHandle] = {}
        self.data_files: list[Path] = []
        # Documents whose colours were answered before they were checked.
        self.provisional: set[str] = set()

    def document(self, uri: str) -> Document:
        """The document as it is now, read as far as it was asked about."""
        opened = self.workspace.get_text_document(uri)
        known = self.documents.get(uri)
        if known is not None and known.version == opened.version:
            return known
        try:
            text = opened.source
        except (OSError, ValueError):
            text = ""  # asked about a file that is not open and no longer there
        made = Document(
            uri, text, opened.version, encoding=self._encoding(), loader=self._loader(uri)
        )
        self.documents[uri] = made
        return made

    def _encoding(self) -> str:
        found = self.server_capabilities.position_encoding
        return str(getattr(found, "value", found) or "utf-16")

    def _loader(self, uri: str) -> Callable[[str], Source]:
        """Included files: as they are in the editor, else from the disk."""
        folder = str(Path(name_of(uri)).parent)

        def load(path: str) -> Source:
            opened = self.workspace.text_documents.get(uri_of(path))
            if opened is not None and len(opened.source) <= MAX_CHARACTERS:
                return Source(path, opened.source)
            return read_model(path, folder)

        return load

    def held(self, document: Document) -> list[datafiles.Entry]:
        """What the data files of a document hold: those of the settings, else those beside it."""
        beside = [] if document.name.startswith("<") else datafiles.beside(document.name)
        return datafiles.entries(self.data_files or beside)

    def check_soon(self, uri: str, pause: float = PAUSE) -> None:
        """Check a document once its user has stopped typing."""
        self.forget(uri)
        self.waiting[uri] = asyncio.get_running_loop().call_later(pause, self.check_now, uri)

    def forget(self, uri: str) -> None:
        """Do not check what was going to be checked."""
        waiting = self.waiting.pop(uri, None)
        if waiting is not None:
            waiting.cancel()

    def check_now(self, uri: str) -> None:
        """Check a document and publish what was found."""
        self.waiting.pop(uri, None)
        try:
            document = self.document(uri)
            found = _problems(document)
            if not document.too_long:
                self.last_states[uri] = document.state
            if uri in self.provisional:
                self.provisional.discard(uri)
                self.workspace_semantic_tokens_refresh(None)
        except Exception:
            self.report(f"checking {uri}")
            return
        self.text_document_publish_diagnostics(
            types.PublishDiagnosticsParams(uri, found, document.version)
        )

    def report(self, what: str) -> None:
        """Tell the client about an error of the server itself, which goes on."""
        text = f"internal error while {what}\n{traceback.format_exc()}"
        self.window_log_message(types.LogMessageParams(types.MessageType.Error, text))


def _problems(document: Document) -> list[types.Diagnostic]:
    if document.too_long:
        start = types.Position(0, 0)
        text = f"longer than {MAX_CHARACTERS:,} characters: not checked while you type"
        return [
            types.Diagnostic(
                types.Range(start, start),
                text,
                types.DiagnosticSeverity.Information,
                source="bilevelpy",
            )
        ]
    return [navigation.to_protocol(document, d) for d in document.diagnostics]


def _guarded(handler: Callable[[Server, P], T]) -> Callable[[Server, P], T | None]:
    """A handler that answers nothing where the server itself fails, and says so in the log."""

    @functools.wraps(handler)
    def run(server: Server, params: P) -> T | None:
        try:
            return handler(server, params)
        except JsonRpcInvalidParams:
            raise
        except Exception:
            server.report(handler.__name__)
            return None

    return run


def create() -> Server:
    """A server with all its features."""
    server = Server()
    feature = server.feature

    feature(types.INITIALIZE)(_initialize)
    feature(types.INITIALIZED)(_initialized)
    feature(types.TEXT_DOCUMENT_DID_OPEN)(_opened)
    feature(types.TEXT_DOCUMENT_DID_CHANGE)(_changed)
    feature(types.TEXT_DOCUMENT_DID_SAVE)(_saved)
    feature(types.TEXT_DOCUMENT_DID_CLOSE)(_closed)
    feature(types.WORKSPACE_DID_CHANGE_WATCHED_FILES)(_files_changed)
    feature(types.TEXT_DOCUMENT_HOVER)(_hover)
    feature(
        types.TEXT_DOCUMENT_COMPLETION,
        types.CompletionOptions(trigger_characters=[".", '"', "("]),
    )(_complete)
    feature(types.TEXT_DOCUMENT_DEFINITION)(_definition)
    feature(types.TEXT_DOCUMENT_REFERENCES)(_references)
    feature(types.TEXT_DOCUMENT_DOCUMENT_HIGHLIGHT)(_highlight)
    feature(types.TEXT_DOCUMENT_PREPARE_RENAME)(_prepare_rename)
    feature(types.TEXT_DOCUMENT_RENAME, types.RenameOptions(prepare_provider=True))(_rename)
    feature(types.TEXT_DOCUMENT_DOCUMENT_SYMBOL)(_symbols)
    feature(types.TEXT_DOCUMENT_FORMATTING)(_formatting)
    feature(
        types.TEXT_DOCUMENT_CODE_ACTION,
        types.CodeActionOptions(code_action_kinds=[types.CodeActionKind.QuickFix]),
    )(_actions)
    feature(types.TEXT_DOCUMENT_SEMANTIC_TOKENS_FULL, tokens.legend())(_semantic_tokens)
    return server


@_guarded
def _initialize(server: Server, params: types.InitializeParams) -> None:
    options = params.initialization_options
    given = options.get("data", []) if isinstance(options, dict) else []
    if isinstance(given, list):
        server.data_files = [Path(p) for p in given if isinstance(p, str)]


@_guarded
def _initialized(server: Server, params: types.InitializedParams) -> None:
    threading.Thread(target=describe.warm_up, daemon=True).start()


@_guarded
def _opened(server: Server, params: types.DidOpenTextDocumentParams) -> None:
    server.check_soon(params.text_document.uri, 0.0)


@_guarded
def _changed(server: Server, params: types.DidChangeTextDocumentParams) -> None:
    uri = params.text_document.uri
    name = name_of(uri)
    for other, document in list(server.documents.items()):
        if other != uri and name in document.state.sources:
            del server.documents[other]
            server.check_soon(other)
    server.check_soon(uri)


@_guarded
def _saved(server: Server, params: types.DidSaveTextDocumentParams) -> None:
    _check_all(server)


@_guarded
def _files_changed(server: Server, params: types.DidChangeWatchedFilesParams) -> None:
    _check_all(server)


def _check_all(server: Server) -> None:
    """A file on the disk has changed: whoever includes it is checked again."""
    server.documents.clear()
    for uri in list(server.workspace.text_documents):
        server.check_soon(uri)


@_guarded
def _closed(server: Server, params: types.DidCloseTextDocumentParams) -> None:
    uri = params.text_document.uri
    server.forget(uri)
    server.documents.pop(uri, None)
    server.last_states.pop(uri, None)
    server.text_document_publish_diagnostics(types.PublishDiagnosticsParams(uri, []))


def _place(server: Server, params: Any) -> tuple[Document, int]:
    document = server.document(params.text_document.uri)
    return document, document.positions.offset(params.position)


@_guarded
def _hover(server: Server, params: types.HoverParams) -> types.Hover | None:
    document, offset = _place(server, params)
    use = document.use_at(offset)
    if use is not None:
        held = {e.name: e for e in server.held(document)}
        text, span = describe.hover(document, use, held), use.span
        return types.Hover(
            abilities.markup(server.client_capabilities, text), document.positions.range(span)
        )
    before = document.tokens_before(offset + 1)
    if not before or (before[-1].end_pos or 0) < offset:
        return None
    kind = before[-1].type
    text = ""
    if kind in ("MINIMIZE", "MAXIMIZE"):
        text = describe.objective(document, level_at(before))
    elif "MODEL" in (kind, before[-2].type if len(before) > 1 else ""):
        text = describe.model(document)
    return types.Hover(abilities.markup(server.client_capabilities, text)) if text else None


@_guarded
def _complete(server: Server, params: types.CompletionParams) -> types.CompletionList | None:
    document, offset = _place(server, params)
    stale = server.last_states.get(document.uri)
    held, snippets = server.held(document), abilities.takes_snippets(server.client_capabilities)
    items = complete.complete(document, stale, offset, held, snippets=snippets)
    return types.CompletionList(is_incomplete=False, items=items)


@_guarded
def _definition(server: Server, params: types.DefinitionParams) -> types.Location | None:
    return navigation.definition(*_place(server, params))


@_guarded
def _references(server: Server, params: types.ReferenceParams) -> Sequence[types.Location] | None:
    document, offset = _place(server, params)
    return navigation.references(document, offset, params.context.include_declaration)


@_guarded
def _highlight(
    server: Server, params: types.DocumentHighlightParams
) -> Sequence[types.DocumentHighlight] | None:
    document, offset = _place(server, params)
    found = navigation.references(document, offset, True)
    return [types.DocumentHighlight(f.range) for f in found if f.uri == document.uri]


@_guarded
def _prepare_rename(server: Server, params: types.PrepareRenameParams) -> types.Range | None:
    document, offset = _place(server, params)
    try:
        return navigation.renamable(document, offset)[1]
    except navigation.Refusal as refusal:
        raise JsonRpcInvalidParams(str(refusal)) from None


@_guarded
def _rename(server: Server, params: types.RenameParams) -> types.WorkspaceEdit | None:
    document, offset = _place(server, params)
    try:
        return navigation.rename(document, offset, params.new_name)
    except navigation.Refusal as refusal:
        raise JsonRpcInvalidParams(str(refusal)) from None


@_guarded
def _symbols(
    server: Server, params: types.DocumentSymbolParams
) -> Sequence[types.DocumentSymbol] | None:
    return navigation.symbols(server.document(params.text_document.uri))


@_guarded
def _formatting(
    server: Server, params: types.DocumentFormattingParams
) -> Sequence[types.TextEdit] | None:
    document = server.document(params.text_document.uri)
    return None if document.too_long else navigation.formatted(document)


@_guarded
def _actions(server: Server, params: types.CodeActionParams) -> Sequence[types.CodeAction] | None:
    return navigation.actions(server.document(params.text_document.uri), params.range)


@_guarded
def _semantic_tokens(
    server: Server, params: types.SemanticTokensParams
) -> types.SemanticTokens | None:
    document = server.document(params.text_document.uri)
    stale = server.last_states.get(document.uri)
    if (
        stale is None
        or document.is_checked
        or not abilities.can_refresh(server.client_capabilities)
    ):
        return types.SemanticTokens(tokens.semantic_tokens(document, document.state))
    # While somebody types: by the names of the last check, until the next one asks for colours.
    server.provisional.add(document.uri)
    return types.SemanticTokens(tokens.semantic_tokens(document, stale))
