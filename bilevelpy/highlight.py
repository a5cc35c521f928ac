"""A Pygments lexer for model files, made from the token tables: colours in pages and terminals."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import ClassVar

from pygments.lexer import RegexLexer, words
from pygments.token import (
    Comment,
    Keyword,
    Name,
    Number,
    Operator,
    Punctuation,
    String,
    Text,
    _TokenType,
)

from bilevelpy.ir.atoms import CALLS
from bilevelpy.syntax import tokens as table

DOMAINS = ("simplex", "ball", "psd", "binary", "integers")
FACTS = ("convex", "strongly_convex", "smooth", "unique", "licq", "steps")


def _longest_first(texts: Iterable[str]) -> str:
    return "|".join(re.escape(t) for t in sorted(texts, key=len, reverse=True))


_BLOCKS = set(table.TOP_KEYWORDS) | (set(table.LEVEL_KEYWORDS) - {"subject to"})
_CLAUSES = set(table.CLAUSE_KEYWORDS) - {"inf"}


class BlvLexer(RegexLexer):  # type: ignore[misc]
    """The language of bilevel models."""

    name = "BLV"
    aliases = ("blv",)
    filenames = ("*.blv",)
    mimetypes = ("text/x-blv",)
    url = "docs/language/reference.md"

    tokens: ClassVar[dict[str, list[tuple[object, _TokenType]]]] = {
        "root": [
            (r"[ \t\r\n\f\ufeff]+", Text.Whitespace),
            (r"##[^\n]*", Comment.Special),
            (r"#[^\n]*", Comment.Single),
            (r'"[^"\n]*"', String.Double),
            (r"subject[ \t\r\n]+to\b", Keyword),
            (words(sorted(_BLOCKS), prefix=r"\b", suffix=r"\b"), Keyword),
            (words(sorted(_CLAUSES), prefix=r"\b", suffix=r"\b"), Keyword.Reserved),
            (r"(?:inf|pi)\b", Keyword.Constant),
            (rf"(?:{'|'.join(DOMAINS)})\b", Keyword.Type),
            (rf"(?:{'|'.join(sorted(CALLS))})\b(?=\s*\()", Name.Builtin),
            (rf"(?:{'|'.join(FACTS)})\b", Name.Attribute),
            (r"[A-Za-z_][A-Za-z0-9_]*", Name),
            (r"\d+(?:\.(?!\.)\d*)?(?:[eE][+-]?\d+)?|\.\d+(?:[eE][+-]?\d+)?", Number),
            (_longest_first([*table.COMPARISONS, *table.OPERATORS]), Operator),
            (_longest_first(table.PUNCTUATION), Punctuation),
        ]
    }
