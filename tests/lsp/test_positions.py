"""Offsets and positions, in each of the three encodings of the protocol."""

from __future__ import annotations

import pytest

pytest.importorskip("lsprotocol", reason="the language server needs the extra `lsp`")

from lsprotocol import types

from bilevelpy.lsp.document import level_at, name_of, statement, uri_of
from bilevelpy.lsp.positions import Positions

TEXT = "a \u00e9 \U0001f600 b\r\nsecond\rthird\n\u2028still third? no: fourth"


@pytest.mark.parametrize(("encoding", "units"), [("utf-8", 10), ("utf-16", 7), ("utf-32", 6)])
def test_units(encoding: str, units: int) -> None:
    lines = Positions(TEXT, encoding)
    assert lines.position(TEXT.index("b")) == types.Position(0, units)
    assert lines.offset(types.Position(0, units)) == TEXT.index("b")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32"])
def test_there_and_back(encoding: str) -> None:
    lines = Positions(TEXT, encoding)
    for offset in range(len(TEXT) + 1):
        # Inside `\r\n` there is no position of its own.
        if TEXT[offset - 1 : offset + 1] != "\r\n":
            assert lines.offset(lines.position(offset)) == offset


def test_lines_end_as_the_protocol_says() -> None:
    lines = Positions(TEXT)
    assert [lines.position(TEXT.index(w)).line for w in ("second", "third", "still")] == [1, 2, 3]
    assert lines.offset(types.Position(99, 0)) == len(TEXT)
    assert lines.offset(types.Position(1, 99)) == TEXT.index("second") + 6


def test_names_and_addresses() -> None:
    assert name_of("file:///models/a%20b.blv") == "/models/a b.blv"
    assert uri_of("/models/a b.blv") == "file:///models/a%20b.blv"
    assert name_of("untitled:Untitled-1") == "<untitled:Untitled-1>"
    assert uri_of(name_of("untitled:Untitled-1")) == "untitled:Untitled-1"
    assert uri_of("std:losses").endswith("/stdlib/losses.blv")


def test_the_level_and_the_statement_at_a_place() -> None:
    from bilevelpy.diagnostics import Source
    from bilevelpy.syntax.parser import lex

    def before(text: str) -> tuple[str, list[str]]:
        tokens = lex(Source("m", text)).tokens
        return level_at(tokens), [str(t) for t in statement(tokens)]

    assert before("model a; param p") == ("top", ["param", "p"])
    assert before("upper { var x; minimize x +") == ("upper", ["minimize", "x", "+"])
    assert before("upper { var x; } lower low[i in S] { var") == ("low", ["var"])
    assert before("lower low { subject to a: x <= 1; b:") == ("low", ["b", ":"])
    table = 'param c [ S ] = { "a" : 1 ,'
    assert before(table) == ("top", table.split())
