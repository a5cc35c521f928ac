"""Objectives whose parts are shared: names are put in nowhere, however often they are read."""

from __future__ import annotations

import pytest

import bilevelpy
from bilevelpy.analysis import analyze
from bilevelpy.analysis.forms.scope import make_scope, names_of
from bilevelpy.analysis.forms.terms import DEEP, MANY, split
from bilevelpy.analysis.structure import Evidence
from tests.steps import steps
from tests.unit.analysis.models import facts

HEAD = "upper { var x in [0, 1]; minimize x + y; } lower f { var y in [-1, 1]; "


def chain(first: str, each: str, n: int, last: str = "") -> str:
    lines = " ".join(each.replace("{k}", str(k)).replace("{j}", str(k - 1)) for k in range(1, n))
    return f"{HEAD} let a0 = {first}; {lines} minimize a{n - 1}{last}; }}"


def terms(text: str) -> list:
    model = bilevelpy.parse(text)
    level = model.program.lowers[0]
    own, other = names_of([level]), names_of([model.program.upper])
    return split(make_scope(model.bound, [level.objective], own, other), level.objective)


def test_a_chain_that_doubles_is_opened_in_proportion_to_the_text():
    doubled = "let a{k} = 0.5 * a{j} + x * a{j} + y;"
    few, many = (terms(chain("y^2", doubled, n)) for n in (100, 400))
    assert len(few) < MANY
    assert len(many) < 4.8 * len(few)


def test_what_is_short_is_opened_whole():
    assert len(terms(chain("y^2", "let a{k} = 0.5 * a{j} + x * a{j};", 8))) == 2**7


def test_factors_of_a_chain_are_not_piled_up():
    found = terms(chain("exp(y)", "let a{k} = 0.5 * a{j} + exp(a{j});", 200))
    assert max(len(t.factors) for t in found) <= DEEP + 1


@pytest.mark.parametrize(
    ("each", "kind"),
    [
        ("let a{k} = 0.5 * a{j} + 0.25 * a{j} + 1;", "strongly convex"),
        ("let a{k} = 0.1 * a{j} + exp(a{j} - 9);", "strongly convex"),
        ("let a{k} = max(0.5 * a{j}, -y) + 0.25 * a{j};", "strongly convex"),
        ("let a{k} = a{j} - 0.5 * exp(a{j});", "unknown"),
    ],
)
def test_long_chains_are_judged(each, kind):
    s = facts(chain("(y - x)^2", each, 600, " + y^2"), probed=False)
    assert s.convexity.value == kind
    if kind != "unknown":
        assert s.convexity.evidence is Evidence.PROVED


def test_judging_takes_work_in_proportion_to_the_text():
    def work(n: int) -> int:
        text = chain("(y - x)^2", "let a{k} = 0.5 * a{j} + exp(a{j} - 9);", n, " + y^2")
        model = bilevelpy.parse(text)
        return steps(lambda: analyze(model.bound))

    work(3)
    assert work(120) < 4.8 * work(30)
