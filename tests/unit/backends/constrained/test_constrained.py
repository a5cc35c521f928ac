"""BLOCC, BiC-GAFFA and LV-HBA on the toys of their papers, and the certificate that judges them."""

from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy import solving
from bilevelpy.backends.constrained.blocc import BLOCC
from bilevelpy.backends.constrained.gaffa import GAFFA
from bilevelpy.backends.constrained.lvhba import LVHBA
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.numerics.certificate.coupled import examine_rows
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.rows.multipliers import MultiplierMethod, Scaled
from bilevelpy.numerics.rows.polyhedron import Polyhedron
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.unit.backends.constrained.coupled import (
    ACTIVE,
    CUBIC,
    EQUATION,
    QUADRATIC,
    model,
    oracle,
    quadratic_data,
    solve,
)


def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("seed", range(3))
def test_the_method_of_multipliers_agrees_with_clarabel(seed: int) -> None:
    data = quadratic_data(seed)
    o = oracle(QUADRATIC, **data)
    x = torch.linspace(-1, 1, 3, dtype=torch.float64)
    none = torch.zeros(o.g.size, dtype=torch.float64)
    method = MultiplierMethod(Scaled(o.g, x, o.y0, rng()), o.y0, rng(), none)
    found = method.solve(o, x, 1e-10)
    y = cp.Variable(4)
    rows = data["G"] @ y + data["E"] @ x.numpy() <= data["b"]
    f = 0.5 * cp.quad_form(y, cp.psd_wrap(data["A"])) + (data["C"].T @ x.numpy()) @ y
    cp.Problem(cp.Minimize(f), [rows]).solve(solver=cp.CLARABEL)
    assert found.ended == "reached"
    assert np.allclose(found.y, y.value, atol=1e-6)
    assert np.allclose(method.prices, rows.dual_value, atol=1e-5)


def test_constraints_that_cannot_be_met_are_no_solution() -> None:
    text = """model none; upper { var x start 1; minimize x^2 + y^2; }
    lower f { var y; minimize y^2; subject to low: y <= -1; high: y >= 1; }"""
    o = oracle(text)
    none = torch.zeros(2, dtype=torch.float64)
    method = MultiplierMethod(Scaled(o.g, o.x0, o.y0, rng()), o.y0, rng(), none)
    assert method.solve(o, o.x0, 1e-8).ended == "nonfinite"


MINIMA = [
    (6.0, 0.0, 1.0, 0.986225, 1.721879),
    (6.0, 0.0, 2.2, 2.019720, 2.156115),
    (4.0, 1.0, 0.5, 0.300705, 2.654498),
]


@pytest.mark.parametrize(("w", "q", "start", "x", "F"), MINIMA)
@pytest.mark.parametrize("backend", [BLOCC(), GAFFA()], ids=["blocc", "gaffa"])
def test_local_minima_with_an_active_coupled_inequality(backend, w, q, start, x, F) -> None:
    found, certificate = solve(backend, model(ACTIVE, w=w, q=q, x0=start))
    assert float(found.x[0]) == pytest.approx(x, abs=2e-5)
    assert float(found.y[0]) == pytest.approx(x, abs=2e-5)
    assert pytest.approx(F, abs=1e-6) == found.F
    assert certificate.kind == "local"
    assert found.counts["hvp"] == found.counts["jvp"] == 0


@pytest.mark.parametrize("weight", [1.0, 50.0])
@pytest.mark.parametrize("upper", ["lbfgs", "gd"])
def test_blocc_gives_the_exact_gradient_of_its_toy_for_every_weight(weight, upper) -> None:
    """With the constraint active the errors of both saddle points cancel: h = F_x + F_y."""
    o = oracle(ACTIVE, w=6.0, q=0.0, x0=1.3)
    backend = BLOCC()
    options = {"weight": weight, "order": 1, "upper": upper, "dual_steps": 40, "lower_step": 0.4}
    settings = backend.options.from_mapping({**options, "upper_step": 0.01}, "blocc")
    state = backend.init(o, o.x0, o.y0, settings, rng())
    F_x, F_y = o.grad_F(o.x0, o.x0)
    assert float(state.point.g[0]) == pytest.approx(float(F_x[0] + F_y[0]), rel=1e-5)


