"""Further forms of methods: products by differences, shared pairs, checkpoints, one batch of paths,
proximal steps, gradient penalties, extrapolated penalties, aggregated single loops.
"""

from __future__ import annotations

import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends.implicit.aid import AID
from bilevelpy.backends.implicit.bagdc import BAGDC
from bilevelpy.backends.implicit.qnbo import QNBO
from bilevelpy.backends.unrolled.itd import ITD
from bilevelpy.backends.value_function.extrapolated import Limit
from bilevelpy.backends.value_function.meha import MEHA
from bilevelpy.backends.value_function.pbgd import PBGD
from bilevelpy.backends.zeroth_order.pzobo import PZOBO
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.lowering.absolute import absolute_parts
from bilevelpy.lowering.together import gradients_together
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.lower.halves import SplitOracle, halves, joined
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import box_kink, logistic, merely_convex, toy, vec
from tests.unit.backends.helpers import relative_error, solve

Vec = torch.Tensor


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


# Hessian-free quasi-Newton


@pytest.mark.parametrize("update", ["bfgs", "sr1"])
@pytest.mark.parametrize("adjoint", ["precondition", "refine"])
def test_hessian_free_qnbo_asks_for_no_second_derivative(update: str, adjoint: str) -> None:
    o = logistic(60, 6)
    found = solve(QNBO(), o, update=update, adjoint=adjoint, hessian_free=True)
    assert found.status is Status.CONVERGED
    assert found.counts["hvp"] == found.counts["jvp"] == 0
    with_products = solve(QNBO(), logistic(60, 6), update=update, adjoint=adjoint)
    assert pytest.approx(with_products.F, rel=1e-5) == found.F


def test_shine_shares_the_pairs_of_the_lower_solve_and_is_biased() -> None:
    o = toy(10, n=30)
    found = solve(AID(), o, variant="shine", lower="lbfgs")
    assert found.status is not Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) > 1e-3
    with pytest.raises(UsageError, match="lbfgs"):
        AID().options.from_mapping({"variant": "shine"}, "aid")


# Checkpoints of unrolled paths


def gradient(o, **options) -> tuple[Vec, int]:
    backend = ITD()
    settings = backend.options.from_mapping({"lower_steps": 400, **options}, "itd")
    state = backend.init(o, o.x0, o.y0, settings, rng())
    path = state.response.method.path
    return state.point.g, path.largest


@pytest.mark.parametrize("mode", ["reverse", "forward"])
@pytest.mark.parametrize("truncate", [0, 37])
def test_checkpoints_change_no_digit_and_keep_fewer_iterates(mode: str, truncate: int) -> None:
    steps = {"mode": mode, "truncate": truncate, "lower_step": 0.01, "upper_step": 0.1}
    everything, all_of_them = gradient(box_kink(0.3), checkpoint="never", **steps)
    again, some = gradient(box_kink(0.3), checkpoint="always", **steps)
    assert torch.equal(everything, again)
    assert all_of_them == 401
    assert some <= 80  # 2 sqrt(T) kept, and a segment


def test_checkpoints_cost_a_gradient_a_step() -> None:
    counts = []
    for checkpoint in ("never", "always"):
        o = toy(10, n=5)
        gradient(o, checkpoint=checkpoint, lower_step=0.1, upper_step=0.1)
        counts.append(o.counts.grad_f)
    assert counts[1] - counts[0] == 400


# Paths in one batch

SOFT = """
model soft;
dim n;
upper { var x[n] start 0.3; minimize sum((y - 1)^2) + sum(x^2); }
lower follower { var y[n] in [-1, 2]; minimize sum(log(1 + exp(y - x))) + sum((y - x)^2); }
"""


def test_gradients_of_many_points_are_those_of_each() -> None:
    o = solving.oracle(bl.parse(SOFT, data={"n": 3}))
    X, Y = torch.randn(2, 5, 3, generator=rng(), dtype=torch.float64)
    before = o.counts.grad_f
    together = gradients_together(o)(X, Y)
    assert o.counts.grad_f - before == 5
    singly = torch.stack([o.grad_f(x, y) for x, y in zip(X, Y, strict=True)])
    assert torch.allclose(together, singly, atol=1e-12)
    one = gradients_together(toy(2, n=3))  # an oracle without a graph
    assert torch.allclose(
        one(X, Y), torch.stack([toy(2, n=3).grad_f(*p) for p in zip(X, Y, strict=True)])
    )


def test_pzobo_on_a_vectorised_graph_gives_the_unrolled_hypergradient() -> None:
    o = solving.oracle(bl.parse(SOFT, data={"n": 3}))
    shared = {"lower_steps": 7, "lower_step": 0.2, "upper_step": 1.0}
    pzobo, itd = PZOBO(), ITD()
    one = pzobo.options.from_mapping({"difference": 1e-5, **shared}, "pzobo")
    two = itd.options.from_mapping(shared, "itd")
    found = pzobo.init(o, o.x0, o.y0, one, rng()).point.g
    exact = itd.init(o, o.x0, o.y0, two, rng()).point.g
    assert torch.allclose(found, exact, rtol=1e-6, atol=1e-8)


def test_published_directions_shrink_the_indirect_part_to_one_over_n() -> None:
    o, Q = toy(2, n=4), 3000
    steps = {"lower_steps": 5, "lower_step": 0.5, "count": Q, "upper_step": 1.0}
    exact = ITD()
    settings = exact.options.from_mapping({k: v for k, v in steps.items() if k != "count"}, "itd")
    full = exact.init(o, o.x0, o.y0, settings, rng()).point
    indirect = full.g - full.gF_x
    backend = PZOBO()
    for directions, factor in (("unit", 1.0), ("published", 0.25)):
        chosen = backend.options.from_mapping({**steps, "directions": directions}, "pzobo")
        state = backend.init(o, o.x0, o.y0, chosen, rng())
        found = state.point.g - state.point.gF_x
        assert torch.allclose(found, factor * indirect, atol=0.2 * factor * float(indirect.norm()))
    assert any("1/n_x" in w for w in state.warnings)


