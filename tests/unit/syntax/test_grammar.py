"""The grammar, its tables and their cache."""

from __future__ import annotations

import re

import pytest

from bilevelpy.syntax import tables as module
from bilevelpy.syntax import tokens
from bilevelpy.syntax.build import Builder


@pytest.fixture(scope="module")
def loaded():
    return module.load()


def test_strict_build_has_no_conflicts():
    pytest.importorskip("interegular")
    module.build(strict=True)


def test_every_rule_has_a_callback(loaded):
    names = {rule.alias or rule.origin.name for rule in loaded.parser.rules}
    # `?rules` that only pass a child on, rules that are inlined, and the rule that keeps terminals.
    silent = {"item", "stmt", "expr", "unary", "postfix", "atom", "negation", "group", "foreign"}
    missing = {n for n in names if not n.startswith("_") and not hasattr(Builder, n)} - silent
    assert not missing


def test_token_tables_equal_the_grammar(loaded):
    terminals = {t.name: t.pattern for t in loaded.parser.terminals}
    for text, kind in {**tokens.KEYWORDS, **tokens.OPERATORS, **tokens.PUNCTUATION}.items():
        assert re.fullmatch(terminals[kind].to_regexp(), text), text
    for text, kind in tokens.COMPARISONS.items():
        assert re.fullmatch(terminals[kind].to_regexp(), text), text
    words = {k for k, p in terminals.items() if p.type == "str" and str(p.value).isalpha()}
    assert words | {"SUBJECT_TO"} == set(tokens.KEYWORDS.values())


def test_foreign_operators_are_lexed_as_such(loaded):
    for text in tokens.FOREIGN_OPERATORS:
        assert [t.type for t in loaded.lex(text)] == ["FOREIGN_OPERATOR"], text
    assert set(tokens.FOREIGN_WORDS.values()) <= set(tokens.KEYWORDS)


def test_cache_is_written_read_and_replaced_when_damaged(tmp_path, monkeypatch):
    path = tmp_path / "deep" / "blv.tables"
    monkeypatch.setattr(module, "cache_file", lambda: path)
    module.load()
    content = path.read_bytes()
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    monkeypatch.setattr(module.lark, "Lark", _NoBuild)
    restored = module.load()
    assert [t.type for t in restored.lex("dim n;")] == ["DIM", "NAME", "SEMICOLON"]
    monkeypatch.undo()
    monkeypatch.setattr(module, "cache_file", lambda: path)
    for damaged in (b"", content[:-1]):
        path.write_bytes(damaged)
        assert module.load().parser is not None
        assert path.read_bytes()[32:] == content[32:] or path.read_bytes() != damaged


def test_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(module, "cache_file", lambda: tmp_path / "file" / "blv.tables")
    assert next(module.load().lex("dim")).type == "DIM"


def test_no_home_directory_is_no_error(monkeypatch):
    def fail():
        raise RuntimeError("no home directory")

    monkeypatch.setattr(module, "cache_file", fail)
    assert next(module.load().lex("dim")).type == "DIM"


class _NoBuild(module.lark.Lark):
    def __init__(self, *args, **kwargs):
        raise AssertionError("built again although the cache is good")