def test_blocc_differentiates_random_coupled_quadratics() -> None:
    """Against central differences of F at lower solutions by Clarabel."""
    data = quadratic_data(1)
    o = oracle(QUADRATIC, **data)
    x0 = torch.tensor([0.3, -0.4, 0.2], dtype=torch.float64)

    def phi(x: np.ndarray) -> float:
        y = cp.Variable(4)
        f = 0.5 * cp.quad_form(y, cp.psd_wrap(data["A"])) + (data["C"].T @ x) @ y
        rows = [data["G"] @ y + data["E"] @ x <= data["b"]]
        tight = {f"tol_{k}": 1e-13 for k in ("gap_abs", "gap_rel", "feas")}
        cp.Problem(cp.Minimize(f), rows).solve(solver=cp.CLARABEL, **tight)
        return float(0.5 * ((y.value - data["t"]) ** 2).sum() + 0.5 * x @ x)

    steps = 1e-4 * np.eye(3)
    exact = np.array([(phi(x0.numpy() + e) - phi(x0.numpy() - e)) / 2e-4 for e in steps])
    backend = BLOCC()
    settings = backend.options.from_mapping({"weight": 1e3}, "blocc")
    state = backend.init(o, x0, o.y0, settings, rng())
    assert np.allclose(state.point.g, exact, atol=1e-4)


@pytest.mark.parametrize("p", [1, 3])
def test_gaffa_solves_its_toy(p: int) -> None:
    found, certificate = solve(GAFFA(), model(CUBIC, n=5, p=p))
    assert torch.allclose(found.x, torch.ones(5, dtype=torch.float64), atol=1e-5)
    assert certificate.kind == "local"


def test_gaffa_solves_a_merely_convex_lower_level_with_an_equation() -> None:
    found, certificate = solve(GAFFA(), model(EQUATION, n=5))
    assert pytest.approx(0.25, abs=1e-6) == found.F
    assert torch.allclose(found.x, torch.full((5,), -0.3, dtype=torch.float64), atol=1e-4)
    assert certificate.kind == "local"


def after(text: str, backend, iterations: int, data: dict, **options) -> torch.Tensor:
    settings = SolveOptions(
        tol=1e-15, max_iter=1, backend_options={**options, "stride": iterations}
    )
    return run(oracle(text, **data), backend, None, settings).x


def test_single_loop_of_lvhba_follows_its_updates_in_numpy() -> None:
    """Section 6.4 of the reference cases; the row is scaled to length one in y."""
    n, eta, alpha, beta = 4, 0.1, 0.05, 0.1
    s = 1 / np.sqrt(2 * n)
    w = np.linspace(1.0, 2.0, 3 * n)
    start = w.copy()
    w = w - w.mean()
    x, y, t, price, z = w[:n], w[n:], w[n:], 0.0, 0.0
    for k in range(60):
        c = (k + 1) ** 0.45
        slope = np.r_[t[:n] - x, np.ones(n)] + s * price + (t - y)
        rise = s * (x.sum() + t.sum()) - (price - z)
        t, price = t - eta * slope, price + eta * rise
        dx = (x - y[n:]) / c - y[:n] + t[:n] - s * price
        dy = np.r_[y[:n] - 1, y[n:] - x] / c + np.r_[y[:n] - x, np.ones(n)] - (y - t)
        w = np.r_[x - alpha * dx, y - alpha * dy]
        w = w - w.mean()
        x, y, z = w[:n], w[n:], z + beta * (price - z)
    text = EQUATION.replace("dim n;", "dim n; param x0[n], a0[n], b0[n];")
    for name in ("x", "a", "b"):
        text = text.replace(f"var {name}[n] start 0", f"var {name}[n] start {name}0")
    data = {"x0": start[:n], "a0": start[n : 2 * n], "b0": start[2 * n :]}
    steps = {"eta": eta, "alpha": alpha, "beta": beta, "gamma1": 1.0, "gamma2": 1.0, "c": 1.0}
    found = after(text, LVHBA(), 60, data, power=0.45, bound=1e3, **steps)
    assert np.allclose(found, x, atol=1e-12)


def test_single_loop_of_gaffa_follows_its_updates_in_numpy() -> None:
    """Section 6.5 of the reference cases, cubic h."""
    n, eta, alpha, beta = 3, 0.01, 0.01, 0.01
    x, y, t, z = np.zeros(n), np.zeros(2 * n), np.zeros(2 * n), 0.0
    for k in range(80):
        c = min((k + 1) ** 0.3, 10.0)
        t = t - eta * (np.r_[t[:n] - x, np.ones(n)] + z + (t - y) / 10.0)
        zeta = z + (x**3).sum() + y.sum()
        dx = (y[:n] - 2) / c - y[:n] + t[:n] + (zeta - z) * 3 * x**2
        dy = np.r_[x - 1, 2 * (y[n:] + 3)] / c
        dy = dy + np.r_[y[:n] - x, np.ones(n)] + zeta - (y - t) / 10.0
        z = np.clip(z - beta * ((zeta - z) - (x**3).sum() - t.sum()), -1.0, 1.0)
        x, y = x - alpha * dx, y - alpha * dy
    steps = {"eta": eta, "alpha": alpha, "beta": beta, "gamma1": 10.0, "gamma2": 1.0, "bound": 1.0}
    more = {"loop": "single", "power": 0.3, "most": 10.0, "normalise": False}
    found = after(CUBIC, GAFFA(), 80, {"n": n, "p": 3}, **steps, **more)
    assert np.allclose(found, x, atol=1e-12)


