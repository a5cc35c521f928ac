"""Curvatures at points, and assumptions that points refute."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from bilevelpy.analysis import analyze
from bilevelpy.analysis.probing.probe import DENSE, lanczos, probe
from bilevelpy.analysis.structure import Evidence
from bilevelpy.errors import ModelError
from tests.unit.analysis.models import RIDGE, RIDGE_DATA, bound, facts


class Quadratic:
    """f = y' H y / 2 in NumPy: the plain protocol."""

    def __init__(self, hessian):
        self.H = hessian
        self.n, self.m = 1, hessian.shape[0]
        self.x0, self.y0 = np.zeros(1), np.zeros(self.m)
        self.products = 0

    def grad_f(self, x, y):
        return self.H @ y

    def hvp(self, x, y):
        def product(v):
            self.products += 1
            return self.H @ v

        return product

    def hessian(self, x, y):
        return self.H

    def sample_x(self, rng):
        return rng.standard_normal(1)

    def sample_y(self, x, rng, scale):
        return scale * rng.standard_normal(self.m)


def test_lanczos_is_exact_in_few_dimensions():
    values = np.array([-1.0, 2.0, 3.0, 10.0])
    q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))
    H = q @ np.diag(values) @ q.T
    low, high, exact = lanczos(lambda v: H @ v, 4, np.random.default_rng(1))
    assert exact
    assert (low, high) == pytest.approx((-1.0, 10.0))


def test_lanczos_stays_inside_the_spectrum():
    values = np.geomspace(1, 1e4, 300)
    low, high, exact = lanczos(lambda v: values * v, 300, np.random.default_rng(1))
    assert not exact
    assert 1 - 1e-9 <= low <= high <= 1e4 * (1 + 1e-9)
    assert high > 0.9e4


def test_large_models_cost_a_few_products():
    oracle = Quadratic(np.diag(np.linspace(1, 5, DENSE + 1)))
    seen = probe(oracle, np.random.default_rng(0), constant=True, curvature=True)
    assert len(seen.spectra) == 1
    assert not seen.spectra[0].exact
    assert oracle.products <= 20


def test_negative_curvature_and_its_witness():
    oracle = Quadratic(np.diag([1.0, -2.0]))
    seen = probe(oracle, np.random.default_rng(0), constant=False, curvature=True)
    assert seen.negative
    assert seen.low == pytest.approx(-2.0)
    kinked = probe(oracle, np.random.default_rng(0), constant=False, curvature=False)
    assert kinked.spectra == ()
    assert kinked.witness is not None
    assert kinked.witness.slope < 0


def test_plain_numpy_functions_are_enough():
    made = bound(
        "model m; dim n = 2; upper { var x; minimize x^2 + sumsq(y); }"
        "lower L { var y[n]; minimize y[1]*y[2] + sumsq(y); }"
    )
    s = analyze(made, Quadratic(np.array([[2.0, 1.0], [1.0, 2.0]])))
    assert (s.convexity.value, s.modulus.value) == ("strongly convex", pytest.approx(1.0))


def test_probing_leaves_the_counts_alone():
    from bilevelpy.lowering.oracle import TorchOracle

    made = bound(RIDGE, **RIDGE_DATA)
    oracle = TorchOracle(made)
    analyze(made, oracle)
    assert not any(oracle.counts.as_dict().values())


def test_the_same_seed_gives_the_same_structure():
    text = (
        "model m; upper { var x in [0, 9]; minimize x^2 + y; }"
        "lower L { var y; minimize y^2 + log(2 + cos(x + y)); }"
    )
    assert facts(text).lipschitz == facts(text).lipschitz


def test_a_function_that_makes_the_oracle_is_called_only_where_points_help():
    made = bound(
        "model m; upper { var z in binary; minimize z + y; } lower L { var y; minimize (y - z)^2; }"
    )

    def never():
        raise AssertionError("no oracle exists for discrete variables")

    assert "discrete" in analyze(made, never).unsupported


TWO = """
model m; dim n = 2;
upper {{ var x in [-1, 1]; minimize x^2 + sumsq(y); }}
lower L {{ var y[n]; minimize {f} - x*sum(y); assume {fact}; }}
"""


