"""``bilevelpy lsp``: the language server for editors."""

from __future__ import annotations

import logging
import os
import signal
import sys

from bilevelpy.cli.console import say
from bilevelpy.cli.guard import DONE, INTERRUPTED
from bilevelpy.errors import UsageError
from bilevelpy.system.garbage import imports_done


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
    # Clients learn of errors by the protocol. Many never read this process's standard error, and a
    # pipe that is full of tracebacks would stop the server.
    logging.getLogger("pygls").setLevel(logging.CRITICAL)
    # A thread waits for input where no exception reaches it. Nothing has to be kept: end at once.
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    if sys.stdin.isatty():
        say("an editor starts this and speaks to it over standard input; Ctrl-C ends it")
    imports_done()
    create().start_io()
    return DONE