def test_adam_moves_every_variable_by_its_length_at_first() -> None:
    o = toy(2, n=3)
    options = {"lower_steps": 5, "upper": "adam", "upper_step": 0.05, "lower_step": 0.5}
    found = run(o, ITD(), None, SolveOptions(max_iter=1, tol=1e-15, backend_options=options))
    assert torch.allclose((found.x - o.x0).abs(), torch.full((3,), 0.05).double(), rtol=1e-6)
    with pytest.raises(UsageError, match="upper_step"):
        ITD().options.from_mapping({"upper": "adam"}, "itd")


# Proximal steps

LASSO = """
model lasso;
upper { var x in [0, 5] start 0.1; minimize (y - 0.5)^2 / 2; }
lower follower { var y start 0; minimize (y - 1.5)^2 / 2 + x * abs(y); }
"""


def test_meha_solves_the_lasso_by_parts_and_by_soft_thresholds() -> None:
    """y = max(1.5 - x, 0): x = 1, F = 0."""
    made = bl.parse(LASSO)
    o, facts = solving.oracle(made), solving.structure(made, 0)
    assert MEHA().accepts(facts)
    found = run(o, MEHA(), facts, SolveOptions())
    assert float(found.x[0]) == pytest.approx(1.0, abs=1e-5)
    assert float(found.y[0]) == pytest.approx(0.5, abs=1e-5)
    steps = {"alpha": 0.2, "beta": 0.2, "eta": 0.2, "gamma": 2.0, "stride": 500}
    options = {"loop": "single", "power": 0.1, **steps}
    loop = run(o, MEHA(), facts, SolveOptions(max_iter=4, tol=1e-12, backend_options=options))
    assert float(loop.x[0]) == pytest.approx(1.0, abs=1e-2)


def test_a_proximal_step_is_exact() -> None:
    """``prox(v) = sign(v) max(|v| - s w, 0)``, clipped: a zero of the lower variable stays zero."""
    made = bl.parse(LASSO.replace("var y start 0", "var y in [-0.2, 0.4]"))
    o = solving.oracle(made)
    backend = MEHA()
    options = backend.options.from_mapping({"loop": "single"}, "meha")
    loop = backend.init(o, vec(1.0), o.y0, options, rng()).sync
    for v, expected in ((0.05, 0.0), (-0.3, -0.2), (0.3, 0.2), (2.0, 0.4)):
        assert float(loop.prox(o, vec(1.0), vec(v), 0.1)) == pytest.approx(expected)


def test_parts_of_absolute_values_make_a_smooth_problem() -> None:
    o = solving.oracle(bl.parse(LASSO))
    parts = absolute_parts(o, o.x0, rng())
    split = SplitOracle(parts)
    x, z = vec(0.7), vec(0.4, 0.1)
    f, g = split.value_grad_f(x, z)
    assert f == pytest.approx(0.5 * (0.3 - 1.5) ** 2 + 0.7 * 0.5)
    assert torch.allclose(g, vec(-1.2 + 0.7, 1.2 + 0.7))
    assert torch.allclose(split.grad_f_x(x, z), vec(0.5))
    assert torch.equal(joined(halves(vec(-2.0))), vec(-2.0))


@pytest.mark.parametrize("term", ["abs(y) * y^2", "-abs(y)", "abs(abs(y) - 1)"])
def test_kinks_of_another_form_are_named(term: str) -> None:
    o = solving.oracle(bl.parse(LASSO.replace("x * abs(y)", term)))
    with pytest.raises(BackendError, match="weight"):
        absolute_parts(o, o.x0, rng())


# Penalties


def test_gradient_penalty_solves_the_toy_without_lower_solves() -> None:
    o = toy(2, n=6)
    found = solve(PBGD(), o, penalty="gradient")
    assert relative_error(found.x, o.solution()[0]) < 1e-5
    assert found.counts["hvp"] > 0
    with pytest.raises(BackendError, match="free"):
        solve(PBGD(), box_kink(), penalty="gradient")


@pytest.mark.parametrize("backend", [PBGD(), MEHA()], ids=["pbgd", "meha"])
def test_extrapolated_penalties_reach_the_tolerance(backend) -> None:
    o = toy(10, n=10)
    found = solve(backend, o)
    assert found.status is Status.CONVERGED
    assert relative_error(found.x, o.solution()[0]) < 2e-6


def test_extrapolation_is_exact_for_polynomials_in_one_over_the_weight() -> None:
    limit = Limit(2)
    w = [vec(3.0, -1.0), vec(2.0, 5.0), vec(-1.0, 0.5)]
    for h in (1.0, 0.25, 0.0625):
        found, change = limit.add(h, w[0] + h * w[1] + h * h * w[2])
    assert torch.allclose(found, w[0], atol=1e-12)
    assert change > 0.01
    assert torch.allclose(limit.at(2.0), w[0] + 2 * w[1] + 4 * w[2])


# The aggregated form of the single loop


def test_aggregated_bagdc_solves_the_merely_convex_example() -> None:
    options = {"form": "aggregated", "lower_step": 0.3, "upper_step": 1.0, "stride": 150}
    found = run(merely_convex(2), BAGDC(), None, SolveOptions(max_iter=10, backend_options=options))
    assert torch.allclose(found.x, torch.ones(2, dtype=torch.float64), atol=2e-2)
    with pytest.raises(UsageError, match="aggregated"):
        BAGDC().options.from_mapping({"form": "aggregated"}, "bagdc")
