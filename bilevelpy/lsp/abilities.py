"""What a client says that it can do, and answers that fit it."""

from __future__ import annotations

from lsprotocol import types


def takes_snippets(client: types.ClientCapabilities) -> bool:
    """Whether the client can place the cursor inside what it completes."""
    asked = client.text_document.completion if client.text_document is not None else None
    item = asked.completion_item if asked is not None else None
    return bool(item is not None and item.snippet_support)


def can_refresh(client: types.ClientCapabilities) -> bool:
    """Whether the client asks again for colours when it is told to."""
    tokens = client.workspace.semantic_tokens if client.workspace is not None else None
    return bool(tokens is not None and tokens.refresh_support)


def markup(client: types.ClientCapabilities, text: str) -> types.MarkupContent:
    """Markdown, or the text alone for a client that shows nothing else."""
    asked = client.text_document.hover if client.text_document is not None else None
    formats = asked.content_format if asked is not None else None
    if formats and types.MarkupKind.Markdown not in formats:
        plain = [line for line in text.splitlines() if not line.startswith("```")]
        return types.MarkupContent(types.MarkupKind.PlainText, "\n".join(plain))
    return types.MarkupContent(types.MarkupKind.Markdown, text)
