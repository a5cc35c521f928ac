"""The LALR tables, built from ``grammar/bilevel.lark`` or loaded from the user's cache."""

from __future__ import annotations

import contextlib
import hashlib
import marshal
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from copy import copy
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import lark
from lark.lexer import BasicLexer, LexerThread, Token
from lark.parse_tree_builder import ExpandSingleChild
from lark.parsers.lalr_analysis import Shift

from bilevelpy.syntax.build import Builder
from bilevelpy.system.deadline import check

STARTS = ["start", "item", "stmt", "constraint", "upper_head", "lower_head", "foreign"]
OPTIONS: dict[str, Any] = {
    "parser": "lalr",
    "lexer": "basic",
    "start": STARTS,
    "keep_all_tokens": True,
    "maybe_placeholders": False,
}


@lru_cache(maxsize=1)
def grammar_text() -> str:
    """The text of ``bilevel.lark``: inside an installed package, else beside a checkout."""
    inside = resources.files("bilevelpy") / "grammar" / "bilevel.lark"
    if inside.is_file():
        return inside.read_text(encoding="utf-8")
    beside = Path(__file__).parents[2] / "grammar" / "bilevel.lark"
    return beside.read_text(encoding="utf-8")


def cache_file() -> Path:
    """Where the tables of this grammar, this Lark and this Python are kept."""
    from platformdirs import user_cache_path

    digest = hashlib.sha256(grammar_text().encode()).hexdigest()[:16]
    python = f"{sys.version_info[0]}{sys.version_info[1]}"
    return user_cache_path("bilevelpy") / f"blv-{digest}-lark{lark.__version__}-py{python}.tables"


class Tables:
    """The lexer and the parser, with the builder that the parser calls at each reduction."""

    def __init__(self, parser: lark.Lark, builder: Builder) -> None:
        self.parser = parser
        self.builder = builder
        # Formatter and `##` documentation want the comments, so only white space is skipped.
        conf = copy(parser.lexer_conf)
        conf.ignore = ["WS"]
        conf.skip_validation = True
        self._lexer = BasicLexer(conf)
        # By rule: what makes its node (None where the node is that of its only child), the number
        # of its symbols and the symbol that it stands for.
        self._rules: dict[int, tuple[Callable[[list[Any]], Any] | None, int, str]] = {}

    def lex(self, text: str) -> Iterator[Token]:
        """All tokens of ``text``, comments included; every character belongs to some terminal."""
        thread: Any = LexerThread.from_text(self._lexer, text)
        yield from thread.lex(None)

    def cursor(self, start: str) -> Any:
        """A parser that waits for the first token of a ``start``."""
        return self.parser.parse_interactive(start=start)

    def shifted(self, start: str, tokens: list[Token]) -> tuple[Any, int]:
        """A parser that has read ``tokens`` as the beginning of a ``start``, and how many of them
        could stand. Lark's own step takes three times as long, mostly where a name becomes an
        expression through ten rules that make nothing.
        """
        cursor = self.cursor(start)
        table = cursor.parser_state.parse_conf.states
        states, values = cursor.parser_state.state_stack, cursor.parser_state.value_stack
        known = self._rules
        for k, token in enumerate(tokens):
            kind = token.type
            if kind == "SEMICOLON":
                check()
            while True:
                step = table[states[-1]].get(kind)
                if step is None:
                    return cursor, k
                action, target = step
                if action is Shift:
                    states.append(target)
                    values.append(token)
                    break
                make, size, symbol = known.get(id(target)) or self._learnt(cursor, target)
                if make is None:
                    states[-1] = table[states[-2]][symbol][1]
                    continue
                children = values[-size:] if size else []
                if size:
                    del states[-size:], values[-size:]
                values.append(make(children))
                states.append(table[states[-1]][symbol][1])
        return cursor, len(tokens)

    def _learnt(self, cursor: Any, rule: Any) -> tuple[Callable[[list[Any]], Any] | None, int, str]:
        size = len(rule.expansion)
        make = cursor.parser_state.parse_conf.callbacks[rule]
        empty = size == 1 and isinstance(make, ExpandSingleChild)
        found = self._rules[id(rule)] = (None if empty else make, size, rule.origin.name)
        return found


def build(strict: bool = False) -> lark.Lark:
    """Compute the tables from the grammar (half a second)."""
    return lark.Lark(grammar_text(), strict=strict, transformer=Builder(), **OPTIONS)


def load() -> Tables:
    """The tables from the cache if it can be used, else built and written to it."""
    builder = Builder()
    path: Path | None = None
    with contextlib.suppress(OSError, RuntimeError):
        path = cache_file()
        content = path.read_bytes()
        # marshal holds plain values, so nothing in the file can run; the digest catches damage.
        if hashlib.sha256(content[32:]).digest() == content[:32]:
            with contextlib.suppress(Exception):
                data, memo = marshal.loads(content[32:])
                restore: Any = lark.Lark._load_from_dict
                return Tables(restore(data, memo, transformer=builder), builder)
    parser = lark.Lark(grammar_text(), transformer=builder, **OPTIONS)
    if path is not None:
        _store(parser, path)
    return Tables(parser, builder)


def _store(parser: lark.Lark, path: Path) -> None:
    from lark.grammar import Rule
    from lark.lexer import TerminalDef

    data, memo = parser.memo_serialize([TerminalDef, Rule])
    data["options"] = {k: v for k, v in data["options"].items() if k != "transformer"}
    # An unwritable cache costs time only, so its errors stay silent.
    with contextlib.suppress(OSError, ValueError):
        body = marshal.dumps((data, memo))
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.stem)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(hashlib.sha256(body).digest() + body)
            os.replace(temporary, path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise


@lru_cache(maxsize=1)
def tables() -> Tables:
    """The tables of this process."""
    return load()
