"""The decision table: as the documentation shows it, and row by row on models it is made for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.dispatch_models import catalogue
from benchmarks.dispatch_report import report, rules
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.dispatcher import RULES, dispatch
from bilevelpy.dispatcher import conditions as c
from tests.unit.analysis.models import (
    BOX,
    KINKED,
    LINEAR,
    MERELY_CONVEX,
    PL,
    QUADRATIC,
    RIDGE,
    RIDGE_DATA,
    facts,
)

PAGE = Path(__file__).parents[3] / "docs" / "dispatcher.md"


def test_the_page_shows_the_table_of_the_package() -> None:
    """`python -m benchmarks.dispatch --report --write` renews it."""
    assert rules() in PAGE.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "data", "row", "chosen"),
    [
        (LINEAR, {}, 1, "exact"),
        (
            QUADRATIC.format(domain=""),
            {"A": np.eye(3), "B": np.eye(3), "z": np.ones(3)},
            2,
            "direct",
        ),
        (RIDGE, RIDGE_DATA, 4, "direct"),
        (BOX, {}, 8, "direct"),
        (MERELY_CONVEX, {}, 11, "slbamm"),
        (KINKED, {}, 12, "exact"),
    ],
)
def test_rows(text: str, data: dict, row: int, chosen: str) -> None:
    decision = dispatch(facts(text, **data))
    assert (decision.row, decision.chosen) == (row, chosen)


def test_many_bounds_below_go_to_steps_over_pieces() -> None:
    """Beyond few variables that hang together; independent ones are a batch."""
    s = facts(BOX)
    many = replace(s, dim_x=2, dim_y=20, blocks=1)
    assert dispatch(many).chosen == "kkt"
    for other in (replace(many, dim_y=19), replace(many, blocks=20), replace(many, dim_x=1)):
        assert dispatch(other).chosen == "direct"
    moving = replace(many, dim_x=20, lower_hessian=replace(s.lower_hessian, value="depends on y"))
    assert dispatch(replace(moving, dim_y=300)).chosen == "kkt"
    for other in (replace(moving, dim_y=301), replace(moving, longest_sum=1001)):
        assert dispatch(other).chosen != "kkt"


NETWORK = """
model network; dim n; param u[n], t[n];
upper { var lam in [-6, 2] start -2; minimize mean((c*tanh(a*u) - t)^2); }
lower L { var a start 0.1, c start 0.1; minimize mean((c*tanh(a*u) - t)^2) + exp(lam)*(a^2 + c^2); }
"""


def test_sums_that_are_not_convex_leave_one_stochastic_method() -> None:
    """Row 16, without a claim; data in files puts it first."""
    s = facts(NETWORK, u=np.linspace(-1, 1, 9), t=np.linspace(-2, 2, 9))
    seen = replace(s, convexity=Fact("nonconvex", Evidence.OBSERVED, ""), unique=s.unique)
    decision = dispatch(seen)
    assert decision.row == 13
    assert "f2sa" in decision.ranked
    assert not {"saba", "soba", "srba", "stocbio", "pzobo_s"} & set(decision.ranked)
    trained = replace(seen, dim_y=c.MANY_LOWER, longest_sum=c.SHORT_SUM + 1)
    assert dispatch(trained).row == 13  # few upper variables: accurate steps
    many = replace(trained, dim_x=c.FEW_UPPER + 1)
    few = replace(many, dim_y=c.MANY_SHORT, longest_sum=c.SHORT_SUM)
    assert dispatch(replace(few, dim_y=c.MANY_LOWER)).row == 13
    assert (dispatch(few).row, dispatch(few).chosen) == (13, "pbgd")
    assert dispatch(few).ranked[1] == "f2sa"
    for large in (many, replace(seen, dim_y=c.TRAINED)):
        assert (dispatch(large).row, dispatch(large).chosen) == (16, "f2sa")
    wide = replace(seen, dim_y=c.MANY_FOREIGN, dim_x=c.FEW_UPPER + 1)
    assert dispatch(wide).row == 13
    foreign = replace(wide, externs=Fact(("net",), Evidence.PROVED, "from outside"))
    assert (dispatch(foreign).row, dispatch(foreign).chosen) == (16, "f2sa")
    found = dispatch(replace(seen, streamed=Fact(10**12, Evidence.PROVED, "in files")))
    assert (found.row, found.chosen) == (16, "f2sa")
    assert "not known to be strongly convex" in " ".join(found.warnings)


def test_stochastic_methods_refuse_rows() -> None:
    s = facts(
        "model m; dim n; param u[n]; upper { var x in [0, 1]; minimize x^2 + mean((u - y)^2); }"
        "lower L { var y; minimize mean((u - y*x)^2) + y^2; subject to cap: y <= x; }",
        u=np.arange(5.0),
    )
    ranked = dispatch(s).ranked
    assert not {"saba", "soba", "srba", "f2sa", "pzobo_s"} & set(ranked)


def test_models_that_are_not_convex_get_local_claims_only_from_methods_made_for_them() -> None:
    decision = dispatch(facts(PL))
    assert decision.row == 13
    assert not {"nbo", "qnbo", "itd"} & set(decision.ranked)
    # Implicit differentiation holds near one minimiser: these two say so, and the certificate looks
    # for better ones.
    assert decision.ranked.index("direct") < decision.ranked.index("pbgd")


def test_large_models_leave_the_dense_solver() -> None:
    s = facts(RIDGE, **RIDGE_DATA)
    large = replace(s, dim_y=c.DENSE_KEPT + 1)
    assert dispatch(s).chosen == "direct"
    assert dispatch(large).row in (5, 6)
    assert dispatch(large).chosen in ("aid", "nbo")


@pytest.mark.parametrize("evidence", list(Evidence))
def test_merely_convex_levels_whatever_the_evidence(evidence: Evidence) -> None:
    """6.3: methods that need a unique response are not even ranked."""
    s = facts(RIDGE, **RIDGE_DATA)
    flat = replace(s, convexity=Fact("convex", evidence, ""), unique=Fact(None, evidence, ""))
    ranked = dispatch(flat).ranked
    assert ranked[0] == "slbamm"
    assert not {"direct", "aid", "nbo", "qnbo", "itd"} & set(ranked)


def test_what_follows_where_aggregation_stalls_on_a_merely_convex_level() -> None:
    """Tiny ones by their optimality conditions; these take too long where there are more."""
    s = facts(MERELY_CONVEX)
    assert dispatch(s).ranked[:3] == ("slbamm", "nlp", "meha")
    assert dispatch(replace(s, dim_y=c.FEW_LOWER + 1)).ranked[:2] == ("slbamm", "meha")


def test_every_condition_has_words_and_every_rule_a_reason() -> None:
    s = facts(RIDGE, **RIDGE_DATA)
    for rule in RULES:
        assert rule.when
        assert all(condition.words for condition in rule.when)
        assert "{" not in rule.reason(s)


def test_the_catalogue_of_the_study() -> None:
    """At least 40 models of different structure, by names that differ."""
    entries = catalogue()
    assert len(entries) >= 40
    assert len({e.name for e in entries}) == len(entries)
    assert len({e.kind for e in entries}) >= 15


def test_the_report_counts_what_was_stored() -> None:
    """Two models; `auto` solves one, twice as slow as the best backend."""
    first, second = catalogue()[:2]
    runs = {
        f"{first.name} | auto": {"status": "converged", "cpu": 0.4, "F": 1.0, "backend": "aid"},
        f"{first.name} | direct": {"status": "converged", "cpu": 0.2, "F": 1.0},
        f"{first.name} | aid": {"status": "converged", "cpu": 0.4, "F": 1.0},
        f"{second.name} | auto": {"status": "stalled", "cpu": 0.1, "F": 1.0, "backend": "aid"},
        f"{second.name} | direct": {"status": "wrong", "cpu": 0.1, "F": 1.0},
    }
    text = report([first, second], runs)
    assert "`auto` solves 1 of 2 models (50%)" in text
    assert "is 2.00 times that of the best" in text
    assert "| direct | 2 | 1 | 1 | 0 | 0 | 0.50 |" in text


MARGINS = """
model margins; dim n, p; param X[n, p], s[n];
upper { var t in [-3, 3] start 0; minimize UPPER; }
lower fit { var w[p]; minimize LOWER; ROWS }
"""
HINGE = "sum(max(0, 1 - s[i] * (X[i, :] @ w)) for i in n)"


@pytest.mark.parametrize(
    ("lower", "upper", "rows", "n", "chosen"),
    [
        (f"{HINGE} + exp(t) * sumsq(w)", "sumsq(w)", "", 80, "kkt"),
        (f"{HINGE} + exp(t) * sumsq(w)", f"{HINGE}", "", 80, "kkt"),
        (f"{HINGE} + exp(t) * sumsq(w)", "sumsq(w)", "", 10, "exact"),
        (f"{HINGE} + exp(t) * norm1(w)", "sumsq(w)", "", 80, "nlp"),  # a linear program
        (f"{HINGE} - exp(t) * sumsq(w)", "sumsq(w)", "", 80, "exact"),
        (f"{HINGE} + exp(t) * sumsq(w)", "sumsq(w)", "subject to c: sum(w) <= t;", 80, "exact"),
        (f"{HINGE} + exp(t) * sumsq(w)", "sumsq(w)", "subject to c: sum(w) <= t;", 160, "kkt"),
        ("mean(logistic(X @ w)) + sum(abs(X @ w)) + exp(t)*sumsq(w)", "sumsq(w)", "", 40, "kkt"),
        # The absolute value of a kink is no maximum of affine functions.
        ("max(abs(min(w[1] - t, 2 - w[2])), w[3]) + sumsq(w)", "sumsq(w)", "", 10, "exact"),
    ],
)
def test_kinks_that_epigraphs_stand_for(lower, upper, rows, n, chosen) -> None:
    """Rows take their place where they leave a response that moves; few of them are proved."""
    rng = np.random.default_rng(0)
    text = MARGINS.replace("LOWER", lower).replace("UPPER", upper).replace("ROWS", rows)
    data = {"X": rng.standard_normal((n, 3)), "s": rng.choice([-1.0, 1.0], n)}
    assert dispatch(facts(text, **data)).chosen == chosen
