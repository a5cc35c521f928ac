"""No text, however broken, ends in an exception, a hang or deep recursion."""

from __future__ import annotations

import random
import re
import time

import pytest

from bilevelpy.diagnostics import Source
from bilevelpy.diagnostics.render import render_concise, render_full, render_github, to_json
from bilevelpy.syntax.parser import parse
from tests.unit.syntax.samples import SAMPLES, codes, expression


def survive(text):
    source = Source("model.blv", text)
    result = parse(source)
    for found in result.diagnostics:
        shown = render_full(found, {"model.blv": source})
        assert shown.isascii()
        assert max(map(len, shown.split("\n"))) < 2500
        render_concise(found, {"model.blv": source})
        render_github(found, {"model.blv": source})
        to_json(found, {"model.blv": source})
    return [found.code for found in result.diagnostics]


OBJECTIVE = "upper {{ minimize {}; }}"
DEEP = {
    "parentheses": "(" * 10_000 + "x" + ")" * 10_000,
    "open parentheses": "(" * 10_000,
    "signs": "-" * 10_000 + "x",
    "powers": "x" + "^x" * 10_000,
    "transposes": "x" + "'" * 10_000,
    "members": "x" + ".x" * 10_000,
    "subscripts": "x" + "[1]" * 10_000,
    "calls": "f(" * 10_000 + "x" + ")" * 10_000,
    "arrays": "[" * 10_000 + "1" + "]" * 10_000,
    "if": "if a < b then 1 else " * 10_000 + "x",
    "not": "sum(x for i in I where " + "not " * 10_000 + "i < 2)",
    "mixed": "-(x^f(1 + [2, -" * 3_000,
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_nesting_is_one_error(name):
    assert survive(OBJECTIVE.format(DEEP[name])) == ["BLV0111"]


@pytest.mark.parametrize("form", ["({})", "(1 + {})", "f({})", "[{}]", "x[{}]", "-{}", "x^{}"])
def test_the_limit_is_two_hundred(form):
    inner = "x"
    for _ in range(199):
        inner = form.replace("{}", inner)
    assert codes(OBJECTIVE.format(inner)) == []
    assert codes(OBJECTIVE.format(form.format(form.format(inner)))) == ["BLV0111"]


def test_other_statements_are_read_beside_a_deep_one():
    text = OBJECTIVE.format("(" * 300) + "\ndim n, p\nparam x;"
    assert survive(text) == ["BLV0111", "BLV0101"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "\ufeff",
        "\0" * 1000,
        "x" * 1_000_000,
        "#" * 1_000_000,
        '"' * 20_000,
        ";" * 20_000,
        "}" * 20_000,
        "{" * 20_000,
        "upper{" * 3_000,
        "upper{minimize x;\n" * 2_000,
        "upper{a: x <= 1; " * 2_000,
        "lower x " * 5_000,
        "/*" * 5_000,
        "subject to " * 5_000,
        "x: y <= 1\n" * 5_000,
        "upper { subject to " + "x: y <= 1\n" * 5_000,
        "set A = {" + "1" * 5_000 + "};",
        "param a = " + "1" * 5_000 + "e99999;",
        "a" + "\n" * 10_000 + "b",
    ],
    ids=lambda text: repr(text[:12]),
)
def test_odd_texts(text):
    survive(text)


def test_random_bytes():
    rng = random.Random(7)
    for _ in range(100):
        survive(rng.randbytes(rng.randrange(1500)).decode("utf-8", errors="replace"))


@pytest.mark.parametrize("name", SAMPLES)
def test_truncated_anywhere(name):
    text = SAMPLES[name]
    for end in range(0, len(text), 1 if name == "toll" else 7):
        source = Source("model.blv", text[:end])
        assert len(parse(source).diagnostics) <= 3, text[:end]


def test_mutated_samples():
    rng = random.Random(11)
    parts = [re.findall(r"\w+|\s+|.", text) for text in SAMPLES.values()]
    pool = [part for sample in parts for part in sample]
    for _ in range(150):
        text = list(rng.choice(parts))
        for _ in range(rng.randrange(1, 4)):
            k = rng.randrange(len(text))
            text[k : k + rng.randrange(2)] = [rng.choice(pool)]
        survive("".join(text))


def test_long_flat_sum_is_fast():
    text = " + ".join(f"x{i}" for i in range(10_000))
    expression("x")
    start = time.process_time()
    assert len(expression(text).terms) == 10_000
    assert time.process_time() - start < 3


def test_parsing_from_several_threads():
    from concurrent.futures import ThreadPoolExecutor

    def work(k):
        name = f"file{k}"
        file = parse(Source(name, SAMPLES["firms"])).file
        return {item.span.file for item in file.items} == {name}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(40)))
