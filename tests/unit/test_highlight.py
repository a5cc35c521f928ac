"""The Pygments lexer against the parser's own tokens."""

from __future__ import annotations

from pathlib import Path

import pytest
from pygments.lexers import get_lexer_by_name, get_lexer_for_filename
from pygments.token import Comment, Error, Keyword, Name, Number, Operator, Punctuation, String

from bilevelpy.diagnostics import Source
from bilevelpy.highlight import BlvLexer
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.parser import lex

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("models/**/*.blv"), *ROOT.glob("bilevelpy/stdlib/*.blv")])


def classes(kind: str, text: str) -> tuple[object, ...]:
    """What Pygments may call a token of the parser."""
    if kind in table.KEYWORD_TYPES:
        return (Keyword,)
    if kind in ("REL", "CMP") or text in table.OPERATORS:
        return (Operator,)
    if kind == "NAME":
        # Words of domains, facts and constants are names to the parser.
        return (Name, Keyword.Type, Keyword.Constant)
    return {"NUMBER": (Number,), "STRING": (String,)}.get(kind, (Punctuation,))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_the_tokens_are_those_of_the_parser(path: Path) -> None:
    text = path.read_text()
    ours = {t.start_pos: (t.type, str(t)) for t in lex(Source("m", text)).tokens}
    comments = {c.span.start for c in lex(Source("m", text)).comments}
    seen = set()
    for start, kind, piece in BlvLexer().get_tokens_unprocessed(text):
        assert kind not in Error, piece
        if kind in Comment:
            assert start in comments
            seen.add(start)
        elif piece.strip(" \t\r\n\f\ufeff"):
            name, token = ours[start]
            assert piece == token
            assert any(kind in c for c in classes(name, token)), (piece, kind)  # type: ignore[operator]
            seen.add(start)
    assert seen == set(ours) | comments


def test_pygments_finds_the_lexer() -> None:
    assert isinstance(get_lexer_by_name("blv"), BlvLexer)
    assert isinstance(get_lexer_for_filename("model.blv"), BlvLexer)
