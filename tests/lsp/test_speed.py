"""What a request costs while somebody types, in a file of 300 lines."""

from __future__ import annotations

import time

import pytest

pytest.importorskip("pygls", reason="the language server needs the extra `lsp`")

from lsprotocol import types

from bilevelpy.lsp import complete, describe, navigation, tokens
from bilevelpy.lsp.document import Document


def long_model(lines: int = 300) -> str:
    """A model of that many lines: params, lets, constraints, two levels."""
    each = (lines - 20) // 4
    head = ["model long;", "dim n, p;", "param X[n, p], y[n];"]
    data = [f"param c{k} in [0, 10] = {k % 10};" for k in range(each)]
    upper = ["upper {", "  var lam[p] in [-10, 10] start 0;", "  minimize mean((X @ w - y)^2);"]
    rows = ["  subject to", *(f"    r{k}: sum(exp(lam)) <= c{k} + 5;" for k in range(each))]
    lower = ["}", "lower fit {", "  var w[p];"]
    lets = [f"  let t{k} = c{k} * sum(exp(lam) * w^2);" for k in range(each)]
    uses = [f"      + t{k}" for k in range(each)]
    end = ["  minimize mean((X @ w - y)^2)", *uses, "      + sumsq(w);", "}"]
    return "\n".join([*head, *data, *upper, *rows, *lower, *lets, *end]) + "\n"


def requests(document: Document, before: Document) -> dict[str, object]:
    """What an editor asks at every key."""
    text = document.source.text
    offset = text.index("minimize mean") + len("minimize me")
    return {
        "completion": complete.complete(document, before.state, offset, []),
        "colours": tokens.semantic_tokens(document, before.state),
        "outline": navigation.symbols(document),
    }


def test_while_typing_nothing_waits_for_a_check() -> None:
    text = long_model()
    assert 290 <= text.count("\n") <= 310
    before = Document("file:///m/long.blv", text, 1)
    assert before.diagnostics == []
    after = Document("file:///m/long.blv", text.replace("sumsq(w);", "sumsq(w"), 2)
    answers = requests(after, before)
    assert all(answers.values())
    assert not after.is_checked


@pytest.mark.bench
def test_a_request_takes_less_than_a_tenth_of_a_second() -> None:
    before = Document("file:///m/long.blv", long_model(), 1)
    before.diagnostics  # noqa: B018 - tables and tokens are loaded now
    for version in range(3):
        document = Document("file:///m/long.blv", long_model() + f"# {version}\n", version)
        for name in ("completion", "colours", "outline"):
            fresh = Document(document.uri, document.source.text, version)
            began = time.process_time()
            requests_of = {
                "completion": lambda d: complete.complete(d, before.state, 100, []),
                "colours": lambda d: tokens.semantic_tokens(d, before.state),
                "outline": navigation.symbols,
            }
            requests_of[name](fresh)
            assert time.process_time() - began < 0.1, name
        # The check itself waits for a pause; it may take longer, on a machine with other work.
        began = time.process_time()
        assert document.diagnostics == []
        assert time.process_time() - began < 0.3


@pytest.mark.bench
def test_what_is_asked_in_a_pause_takes_less_too() -> None:
    """Hover, places, renaming, layout and fixes of a checked text; `minimize` has the longest."""
    describe.warm_up()
    text = long_model()
    offset = text.index("lam) * w") + 1
    everywhere = types.Range(types.Position(0, 0), types.Position(999, 0))
    asked = {
        "hover": lambda d: describe.hover(d, d.use_at(offset), {}),
        "objective": lambda d: describe.objective(d, "fit"),
        "model": describe.model,
        "definition": lambda d: navigation.definition(d, offset),
        "references": lambda d: navigation.references(d, offset, True),
        "rename": lambda d: navigation.rename(d, offset, "fresh"),
        "layout": navigation.formatted,
        "fixes": lambda d: navigation.actions(d, everywhere),
    }
    for name, ask in asked.items():
        document = Document("file:///m/long.blv", text + f"# {name}\n", 1)
        assert document.diagnostics == []
        began = time.process_time()
        ask(document)
        assert time.process_time() - began < 0.1, name
