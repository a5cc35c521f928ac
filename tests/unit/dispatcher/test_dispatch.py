"""Which backend is chosen for which structure, and how a refusal reads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.backends import registry
from bilevelpy.backends.base import Accept, Cost, Reject
from bilevelpy.dispatcher import RULES, Rejection, dispatch
from bilevelpy.dispatcher.conditions import (
    BLOCK_KEPT,
    DENSE,
    DENSE_BY_PRODUCTS,
    DENSE_KEPT,
    DENSE_MOVING,
    ILL,
)
from bilevelpy.errors import BackendError, UsageError
from tests.unit.analysis.models import (
    BOX,
    FIRMS,
    KINKED,
    LINEAR,
    MERELY_CONVEX,
    QUADRATIC,
    RIDGE,
    RIDGE_DATA,
    facts,
)


class Fake:
    """A backend that accepts everything, or nothing for a stated reason."""

    def __init__(self, name, accepts=True, work=1.0):
        self.name = name
        self._accepts = accepts
        self.work = work

    def accepts(self, structure):
        if self._accepts:
            return Accept("takes everything")
        return Reject("needs more", structure.convexity)

    def cost(self, structure):
        return Cost(self.work, 0.0)


@pytest.fixture(scope="module")
def ridge():
    return facts(RIDGE, **RIDGE_DATA)


def real():
    return [registry.get(name) for name in ("direct", "aid", "qnbo")]


def sized(structure, m, hessian="depends on x", low=1.0, high=2.0, passes=None):
    spectrum = Fact((low, high), Evidence.OBSERVED, "")
    moves = Fact(hessian, Evidence.PROVED, "")
    seen = Fact(passes, Evidence.PROVED, "")
    return replace(structure, dim_y=m, lower_hessian=moves, spectrum=spectrum, hessian_passes=seen)


def test_small_lower_levels_go_to_direct(ridge):
    found = dispatch(ridge, backends=real())
    assert found.chosen == "direct"
    assert found.options == {}
    assert found.ranked[0] == "direct"
    assert set(found.ranked) == {"direct", "aid", "qnbo"}
    assert found.rejected == {}
    assert found.why


def test_constant_hessian_is_factorised_once():
    s = facts(QUADRATIC.format(domain=""), A=np.eye(3), B=np.eye(3), z=np.ones(3))
    found = dispatch(s, backends=real())
    assert (found.chosen, found.options) == ("direct", {"constant_hessian": True})


def test_boxes_go_to_direct():
    for text, data in ((BOX, {}), (FIRMS, {"c": np.ones(3)})):
        assert dispatch(facts(text, **data), backends=real()).chosen == "direct"


@pytest.mark.parametrize(
    ("m", "hessian", "high", "chosen"),
    [
        (DENSE, "constant", 2.0, "direct"),
        (DENSE_KEPT, "depends on x", 2.0, "direct"),
        (DENSE_KEPT + 1, "depends on x", 2.0, "aid"),
        (DENSE_BY_PRODUCTS, "depends on both", 2.0, "direct"),
        (DENSE_BY_PRODUCTS + 1, "depends on both", 2.0, "aid"),
        (DENSE_BY_PRODUCTS + 1, "depends on both", 2 * ILL, "aid"),
        (10 * DENSE, "depends on y", 1e6, "aid"),
    ],
)
def test_size_and_condition_choose(ridge, m, hessian, high, chosen):
    assert dispatch(sized(ridge, m, hessian, high=high), backends=real()).chosen == chosen


@pytest.mark.parametrize(("high", "most"), [(2.0, DENSE_MOVING), (2 * ILL, 2 * DENSE_MOVING)])
def test_condition_counts_where_y_moves_the_matrix(ridge, high, most):
    for m, chosen in ((most, "direct"), (most + 1, "aid")):
        s = sized(ridge, m, "depends on both", high=high, passes=1)
        assert dispatch(s, backends=real()).chosen == chosen


def test_ill_conditioned_blocks_count_by_themselves(ridge):
    large = sized(ridge, 5 * DENSE_MOVING, "depends on both", high=2 * ILL, passes=1)
    assert dispatch(large, backends=real()).chosen == "aid"
    assert dispatch(replace(large, blocks=5), backends=real()).chosen == "direct"
    tame = replace(sized(ridge, 5 * DENSE_MOVING, "depends on both", passes=1), blocks=5)
    assert dispatch(tame, backends=real()).chosen == "aid"


def test_blocks_that_x_alone_moves_go_to_direct(ridge):
    for size, chosen in ((BLOCK_KEPT, "direct"), (BLOCK_KEPT + 1, "aid")):
        s = replace(sized(ridge, 20 * size), blocks=20)
        assert dispatch(s, backends=real()).chosen == chosen


@pytest.mark.parametrize("kept", ["streamed", "statistics"])
def test_what_takes_programs_as_a_whole_takes_no_data_in_files(ridge, kept):
    large = replace(ridge, **{kept: Fact(10**12, Evidence.OBSERVED, "in files")})
    for name in ("exact", "nlp"):
        found = registry.get(name).accepts(large)
        assert "as a whole" in found.reason


def test_affine_predictors_make_dense_hessians_cheap(ridge):
    def chosen(passes):
        return dispatch(
            sized(ridge, DENSE_MOVING, "depends on both", passes=passes), backends=real()
        ).chosen

    assert chosen(1) == "direct"
    assert chosen(None) == "aid"


def test_unknown_condition_goes_to_aid(ridge):
    nothing = Fact(None, Evidence.OBSERVED, "")
    s = replace(sized(ridge, 10 * DENSE), spectrum=None, modulus=nothing, lipschitz=nothing)
    assert dispatch(s, backends=real()).chosen == "aid"


@pytest.mark.parametrize("text", [MERELY_CONVEX, KINKED, LINEAR])
def test_models_outside_of_every_theory_are_refused_with_the_fact(text):
    s = facts(text)
    with pytest.raises(BackendError, match="BLV0601") as refusal:
        dispatch(s, backends=real())
    shown = str(refusal.value)
    assert "--> model.blv:" in shown
    for name in ("direct", "aid", "qnbo"):
        assert name in shown


def test_named_backend_is_taken_where_it_accepts(ridge):
    found = dispatch(ridge, backend="qnbo", backends=real())
    assert (found.chosen, found.ranked[0]) == ("qnbo", "qnbo")


def test_named_backend_that_rejects_needs_force():
    s = facts(MERELY_CONVEX)
    with pytest.raises(BackendError, match=r"error\[BLV0602\].*`direct`"):
        dispatch(s, backend="direct", backends=real())
    forced = dispatch(s, backend="direct", force=True, backends=real())
    assert (forced.chosen, forced.forced) == ("direct", True)
    assert "may be wrong" in forced.warnings[0]


def test_unknown_backend_is_a_usage_error(ridge):
    with pytest.raises(UsageError, match="did you mean `direct`"):
        dispatch(ridge, backend="drect", backends=real())


def test_rejections_carry_the_fact(ridge):
    found = dispatch(ridge, backends=[Fake("one"), Fake("two", accepts=False)])
    assert found.chosen == "one"
    fact = ridge.convexity.reason
    assert found.rejected == {"two": f"needs more ({fact}, model.blv:6)"}
    assert found.rejections["two"] == Rejection("needs more", fact, "model.blv", 6, 56)


def test_backends_without_a_rule_are_ranked_by_work(ridge):
    found = dispatch(ridge, backends=[Fake("slow", work=9.0), Fake("fast")])
    assert found.ranked == ("fast", "slow")
    assert found.why == ("takes everything",)


def test_observed_facts_choose_with_a_warning(ridge):
    seen = Fact("strongly convex", Evidence.OBSERVED, "curvature 1 to 2 at 4 points")
    found = dispatch(replace(ridge, convexity=seen), backends=real())
    assert found.chosen == "direct"
    assert "observed, not proved" in found.warnings[0]


def test_nothing_installed_is_said(ridge):
    with pytest.raises(BackendError, match="there is no backend"):
        dispatch(ridge, backends=[])


def test_json(ridge):
    found = dispatch(ridge, backends=real()).to_json()
    assert found["backend"] == "direct"
    assert set(found) >= {"backend", "options", "why", "rejected"}
    json.dumps(found)


def test_the_last_rule_always_matches(ridge):
    assert RULES[-1].matches(sized(ridge, 10**9))
    assert len({rule.name for rule in RULES}) == len(RULES)


ROBUST = """
dim n, p;
param X[n, p], y[n];
upper { var c in [-2, 3] start 1; minimize sumsq(w); }
lower fit { var w[p]; minimize mean(exp(2*c) * log(1 + (X @ w - y)^2 * exp(-2*c))) + sumsq(w)/1e3; }
"""


@pytest.mark.parametrize(("rows", "chosen"), [(8, "exact"), (40, "direct")])
def test_long_sums_of_robust_losses_are_no_matter_for_a_global_search(rows, chosen):
    rng = np.random.default_rng(0)
    X, noise = rng.normal(size=(rows, 2)), rng.standard_t(2, size=rows)
    s = facts(ROBUST, X=X, y=X @ [1.0, -2.0] + 3 * noise)
    assert s.longest_sum == rows
    assert dispatch(s).chosen == chosen
