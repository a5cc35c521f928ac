"""Facts of the validation cases and of typical learning models."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.analysis import describe, to_json
from bilevelpy.analysis.analyze import analyze
from bilevelpy.analysis.structure import Evidence
from tests.unit.analysis.models import (
    BOX,
    CLEANING,
    FIRMS,
    LABELS,
    LASSO,
    LINEAR,
    LOGISTIC,
    MERELY_CONVEX,
    PL,
    QUADRATIC,
    RIDGE,
    RIDGE_DATA,
    SIMPLEX,
    T,
    X,
    bound,
    facts,
)


def test_ridge_is_proved_strongly_convex_with_its_modulus():
    s = facts(RIDGE, **RIDGE_DATA)
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.PROVED)
    assert s.modulus.value == pytest.approx(math.exp(-10), rel=1e-9)
    assert s.modulus.value <= math.exp(-10)
    assert s.lower.form.value == "quadratic"
    assert s.lower_hessian.value == "depends on x"
    assert s.finite_sum_lower.value == ("n",)
    assert s.finite_sum_upper.value == ("m",)
    assert (s.dim_x, s.dim_y, s.followers) == (4, 4, 1)
    assert s.unique.value is True
    low, high = s.spectrum.value
    hessian = X.T @ X / 20 + np.eye(4)
    assert (low, high) == pytest.approx(
        (np.linalg.eigvalsh(hessian)[0], np.linalg.eigvalsh(hessian)[-1])
    )
    assert s.condition == pytest.approx(high / low)
    assert s.warnings == ()
    assert dict(s.unsupported) == {}


def test_json_has_the_published_vocabulary():
    found = to_json(facts(RIDGE, **RIDGE_DATA))
    assert found["model"] == "ridge"
    assert found["dimensions"] == {
        "upper": 4,
        "lower": 4,
        "upper_constraints": 0,
        "lower_constraints": 0,
        "followers": 1,
    }
    lower = found["lower"]
    assert (lower["class"], lower["convexity"], lower["evidence"]) == (
        "quadratic",
        "strongly convex",
        "proved",
    )
    assert (lower["smooth"], lower["constraints"], lower["finite_sum_over"]) == (
        True,
        "none",
        ["n"],
    )
    assert found["upper"]["class"] == "quadratic"
    assert found["upper"]["bounds"] is True
    assert found["upper"]["coupling_constraints"] is False
    assert found["discrete"] is False
    json.dumps(found, allow_nan=False)


def test_description_names_the_place_of_each_fact():
    text = describe(facts(RIDGE, **RIDGE_DATA))
    assert "strongly convex" in text
    assert "(model.blv:6)" in text


def test_logistic_loss_with_a_penalty():
    s = facts(LOGISTIC, X=X, t=np.sign(T))
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.PROVED)
    assert s.modulus.value == pytest.approx(2 * math.exp(-5))
    assert s.lower_hessian.value == "depends on both"


def test_hyper_cleaning_needs_the_signs_of_weights_and_labels():
    s = facts(CLEANING, X=X, T=LABELS)
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.PROVED)
    assert s.modulus.value == pytest.approx(0.002)


def test_signs_of_undeclared_data_are_read_from_the_data():
    text = CLEANING.replace(" in [0, 1];", ";")
    assert facts(text, probed=False, X=X, T=LABELS).convexity.value == "strongly convex"
    assert facts(text, probed=False, X=X, T=LABELS - 0.5).convexity.value == "unknown"


def test_constant_hessian_of_unknown_sign_is_decided_by_its_eigenvalues():
    A = np.diag([1.0, 2.0, 3.0])
    s = facts(QUADRATIC.format(domain=""), A=A, B=np.eye(3), z=np.ones(3))
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.PROVED)
    assert (s.modulus.value, s.lipschitz.value) == pytest.approx((1.0, 3.0))
    assert s.lower_hessian.value == "constant"
    indefinite = facts(
        QUADRATIC.format(domain=""), A=A - 1.5 * np.eye(3), B=np.eye(3), z=np.ones(3)
    )
    assert indefinite.convexity.value == "nonconvex"
    assert [w.code for w in indefinite.warnings] == ["BLV0503"]


def test_semidefinite_param_proves_convexity_from_the_text():
    A = np.ones((3, 3))
    s = facts(QUADRATIC.format(domain=" in psd"), probed=False, A=A, B=np.eye(3), z=np.ones(3))
    assert (s.convexity.value, s.convexity.evidence) == ("convex", Evidence.PROVED)


def test_merely_convex_counterexample_is_convex_and_not_unique():
    for probed in (True, False):
        s = facts(MERELY_CONVEX, probed=probed)
        assert (s.convexity.value, s.convexity.evidence) == ("convex", Evidence.PROVED)
        assert s.modulus.value is None
        assert s.unique.value is False
        assert "y2" in s.unique.reason


def test_nonconvex_lower_level_is_seen():
    s = facts(PL)
    assert (s.convexity.value, s.convexity.evidence) == ("nonconvex", Evidence.OBSERVED)
    assert s.modulus.value is None
    assert [w.code for w in s.warnings] == ["BLV0503"]


def test_many_minimisers_of_a_sine_are_nonconvex_and_separable():
    s = facts(
        "model m; dim n = 2; upper { var x; minimize (x - 2)^2 + sumsq(y); }"
        "lower L { var y[n]; minimize sum(sin(x + y)); }"
    )
    assert s.convexity.value == "nonconvex"
    assert s.block_separable.value == ("n",)


def test_box_and_simplex_are_bounds():
    box = facts(BOX)
    assert (box.lower.constraints.value, box.convexity.value) == ("bounds", "strongly convex")
    simplex = facts(SIMPLEX, t=np.full(5, 0.2))
    assert simplex.lower.constraints.value == "bounds"
    assert simplex.lower.domains.value == {"simplex"}
    # A simplex joins the entries that the objective keeps apart.
    assert simplex.block_separable.value == ()


def test_entropy_on_the_simplex_is_strongly_convex():
    text = SIMPLEX.replace("sumsq(y)/2 - dot", "-0.5*entropy(y) - dot")
    s = facts(text, probed=False, t=np.full(5, 0.2))
    assert s.convexity.value == "strongly convex"
    assert s.modulus.value == pytest.approx(0.5)


def test_lasso_has_a_kink():
    s = facts(LASSO)
    assert s.lower.smooth.value is False
    assert s.sources["model.blv"].text[s.lower.smooth.span.start :].startswith("abs(y)")
    assert s.convexity.value == "strongly convex"


def test_linear_lower_level_with_rows():
    s = facts(LINEAR, probed=False)
    assert (s.lower.form.value, s.lower.constraints.value) == ("linear", "linear")
    assert (s.lower_constraints, s.upper_constraints) == (2, 0)
    assert list(s.unsupported) == ["lower_constraints"]


def test_family_of_maximising_firms():
    s = facts(FIRMS, probed=False, c=np.ones(3))
    assert (s.convexity.value, s.convexity.evidence) == ("strongly convex", Evidence.PROVED)
    assert s.modulus.value == pytest.approx(2.0)
    assert (s.followers, s.dim_y) == (3, 3)
    assert s.block_separable.value == ("F",)


def test_set_valued_lower_level_is_not_called_unique():
    s = facts(
        "model m; upper { var x in [-1, 1]; minimize x^2 + y; } "
        "lower L { var y in [-1, 1]; minimize x*y; }"
    )
    assert (s.convexity.value, s.lower.form.value) == ("convex", "linear")
    assert s.unique.value is None


@pytest.mark.parametrize(
    "lower",
    ["var y in integers(0, 2); minimize (y - x)^2;",
     "var y in [-2, 2]; minimize y^2; subject to r: y^2 >= 1 + x;"],
)  # fmt: skip
def test_a_strongly_convex_objective_ties_where_the_set_is_not_convex(lower):
    text = f"model m; upper pessimistic {{ var x in [0, 1]; minimize y; }} lower L {{ {lower} }}"
    s = analyze(bl.parse(text).bound)
    assert s.convexity.value == "strongly convex"
    assert s.unique.value is None
    assert "pessimistic" in s.unsupported


def test_pessimistic_stance_matters_only_where_solutions_tie():
    assert "pessimistic" not in facts(BOX.replace("upper", "upper pessimistic")).unsupported
    ties = (
        "model m; upper pessimistic { var x in [-1, 1]; minimize x^2 + y; } "
        "lower L { var y in [-1, 1]; minimize x*y; }"
    )
    assert "pessimistic" in facts(ties).unsupported


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("model m; upper { var x; minimize x^2; }", "single_level"),
        (
            "model m; upper { var z in binary; minimize z + y; } "
            "lower L { var y; minimize (y - z)^2; }",
            "discrete",
        ),
        (
            "model m; upper { var x; minimize x + y; } "
            "lower L { var y in integers(0, 5); minimize (y - x)^2; }",
            "discrete",
        ),
        (
            "model m; upper { var x; minimize x^2 + y; subject to c: x + y <= 1; } "
            "lower L { var y; minimize (y - x)^2; }",
            "coupling",
        ),
        (
            "model m; upper { var x; minimize x^2 + y; subject to c: x <= 1; } "
            "lower L { var y; minimize (y - x)^2; }",
            "upper_constraints",
        ),
        (
            "model m; upper { var x; minimize x^2 + dual(L.c); } "
            "lower L { var y; minimize (y - x)^2; subject to c: y <= 1; }",
            "duals",
        ),
        (
            "model m; dim k = 2; upper { var x; minimize x^2 + trace(Y); } "
            "lower L { var Y[k, k] in psd; minimize sumsq(Y) - x*trace(Y); }",
            "psd",
        ),
        (
            "model m; set F = 1..2; upper { var x; minimize x^2 + sum(f.q); }"
            "lower f[i in F] nash"
            "{ var q in [0, 9]; minimize q^2 + q*sum(f.q[j] for j in F) - x*q; }",
            "nash",
        ),
    ],
)
def test_what_cannot_be_solved_yet_is_named(text, key):
    s = facts(text, probed=False)
    assert key in s.unsupported
    assert s.unsupported[key].reason


def test_convex_and_nonconvex_rows():
    text = (
        "model m; upper {{ var x; minimize x^2 + y; }} "
        "lower L {{ var y; minimize (y - x)^2; subject to c: {row}; }}"
    )
    assert facts(text.format(row="y^2 <= 1"), probed=False).lower.constraints.value == "convex"
    assert facts(text.format(row="y^2 >= 1"), probed=False).lower.constraints.value == "nonconvex"
    assert facts(text.format(row="y^2 == 1"), probed=False).lower.constraints.value == "nonconvex"


def test_kinks_that_squares_remove():
    text = (
        "model m; dim n = 3; upper {{ var x; minimize x^2 + sumsq(y); }} "
        "lower L {{ var y[n]; minimize {f}; }}"
    )
    assert facts(text.format(f="norm2(y - x)^2"), probed=False).lower.smooth.value
    squared_hinge = facts(text.format(f="sum(relu(1 - y)^2) + sumsq(y)"), probed=False).lower.smooth
    assert squared_hinge.value
    assert "one derivative" in squared_hinge.reason
    huber = facts(text.format(f="sum(huber(y - x)) + sumsq(y)"), probed=False).lower.smooth
    assert huber.value
    assert "one derivative" in huber.reason
    for kinked in (
        "norm2(y)",
        "sqrt(sumsq(y))",
        "sum(max(y, x))",
        "sum(abs(y)) + sumsq(y)",
        "norm2(y)^2 + norm2(y)",
    ):
        assert not facts(text.format(f=kinked), probed=False).lower.smooth.value, kinked
    assert facts(text.format(f="sqrt(sumsq(y) + 1)"), probed=False).lower.smooth.value


def test_text_analysis_never_reads_a_large_array():
    made = bound(RIDGE, **RIDGE_DATA)

    class Untouchable:
        def __init__(self, shape):
            self.shape = shape

    arrays = {name: Untouchable(a.shape) for name, a in made.data.arrays.items()}
    from dataclasses import replace

    from bilevelpy.analysis import analyze

    s = analyze(replace(made, data=replace(made.data, arrays=arrays)))
    assert s.convexity.value == "strongly convex"


def test_declared_properties_of_externs_are_declared_facts():
    from bilevelpy.analysis import analyze
    from bilevelpy.sema.bind import bind
    from tests.unit.analysis.models import check_program

    text = (
        "model m; dim k = 3; extern net(theta[k]) -> []{};"
        "upper {{ var x; minimize x^2 + sumsq(y); }}"
        "lower L {{ var y[k]; minimize net(y - x) + sumsq(y); }}"
    )
    net = {"net": lambda theta: (theta**2).sum()}
    said = analyze(bind(check_program(text.format(" : smooth, convex(theta)")), externs=net))
    assert (said.convexity.value, said.convexity.evidence) == ("strongly convex", Evidence.DECLARED)
    assert (said.lower.smooth.value, said.lower.form.value) == (True, "unknown")
    assert said.externs.value == ("net",)
    silent = analyze(bind(check_program(text.format("")), externs=net))
    assert silent.convexity.value == "unknown"
    assert silent.lower.smooth.value is False


def test_points_do_not_unsay_what_the_text_shows() -> None:
    # An intercept without a penalty: strongly convex at points, convex by the text.
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(60, 3)), np.where(rng.normal(size=60) > 0, 1.0, -1.0)
    text = """dim n, p; param X[n, p], y[n];
    upper { var lam in [-5, 5]; minimize mean(logistic(-y * (X @ w + b))) + exp(lam); }
    lower fit { var w[p], b; minimize mean(logistic(-y * (X @ w + b))) + exp(lam) * sumsq(w); }"""
    found = facts(text, X=X, y=y)
    assert found.convexity.value == "strongly convex"
    assert found.convexity.evidence is Evidence.OBSERVED
    assert found.is_known_convex


@pytest.mark.parametrize(
    ("penalty", "value"), [("+ 1e-6 * sumsq(a)", "strongly convex"), ("", "convex")]
)
def test_a_small_penalty_beside_a_kernel_counts(penalty: str, value: str) -> None:
    # Nothing but points shows that the kernel matrix has no negative eigenvalue.
    points = np.random.default_rng(0).uniform(-1, 1, (20, 1))
    s = facts(
        "model kernel; dim n, p; param X[n, p]; upper { var g in [-1, 1]; minimize sumsq(a); }"
        "lower fit { var a[n]; let K[i in n, j in n] ="
        " exp(-exp(g) * sum((X[i, k] - X[j, k])^2 for k in p));"
        f"minimize dot(a, K @ a) + sum(relu(1 - K @ a)^2) {penalty}; }}",
        X=points,
    )
    assert (s.convexity.value, s.convexity.evidence) == (value, Evidence.OBSERVED)
    assert s.unique.value is (True if penalty else None)


FOLDS = """
model folds;
set F = 1..3;
dim q = 4, p = 2;
param X[F, q, p], b[F, q];
upper { var t in [-4, 4] start 0; minimize sumsq(fit.w); }
lower fit[f in F] {
  var w[p];
  minimize sum((X[g, i, :] @ READS - b[g, i])^2 for g in F, i in q where g != f)
    + exp(t) * sumsq(w);
}
"""


TOGETHER = """
model folds;
set F = 1..3;
dim q = 4, p = 2;
param X[F, q, p], b[F, q];
upper { var t in [-4, 4] start 0; minimize sumsq(w); }
lower fit {
  var w[F, p];
  minimize sum((X[g, i, :] @ (READS) - b[g, i])^2 for f in F, g in F, i in q where g != f)
    + exp(t) * sumsq(w);
}
"""


@pytest.mark.parametrize(
    ("text", "reads", "blocks"),
    [
        (FOLDS, "w", ("F",)),
        (TOGETHER, "w[f, :]", ("F",)),
        (TOGETHER, "w[g, :]", ("F",)),
        (TOGETHER, "w[f, :] + w[g, :]", ()),
    ],
)
def test_sums_over_other_folds_leave_folds_apart(
    text: str, reads: str, blocks: tuple[str, ...]
) -> None:
    """Pairs of folds come back to the fold whose variables they read, or meet those of others."""
    rng = np.random.default_rng(0)
    data = {"X": rng.standard_normal((3, 4, 2)), "b": rng.standard_normal((3, 4))}
    model = bl.parse(text.replace("READS", reads), data=data)
    assert bl.analyze(model).block_separable.value == blocks


def test_folds_are_solved_as_blocks() -> None:
    rng = np.random.default_rng(0)
    X, b = rng.standard_normal((3, 4, 2)), rng.standard_normal((3, 4))
    model = bl.parse(FOLDS.replace("READS", "w"), data={"X": X, "b": b})
    found = bl.solve(model, backend="direct")
    assert found.success
    for f, w in enumerate(found["fit.w"]):
        A, c = (np.concatenate(np.delete(Z, f, 0)) for Z in (X, b))
        slope = A.T @ (A @ w - c) + np.exp(found["t"]) * w
        assert np.abs(slope).max() < 1e-6