def test_projections_onto_joint_constraints() -> None:
    o = oracle(QUADRATIC, **quadratic_data(0))
    domain = o.domain_x
    free = Polyhedron(o.g, _both(o), o.n, torch.cat([o.x0, o.y0]))
    w = torch.linspace(-4, 4, 7, dtype=torch.float64)
    v = free.project(w)
    z = cp.Variable(7)
    rows = [free.A.numpy() @ z <= free.b.numpy(), z[:3] >= -3, z[:3] <= 3]
    cp.Problem(cp.Minimize(cp.sum_squares(z - w.numpy())), rows).solve(solver=cp.CLARABEL)
    assert np.allclose(v, z.value, atol=1e-6)
    assert domain.contains(v[:3])


def _both(o):
    from bilevelpy.backends.value_function.joint_space import product_set

    return product_set(o.domain_x, o.domain_y)


def test_rows_that_are_not_affine_together_are_named() -> None:
    with pytest.raises(BackendError, match="affine"):
        run(oracle(CUBIC, n=2, p=3), LVHBA(), None, SolveOptions(max_iter=1))


def test_lvhba_is_honest_about_its_pace() -> None:
    found, _ = solve(LVHBA(), model(EQUATION, n=2), max_iter=3, loop="single")
    assert found.status is Status.ITERATION_LIMIT
    assert any("power" in w for w in found.warnings)


def test_a_point_that_is_not_optimal_gets_no_certificate() -> None:
    made = model(ACTIVE, w=6.0, q=0.0, x0=1.0)
    o, facts = solving.oracle(made), solving.structure(made, 0)
    at = torch.tensor([0.7], dtype=torch.float64)
    beside = examine_rows(o, at, at, facts, SolveOptions(), rng())[0]
    assert beside.kind == "none"
    assert beside.hypergradient_norm > 0.1
    above = examine_rows(o, at, at + 0.1, facts, SolveOptions(), rng())[0]
    assert "cap" in above.reasons[0]
    below = examine_rows(o, at, at - 0.1, facts, SolveOptions(), rng())[0]
    assert "still falls" in below.reasons[0]


def test_solve_reports_a_certified_answer() -> None:
    found = bl.solve(model(ACTIVE, w=6.0, q=0.0, x0=1.0), backend="blocc", progress=False)
    assert found.success
    assert found.certificate.kind == "local"
    assert found.counts["grad_f"] > 0


FREE = "model free; upper { var x; minimize y^2 + x^2; } lower f { var y; minimize (y - x)^2; }"


@pytest.mark.parametrize("backend", [BLOCC(), GAFFA(), LVHBA()])
def test_models_without_constraints_are_left_to_their_relatives(backend) -> None:
    verdict = backend.accepts(solving.structure(model(FREE), 0))
    assert not verdict
    assert "without them" in verdict.reason


def test_blocc_needs_strong_convexity() -> None:
    verdict = BLOCC().accepts(solving.structure(model(EQUATION, n=2), 0))
    assert not verdict
    assert "strongly convex" in verdict.reason


@pytest.mark.parametrize(
    ("backend", "bad"),
    [
        (BLOCC(), {"dual": "simplex"}),
        (BLOCC(), {"dual_steps": 0}),
        (GAFFA(), {"power": 0.6}),
        (GAFFA(), {"loop": "double"}),
        (LVHBA(), {"c": 0.0}),
        (LVHBA(), {"stride": 0}),
    ],
)
def test_options_out_of_range_are_refused(backend, bad) -> None:
    with pytest.raises(UsageError, match=backend.name):
        backend.options.from_mapping(bad, backend.name)


@pytest.mark.parametrize("backend", ["blocc", "gaffa", "lvhba"])
def test_no_rows_to_be_held(backend: str) -> None:
    text = "upper { var x; minimize (x - 1)^2 + y^2; } lower f { var y; minimize (y - x)^2; }"
    with pytest.raises(BackendError, match="for constraints of followers, and the model has none"):
        bl.solve(bl.parse(text), backend=backend, force=True, time_limit=5)