@pytest.mark.parametrize(
    ("f", "fact", "shown"),
    [
        ("0.5*y[1]^2 + 0.05*y[2]^2", "strongly_convex(1)", "curvature 0.1"),
        ("y[1]*y[2]", "convex", "curvature -1"),
        ("sumsq(y)*4", "smooth(7)", "at the rate 8"),
        ("y[1]^2", "unique", "directions without curvature"),
        ("sum(cos(2*y))", "convex", "curvature -"),
        ("sum(abs(y)) - sumsq(y)", "convex", "curves downwards"),
        ("sum(exp(y))", "strongly_convex(5)", "at a sampled point"),
    ],
)
def test_false_assumptions_are_refuted_with_numbers(f, fact, shown):
    with pytest.raises(ModelError, match="BLV0504") as refusal:
        facts(TWO.format(f=f, fact=fact))
    assert shown in str(refusal.value)
    assert len(refusal.value.diagnostics) == 1


def test_moduli_of_data_are_not_negative():
    text = """
    param mu = -1;
    upper { var x; minimize x^2 + y; }
    lower f { var y; minimize y^2; assume strongly_convex(mu); }
    """
    with pytest.raises(ModelError, match="BLV0504") as refusal:
        facts(text)
    assert "a modulus is a number from 0 on" in str(refusal.value)


@pytest.mark.parametrize("domain", ["in simplex", "in [0, 1]"])
def test_bounds_can_make_a_solution_unique(domain):
    """Of a linear objective, at a vertex: no curvature is needed."""
    text = TWO.format(f="y[1] - y[2]", fact="unique").replace("var y[n]", f"var y[n] {domain}")
    assert facts(text).unique.value


@pytest.mark.parametrize(
    ("f", "fact", "convexity"),
    [
        ("y[1]^2 + y[2]^2 + log(1 + sumsq(y)/8)", "strongly_convex(1)", "strongly convex"),
        ("y[1]^2 + y[2]^2 + 0.1*sum(sin(y))", "convex", "strongly convex"),
        ("sum(log(cosh(y)))", "convex", "strongly convex"),
    ],
)
def test_assumptions_fill_what_the_text_leaves_open(f, fact, convexity):
    s = facts(TWO.format(f=f, fact=fact))
    assert s.convexity.value == convexity
    assert s.convexity.evidence in (Evidence.DECLARED, Evidence.OBSERVED)
    assert s.warnings == ()


def test_declared_numbers_become_facts():
    s = facts(TWO.format(f="sumsq(y) + log(1 + sumsq(y)/8)", fact="strongly_convex(1), smooth(9)"))
    assert (s.modulus.value, s.modulus.evidence) == (1.0, Evidence.DECLARED)
    assert (s.lipschitz.value, s.lipschitz.evidence) == (9.0, Evidence.DECLARED)


def test_uniqueness_can_be_declared():
    s = facts(TWO.format(f="sum(y^4)", fact="unique"))
    assert s.convexity.value in ("convex", "strongly convex")
    assert s.unique.value is True


class Steep(Quadratic):
    """f = sum of exp(1000 y): beyond all numbers at most points."""

    def grad_f(self, x, y):
        return np.exp(1e3 * y)


def test_points_where_f_overflows_are_left_out_without_a_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        seen = probe(Steep(np.eye(3)), np.random.default_rng(0), constant=False, curvature=False)
    assert not seen.negative


def test_variables_without_curvature_are_seen_beyond_dense_sizes():
    """Slack variables: a few Lanczos steps on the whole do not come near to the zeros."""
    curved = Quadratic(np.diag(np.concatenate([np.geomspace(0.1, 10.0, DENSE), np.zeros(DENSE)])))
    seen = probe(curved, np.random.default_rng(0), constant=False, curvature=True)
    assert seen.low == 0.0
    assert seen.singular


def test_matrices_that_only_x_moves_are_decomposed_or_bounded():
    # Each is that of a whole lower problem: its least eigenvalue says that there is one answer.
    for size in (DENSE - 200, DENSE + 50):
        values = np.geomspace(1e-6, 10.0, size)
        oracle = Quadratic(np.diag(values))
        seen = probe(
            oracle, np.random.default_rng(0), constant=False, curvature=True, quadratic=True
        )
        assert all(s.exact for s in seen.spectra)
        assert 0.8e-6 <= seen.low <= 1e-6 * (1 + 1e-6)
    oracle = Quadratic(np.diag(np.concatenate([[-1.0], np.ones(DENSE)])))
    seen = probe(oracle, np.random.default_rng(0), constant=False, curvature=True, quadratic=True)
    assert seen.negative
