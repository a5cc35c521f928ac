"""The process of the server: how it ends without the words of the protocol."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

pytest.importorskip("pygls", reason="the language server needs the extra `lsp`")
pty = pytest.importorskip("pty", reason="needs terminals of POSIX")

COMMAND = [sys.executable, "-m", "bilevelpy", "lsp"]


@pytest.mark.parametrize(("by_hand", "code"), [("Ctrl-C", 130), ("Ctrl-D", 0)])
def test_somebody_starts_it_by_hand(by_hand: str, code: int) -> None:
    """It says what it is for, and goes when it is told to."""
    hand, terminal = pty.openpty()
    try:
        with subprocess.Popen(COMMAND, stdin=terminal, stderr=subprocess.PIPE, text=True) as server:
            assert server.stderr is not None
            assert "an editor starts this" in server.stderr.readline()
            if by_hand == "Ctrl-C":
                server.send_signal(signal.SIGINT)
            else:
                os.write(hand, b"\x04")
            assert server.wait(60) == code
            assert server.stderr.read() == ""
    finally:
        os.close(hand)
        os.close(terminal)


@pytest.mark.parametrize("said", ["", "no header\n", "Content-Length: 5\r\n\r\nabcde"])
def test_an_editor_that_goes_without_a_word(said: str) -> None:
    done = subprocess.run(COMMAND, input=said, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
