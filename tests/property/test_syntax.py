"""Properties of parser and formatter on random texts and random expressions."""

from __future__ import annotations

from collections import Counter

import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilevelpy.diagnostics import Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.syntax import tokens
from bilevelpy.syntax.format import format_source
from bilevelpy.syntax.parser import parse
from tests.unit.syntax.samples import plain

QUICK = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
WORDS = [
    *tokens.KEYWORDS,
    *tokens.OPERATORS,
    *tokens.COMPARISONS,
    *tokens.PUNCTUATION,
    *tokens.FOREIGN_OPERATORS,
    "x",
    "y",
    "1",
    "2.",
    '"a"',
    "# c\n",
    "## d\n",
    "\n",
]


def survive(text):
    source = Source("m", text)
    result = parse(source)
    for found in result.diagnostics:
        assert render_full(found, {"m": source}).isascii()
        assert found.primary is not None
        assert 0 <= found.primary.span.start <= len(text)


@QUICK
@given(st.text())
def test_any_text(text):
    survive(text)


@QUICK
@given(st.lists(st.sampled_from(WORDS), max_size=40), st.sampled_from(["", " "]))
def test_any_words(words, separator):
    survive(separator.join(words))


@QUICK
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_any_words_in_a_level(words):
    survive("upper {\n" + " ".join(words) + "\n}\nlower f { minimize x; }\n")


NAMES = st.sampled_from(["a", "b", "x1", "long_name_of_something"])
NUMBERS = st.sampled_from(["1", "2.", ".5", "1e-3", "inf"])


def forms(inner):
    """Larger expressions from smaller ones, as texts that need no other parentheses."""
    value = inner.map(lambda e: f"({e})")
    atom = NAMES | NUMBERS | value
    pair = st.tuples(atom, atom)
    return st.one_of(
        st.lists(st.tuples(st.sampled_from(["+", "-", " * ", "/", "@"]), atom), min_size=1).map(
            lambda parts: "1" + "".join(o + a for o, a in parts)
        ),
        atom.map(lambda e: f"-{e}"),
        pair.map(lambda p: f"{p[0]}^{p[1]}"),
        atom.map(lambda e: f"{e}'"),
        st.lists(inner, min_size=1, max_size=3).map(lambda e: f"f({', '.join(e)})"),
        st.lists(inner, min_size=1, max_size=3).map(lambda e: f"a[{', '.join(e)}]"),
        st.lists(inner, min_size=1, max_size=3).map(lambda e: f"[{', '.join(e)}]"),
        inner.map(lambda e: f"sum({e} for i in I, (j, k) in J where i > 1 and not i == j)"),
        pair.map(lambda p: f"if {p[0]} < {p[1]} <= 3 or a != b then {p[0]} else {p[1]}"),
        inner.map(lambda e: f"# own\n{e}"),
        inner.map(lambda e: f"f(# trailing\n{e})"),
    )


EXPRESSIONS = st.recursive(NAMES | NUMBERS, forms, max_leaves=12)


@QUICK
@given(st.lists(EXPRESSIONS, min_size=1, max_size=3))
def test_formatter_keeps_tree_and_comments_and_is_stable(expressions):
    text = "".join(f"report r{k} = {e};\n" for k, e in enumerate(expressions))
    before = parse(Source("m", text))
    assert before.diagnostics == []
    once = format_source(text).text
    assert once is not None
    after = parse(Source("m", once))
    assert plain(after.file) == plain(before.file)
    assert Counter(c.text for c in after.comments) == Counter(c.text for c in before.comments)
    assert format_source(once).text == once
