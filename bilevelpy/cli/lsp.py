"""``bilevelpy lsp``: the language server for editors."""

from __future__ import annotations

from bilevelpy.cli.guard import DONE
from bilevelpy.errors import UsageError


def lsp() -> int:
    """Serve editors over standard input and output (the language server protocol).

    An editor starts it; docs/editors.md says how. Needs the extra `lsp`.
    """
    try:
        from bilevelpy.lsp.server import create
    except ImportError as error:
        if error.name is None or error.name.split(".")[0] not in ("pygls", "lsprotocol"):
            raise
        raise UsageError("the language server needs pygls: install the extra `lsp`") from error
    create().start_io()
    return DONE
