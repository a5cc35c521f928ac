"""Long, deep and growing texts end in time, in a program or a message."""

from __future__ import annotations

import random
import re
import time

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.diagnostics.render import render_full
from bilevelpy.sema import check
from tests.unit.sema.samples import FIRMS, RIDGE, TOLL, codes

CHAIN = 2000
TEXTS = {
    "flat sum": "upper { var x; minimize " + " + ".join(f"{k}*x" for k in range(10_000)) + "; }",
    "parentheses": "upper { var x; minimize " + "(" * 190 + "x" + " + 1)" * 190 + "; }",
    "calls": "upper { var x; minimize " + "exp(" * 190 + "x" + ")" * 190 + "; }",
    "chain of functions": "def f0(x) = x^2;"
    + "".join(f"def f{k + 1}(x) = f{k}(x) + 1;" for k in range(CHAIN))
    + f"upper {{ var x; minimize f{CHAIN}(x); }}",
    "chain of params": "param a0 = 1;"
    + "".join(f"param a{k + 1} = a{k} + 1;" for k in range(CHAIN))
    + f"upper {{ var x; minimize (x - a{CHAIN})^2; }}",
    "chain of lets": "upper { var x; let l0 = x;"
    + "".join(f"let l{k + 1} = l{k} * x + 1;" for k in range(CHAIN))
    + f" minimize l{CHAIN}; }}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_long_and_deep_texts(name: str) -> None:
    assert codes(TEXTS[name]) == []


@pytest.mark.parametrize(
    "body", ["f{k}(x + 1) + f{k}(2*x)", "f{k}(f{k}(x))", "f{k}(x) * f{k}(2*x)"]
)
def test_doubling_functions_end_in_a_message(body: str) -> None:
    text = "def f0(x) = x^2 + 1;" + "".join(
        f"def f{k + 1}(x) = {body.format(k=k)};" for k in range(60)
    )
    start = time.process_time()
    assert codes(text + "upper { var x; minimize f60(x); }") == ["BLV0227"]
    assert time.process_time() - start < 20


@pytest.mark.parametrize(
    "body", ["exp(f{k}(x)) + f{k}(x)", "f{k}(x) + f{k}(x)", "f{k}(x) + f{k}(2*x)"]
)
def test_doubling_that_shares_its_terms_is_fine(body: str) -> None:
    text = "def f0(x) = x^2 + 1;" + "".join(
        f"def f{k + 1}(x) = {body.format(k=k)};" for k in range(60)
    )
    assert codes(text + "upper { var x; minimize f60(x); }") == []


def test_broken_models_never_raise() -> None:
    rnd = random.Random(3)
    token = re.compile(r'"[^"\n]*"|[A-Za-z_]\w*|\d+\.?\d*|\.\.|->|<=|>=|==|!=|\s+|.', re.DOTALL)
    texts = [token.findall(t) for t in (RIDGE, TOLL, FIRMS)]
    pool = [t for tokens in texts for t in tokens if t.strip()]
    for _ in range(150):
        tokens = list(rnd.choice(texts))
        for _ in range(rnd.choice([1, 1, 2, 4])):
            tokens[rnd.randrange(len(tokens))] = rnd.choice(pool)
        found = check(Source("<text>", "".join(tokens)))
        errors = [d for d in found.diagnostics if d.severity == "error"]
        assert (found.program is None) == bool(errors)
        for diagnostic in found.diagnostics:
            render_full(diagnostic, found.sources)


@pytest.mark.parametrize(
    "text",
    [
        "set S0; " + "".join(f"set S{k + 1} within S{k};" for k in range(500)),
        "set S0; " + "".join(f"set S{k + 1} within S{k} * S{k};" for k in range(40)),
        "set S0 = 1..9; " + "".join(f"set S{k + 1} = S{k} diff {{{k}}};" for k in range(500)),
    ],
    ids=["subsets", "pairs of pairs", "differences"],
)
def test_sets_of_sets_end_in_a_message(text: str) -> None:
    assert codes(text + "upper { var x; minimize x^2; }") == ["BLV0319"]


def test_a_flood_of_unknown_names() -> None:
    names = range(1500)
    text = "upper { var " + ", ".join(f"value_{k}" for k in names)
    text += "; minimize " + " + ".join(f"valeu_{k}" for k in names) + "; }"
    start = time.process_time()
    assert len(codes(text)) == len(names)
    assert time.process_time() - start < 15


@pytest.mark.parametrize("index", ["inf", "-inf", "inf - inf", "1/0", "1e300", "0.5"])
def test_absurd_numbers_as_subscripts(index: str) -> None:
    text = "dim n; set T = {1, 2}; param y[n], h[T]; upper { var x; minimize x^2; }"
    for code in codes(f"{text} report r = y[{index}]; report q = h[{index}];"):
        assert code == "BLV0306"
