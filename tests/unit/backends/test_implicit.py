"""direct, aid and qnbo on problems with closed forms, and the refusals of all three."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from bilevelpy.analysis.structure import Evidence, Fact, LevelFacts, Structure
from bilevelpy.backends import registry
from bilevelpy.backends.implicit.aid import AID
from bilevelpy.backends.implicit.direct import Direct
from bilevelpy.backends.implicit.qnbo import QNBO
from bilevelpy.errors import UsageError
from bilevelpy.numerics.certificate.examine import certify, settle
from bilevelpy.numerics.driver.loop import RunResult, run
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import (
    Cleaning,
    box_kink,
    logistic,
    ridge,
    simplex_case,
    toy,
    vec,
)

BACKENDS = [Direct(), AID(), QNBO()]
named = pytest.mark.parametrize("backend", BACKENDS, ids=lambda b: b.name)


def solve(oracle, backend, **options) -> RunResult:
    settings = SolveOptions(backend_options=options)
    return run(oracle, backend, None, settings)


def certified(oracle, r: RunResult) -> bool:
    rng = torch.Generator().manual_seed(3)
    c = certify(oracle, r.x, r.y, None, SolveOptions(), rng)
    return settle(r, c).status is Status.CONVERGED


@named
@pytest.mark.parametrize(
    ("kappa", "F"), [(2, 20.56064003102886), (100, 6.692217297450469), (1000, None)]
)
def test_quadratic_toy(backend, kappa: float, F: float | None) -> None:
    o = toy(kappa)
    r = solve(o, backend)
    x, y = o.solution()
    assert r.status is Status.CONVERGED
    assert torch.allclose(r.x, x, rtol=1e-5, atol=1e-5)
    assert torch.allclose(r.y, y, rtol=1e-5, atol=1e-5)
    if F is not None:
        assert pytest.approx(F, rel=1e-9) == r.F
    assert certified(o, r)


@named
@pytest.mark.parametrize(("s", "S", "unit"), [(1e6, 1e-6, 1e6), (1e-8, 1e8, 1e-3)])
def test_units_make_no_difference(backend, s: float, S: float, unit: float) -> None:
    plain, scaled = toy(10), toy(10, s=s, S=S, unit=unit)
    a, b = solve(plain, backend), solve(scaled, backend)
    assert abs(a.iterations - b.iterations) <= 1
    assert pytest.approx(S * a.F, rel=1e-8) == b.F


def test_constant_hessian_is_factorised_once() -> None:
    o = toy(100)
    solve(o, Direct())
    assert o.counts.hvp < 130  # one dense Hessian of 100 columns and a product per step


@named
def test_logistic_regression_with_a_penalty_per_feature(backend) -> None:
    o = logistic(100, 8)
    r = solve(o, backend)
    assert r.status is Status.CONVERGED
    assert certified(o, r)
    assert pytest.approx(solve(o, Direct()).F, rel=1e-6) == r.F


def test_ridge_hypergradient_is_the_closed_form() -> None:
    # 6.9: u = (X'X + diag e^x)^-1 Xv'(Xv y - bv), dPhi/dx = -e^x y u.
    o = ridge(40, 6)
    X, Xv, b, bv = o.data
    x = torch.linspace(-2, 2, 6, dtype=torch.float64)
    H = X.T @ X + torch.diag(torch.exp(x))
    y = torch.linalg.solve(H, X.T @ b)
    u = torch.linalg.solve(H, Xv.T @ (Xv @ y - bv))
    for backend in BACKENDS:
        options = backend.options(tol=1e-10)
        state = backend.init(o, x, o.y0, options, torch.Generator())
        state.response.accuracy.level = 1e-12
        point = state.response.again(state.point)
        assert torch.allclose(point.g, -torch.exp(x) * y * u, rtol=1e-8, atol=1e-8)


@named
def test_ridge_is_solved_and_certified(backend) -> None:
    o = ridge(40, 6)
    r = solve(o, backend)
    assert r.status is Status.CONVERGED
    assert certified(o, r)


@named
@pytest.mark.parametrize("x0", [0.3, 3.0, -2.0])
def test_stops_at_the_kink_of_a_box(backend, x0: float) -> None:
    o = box_kink(x0)
    r = solve(o, backend)
    assert pytest.approx(0.55, abs=1e-7) == r.F
    assert float(r.x) == pytest.approx(1.0, abs=1e-6)
    assert "kink" in r.message
    assert certified(o, r)


@named
def test_simplex(backend) -> None:
    o = simplex_case(vec(0.9, 0.5, -0.6, 0.1, -1.0))
    r = solve(o, backend)
    assert pytest.approx(0.05 * 0.025 / 1.1, rel=1e-7) == r.F
    assert torch.allclose(r.x, (vec(0.3, 0.25, 0.2, 0.15, 0.1) - 0.2) / 1.1, atol=1e-6)


def test_simplex_hypergradient_off_the_optimum() -> None:
    # 6.11: support {1, 2}, J = I_S - 1 1'/2, gradient J'(y - t) + rho x.
    x = vec(0.9, 0.5, -0.6, 0.1, -1.0)
    o = simplex_case(x)
    state = Direct().init(o, x, o.y0, Direct.options(), torch.Generator())
    y = vec(0.7, 0.3, 0, 0, 0)
    J = torch.zeros(5, 5, dtype=torch.float64)
    J[:2, :2] = vec(0.5, -0.5, -0.5, 0.5).reshape(2, 2)
    expected = J @ (y - vec(0.3, 0.25, 0.2, 0.15, 0.1)) + 0.1 * x
    assert torch.allclose(state.point.y, y)
    assert torch.allclose(state.point.g, expected, atol=1e-12)


GD = {"upper": "gd", "lower_step": 2 / 101}


def paper(backend, iterations: int, **options) -> float:
    """Relative error of x on the toy at kappa = 100 with the fixed steps of section 1.6."""
    o = toy(100)
    x, _ = o.solution()
    options = GD | {"upper_step": 1 / 2.0} | options
    settings = SolveOptions(tol=1e-9, max_iter=iterations, backend_options=options)
    r = run(o, backend, None, settings)
    return float((r.x - x).norm() / x.norm())


def test_fixed_steps_leave_the_floors_of_the_design() -> None:
    ten = {"lower": "gd", "lower_steps": 10, "adjoint_steps": 10}
    assert paper(AID(), 150, **ten) < 1e-7
    assert paper(AID(), 150, **ten, warm=False) == pytest.approx(2.8e-2, rel=0.1)
    assert paper(AID(), 150, **ten, variant="neumann") == pytest.approx(0.125, rel=0.02)
    share = paper(QNBO(), 150, lower_steps=10, adjoint="share", scale=0.01)
    assert share == pytest.approx(0.18, abs=0.04)


@pytest.mark.parametrize(("update", "floor"), [("bfgs", 1.0e-1), ("sr1", 7.1e-2)])
def test_quasi_newton_without_warm_start_is_biased(update: str, floor: float) -> None:
    common = {"lower_steps": 5, "adjoint": "refine", "update": update, "scale": 0.01}
    cold = paper(QNBO(), 150, **common, schedule="constant", adjoint_steps=5, warm=False)
    assert cold == pytest.approx(floor, rel=0.15)
    warm = paper(QNBO(), 150, **common, schedule="constant", adjoint_steps=5)
    assert warm < 1e-6


@pytest.mark.parametrize("variant", ["cg", "hoag", "fixed-point", "neumann", "amigo-gd", "normal"])
def test_variants_of_aid(variant: str) -> None:
    o = toy(10)
    r = solve(o, AID(), variant=variant)
    assert r.status is Status.CONVERGED
    assert torch.allclose(r.x, o.solution()[0], atol=1e-5)


@pytest.mark.parametrize("lower", ["lbfgs", "gd"])
def test_lower_solvers_of_aid(lower: str) -> None:
    assert solve(toy(10), AID(), lower=lower).status is Status.CONVERGED


@pytest.mark.parametrize(
    "options",
    [{"update": "sr1"}, {"adjoint": "refine"}, {"hessian_free": True, "adjoint": "refine"}],
    ids=str,
)
def test_variants_of_qnbo(options: dict) -> None:
    o = toy(100)
    r = solve(o, QNBO(), **options)
    assert r.status is Status.CONVERGED
    assert torch.allclose(r.x, o.solution()[0], atol=1e-5)


def test_biased_adjoints_are_not_called_solutions() -> None:
    o = toy(10)
    assert not certified(o, solve(o, AID(), variant="identity"))


@pytest.mark.parametrize("backend", [AID(), QNBO()], ids=lambda b: b.name)
def test_hyper_cleaning_finds_the_corrupted_samples(backend) -> None:
    o = Cleaning(100, 10, 3, ridge=1e-2)
    settings = SolveOptions(max_iter=8)
    r = run(o, backend, None, settings)
    assert r.F < 0.9 * r.history[0].F
    assert r.counts["hvp"] + r.counts["grad_f"] < 3000


def test_unknown_choices_are_usage_errors() -> None:
    with pytest.raises(UsageError, match=r"aid\.variant"):
        solve(toy(2), AID(), variant="magic")
    with pytest.raises(UsageError, match=r"qnbo\.update"):
        solve(toy(2), QNBO(), update="dfp")


def structure(**changes) -> Structure:
    def fact(value):
        return Fact(value, Evidence.PROVED, "by construction")

    level = LevelFacts(
        fact("quadratic"), fact(frozenset({"free"})), fact("none"), fact(True), fact(False)
    )
    facts = {
        "model": "m", "dim_x": 2, "dim_y": 5, "upper_constraints": 0, "lower_constraints": 0,
        "followers": 1, "upper": level, "lower": level, "convexity": fact("strongly convex"),
        "modulus": fact(1.0), "lipschitz": fact(10.0), "unique": fact(True),
        "lower_hessian": fact("constant"), "block_separable": fact(()),
        "finite_sum_lower": fact(()), "finite_sum_upper": fact(()), "coupling": fact(False),
        "externs": fact(()), "stance": "optimistic",
    }  # fmt: skip
    for name, value in changes.items():
        if name.startswith("lower_") and name != "lower_constraints" and name != "lower_hessian":
            part = {name.removeprefix("lower_"): fact(value)}
            facts["lower"] = dataclasses.replace(level, **part)
        elif isinstance(facts.get(name), Fact):
            facts[name] = fact(value)
        else:
            facts[name] = value
    return Structure(**facts)


@named
def test_accepts_what_its_theory_covers(backend) -> None:
    assert backend.accepts(structure())
    assert backend.accepts(structure(lower_domains=frozenset({"box", "simplex", "ball"})))
    assert backend.accepts(structure(convexity="unknown", unique=True))
    assert backend.cost(structure()).gradients > 0


@named
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"convexity": "convex", "unique": None}, "unique"),
        ({"lower_smooth": False}, "derivatives"),
        ({"lower_discrete": True}, "continuous"),
        ({"lower_constraints": 2}, "constraints"),
        ({"upper_constraints": 1}, "constraints"),
        ({"coupling": True}, "couple"),
        ({"unsupported": {"nash": Fact("x", Evidence.PROVED, "two players")}}, "games"),
    ],
)
def test_rejects_with_the_fact_that_decides(backend, changes, word: str) -> None:
    verdict = backend.accepts(structure(**changes))
    assert not verdict
    assert word in verdict.reason
    assert verdict.fact is not None


def test_direct_rejects_large_lower_levels() -> None:
    assert not Direct().accepts(structure(dim_y=10_000))
    assert AID().accepts(structure(dim_y=10_000))


def test_registry_names_and_suggestions() -> None:
    assert {"direct", "aid", "qnbo"} <= set(registry.names())
    assert registry.get("direct") is registry.get("direct")
    with pytest.raises(UsageError, match="did you mean `direct`"):
        registry.get("dirct")


class FakePoint:
    dist = None
    value = "nowhere:Thing"

    def __init__(self, name: str) -> None:
        self.name = name

    def load(self):
        raise ImportError("no such module")


def test_a_broken_plugin_is_a_warning_and_a_clash_an_error(monkeypatch) -> None:
    def install(name: str) -> None:
        registry._plugins.cache_clear()
        registry._plugin.cache_clear()
        monkeypatch.setattr(registry, "entry_points", lambda group: [FakePoint(name)])

    install("broken")
    with pytest.warns(RuntimeWarning, match="`broken`"):
        assert "broken" not in {b.name for b in registry.all_backends()}
    install("direct")
    with pytest.raises(registry.BackendError, match="defined twice"):
        registry.names()
    monkeypatch.undo()
    registry._plugins.cache_clear()
    registry._plugin.cache_clear()
