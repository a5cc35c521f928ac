"""Kinks below by the rows of epigraphs: hinge losses, absolute deviations, quantiles."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest
import torch

import bilevelpy as bl
from bilevelpy.backends import registry
from bilevelpy.numerics.rows.resolver import RowsResolver
from bilevelpy.result import Certificate
from bilevelpy.solving.facts import structure
from bilevelpy.solving.posed import Posed, posed

HEAD = "model m; dim n, p, v; param X[n, p], b[n], V[v, p], c[v];\n"
MACHINE = """
upper { var t in [-4, 4] start 0; minimize UPPER; }
lower fit {
  var w[p];
  minimize sum(max(0, 1 - b[i] * (X[i, :] @ w)) for i in n) + exp(t)/2 * sumsq(w);
}
report loss = sum(max(0, 1 - b[i] * (X[i, :] @ w)) for i in n);
"""
QUANTILE = """
upper { var t in [-4, 2] start 0; minimize mean((c - V @ w - s)^2); }
lower fit {
  var w[p], s;
  minimize mean(max(0.3*(b[i] - X[i, :] @ w - s), -0.7*(b[i] - X[i, :] @ w - s)) for i in n)
    + exp(t) * (sumsq(w) + 0.1 * s^2);
}
"""
SQUARES, HINGES = "mean((c - V @ w)^2)", "mean(max(0, 1 - c[k] * (V[k, :] @ w)) for k in v)"


def model(text: str, seed: int = 0) -> bl.Model:
    rng = np.random.default_rng(seed)
    w = rng.standard_normal(3)
    X, V = rng.standard_normal((40, 3)), rng.standard_normal((25, 3))
    b = np.sign(X @ w + rng.standard_normal(40))
    c = np.sign(V @ w + rng.standard_normal(25))
    return bl.parse(HEAD + text, data={"X": X, "b": b, "V": V, "c": c})


def machine(m: bl.Model, t: float) -> np.ndarray:
    """The response by another solver."""
    X, b = (m.bound.data.arrays[k] for k in "Xb")
    w = cp.Variable(3)
    loss = cp.sum(cp.pos(1 - cp.multiply(b, X @ w))) + np.exp(t) / 2 * cp.sum_squares(w)
    cp.Problem(cp.Minimize(loss)).solve(solver="CLARABEL", tol_gap_rel=1e-12, tol_gap_abs=1e-12)
    return np.asarray(w.value)


def above(m: bl.Model, upper: str, w: np.ndarray) -> float:
    V, c = (m.bound.data.arrays[k] for k in "Vc")
    return float(
        np.mean((c - V @ w) ** 2 if upper is SQUARES else np.maximum(0.0, 1.0 - c * (V @ w)))
    )


@pytest.mark.parametrize("upper", [SQUARES, HINGES])
def test_hinge_losses_against_another_solver_on_a_grid(upper: str) -> None:
    m = model(MACHINE.replace("UPPER", upper))
    seen: list[int] = []
    found = bl.solve(m, backend="kkt", callback=lambda s: seen.append(s.y.size))
    assert found.status == "converged", found.message
    w = machine(m, float(found.upper["t"]))
    np.testing.assert_allclose(found.lower["fit"]["w"], w, atol=1e-4)
    best = min(above(m, upper, machine(m, t)) for t in np.linspace(-4.0, 4.0, 33))
    assert above(m, upper, w) <= best + 1e-6
    # Nothing is told of the further variables.
    assert list(found.lower["fit"]) == ["w"]
    assert set(seen) == {3}
    loss = float(found.reports["loss"])
    ridge = np.exp(float(found.upper["t"])) / 2 * float(found.lower["fit"]["w"] @ w)
    assert found.f["fit"] == pytest.approx(loss + ridge, rel=1e-4)


def test_quantiles_have_the_hypergradient_of_their_piece() -> None:
    m = model(QUANTILE)
    facts = structure(m, 0)
    taken = posed(m, facts, registry.get("kkt"))
    backend, o = registry.get("kkt"), taken.functions
    x = torch.tensor([0.2], dtype=torch.float64)

    def at(x: torch.Tensor) -> tuple[float, float]:
        settings = backend.options(tol=1e-6)
        state = backend.init(o, x, o.y0, settings, torch.Generator().manual_seed(0))
        return state.inner.point.F, float(state.inner.point.gradient[0])

    h = 1e-5
    slope = (at(x + h)[0] - at(x - h)[0]) / (2 * h)
    assert at(x)[1] == pytest.approx(slope, rel=1e-5)


def test_points_go_in_and_out_in_the_variables_of_the_model(tmp_path) -> None:
    m = model(QUANTILE)
    path = tmp_path / "run.ckpt"
    first = bl.solve(m, backend="kkt", checkpoint=path, max_iter=1)
    again = bl.solve(m, backend="kkt", checkpoint=path, resume=True)
    assert again.success
    assert again.F <= first.F
    assert pytest.approx(again.F, rel=1e-6) == bl.solve(m, backend="kkt", start=again).F
    assert set(first.lower["fit"]) == set(again.lower["fit"]) == {"w", "s"}
    m = model(MACHINE.replace("UPPER", SQUARES))
    taken = posed(m, structure(m, 0), registry.get("kkt"))
    x, y = torch.zeros(1, dtype=torch.float64), torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    wide = taken.widened(x, y)
    assert float(taken.functions.g.values(x, wide).max()) <= 1e-12
    assert taken.functions.f(x, wide) == pytest.approx(taken.given.f(x, y), rel=1e-12)
    assert torch.equal(taken.narrowed(wide), y)


def test_a_certificate_of_another_objective_is_none() -> None:
    m = model(MACHINE.replace("UPPER", SQUARES))
    taken = posed(m, structure(m, 0), registry.get("kkt"))
    x, y = torch.zeros(1, dtype=torch.float64), torch.ones(3, dtype=torch.float64)
    claim = Certificate("local", *(0.0,) * 6, None, (), {})
    wide = taken.widened(x, y)
    assert taken.confirmed(claim, x, wide).kind == "local"
    wide[-1] += 1.0  # an epigraph that hangs above its kink
    refused = taken.confirmed(claim, x, wide)
    assert refused.kind == "none"
    assert "differs" in refused.reasons[0]
    plain = Posed(taken.given, taken.given, taken.facts)
    assert plain.confirmed(claim, x, y) is claim


def test_kinks_that_rows_cannot_replace_are_refused() -> None:
    kkt, facts = registry.get("kkt"), structure(model(MACHINE.replace("UPPER", SQUARES)), 0)
    assert kkt.accepts(facts)
    assert facts.epigraphs is not None
    assert not kkt.accepts(replace(facts, epigraphs=None))
    linear = replace(facts.epigraphs.value, form="linear")
    verdict = kkt.accepts(replace(facts, epigraphs=replace(facts.epigraphs, value=linear)))
    assert "jumps" in verdict.reason


def test_rows_and_kinks_go_together() -> None:
    """Absolute deviations on a simplex, with a cap that the leader sets."""
    text = """
    upper { var u in [0.3, 1] start 0.9; minimize mean((c - V @ w)^2) + 0.1 * u; }
    lower fit {
      var w[p] in simplex;
      minimize mean(abs(b - X @ w)) + 0.1 * sumsq(w);
      subject to cap: w <= u;
    }
    report price = dual(fit.cap);
    """
    without = "\n".join(text.splitlines()[:-2])
    assert bl.analyze(model(text)).epigraphs is None  # prices of the rows as they are written
    m = model(without)
    found = bl.solve(m, backend="kkt")
    assert found.success
    X, b = (m.bound.data.arrays[k] for k in "Xb")
    w = cp.Variable(3)
    loss = cp.norm1(b - X @ w) / 40 + 0.1 * cp.sum_squares(w)
    rows = [w >= 0, cp.sum(w) == 1, w <= float(found.upper["u"])]
    cp.Problem(cp.Minimize(loss), rows).solve(solver="CLARABEL")
    np.testing.assert_allclose(found.lower["fit"]["w"], w.value, atol=1e-4)


def test_descents_on_plateaus_end() -> None:
    """Steps that would only confirm an end are none: they used up the time of a look around."""
    m = model(MACHINE.replace("UPPER", "sum(w)^2 * 0 + (t - 9)^2 * 0"))
    taken = posed(m, structure(m, 0), registry.get("kkt"))
    resolver, asked = RowsResolver(taken.functions), 0

    def late() -> bool:
        nonlocal asked
        asked += 1
        return asked > 100

    x = torch.zeros(1, dtype=torch.float64)
    end = resolver.descended(x, taken.functions.y0, 60, late)
    assert end is not None
    assert asked <= 2


def test_kinks_are_not_blamed_where_rows_cannot_hold() -> None:
    text = """
    upper { var u in [-2, -1] start -1.5; minimize sumsq(w); }
    lower fit {
      var w[p];
      minimize sum(max(0, 1 - b[i] * (X[i, :] @ w)) for i in n) + sumsq(w);
      subject to cap: sum(w) <= u; low: w >= 0;
    }
    """
    found = bl.solve(model(text), backend="kkt")
    assert found.status == "infeasible"
    assert "its constraints `cap`, `low` cannot hold" in found.message


KINKED_ABOVE = {
    "hinge": HEAD
    + """
upper { var t in [-6, 4] start 0; minimize mean(max(1 - c * (V @ w + s), 0)); }
lower fit { var w[p], s; minimize sumsq(w)/2 + exp(t) * sum(max(1 - b * (X @ w + s), 0)); }
""",
    "quantile": HEAD
    + """
upper { var t in [-8, 3] start -2; minimize mean(max(0.9*(c - V@w - s), -0.1*(c - V@w - s))); }
lower fit {
  var w[p], s;
  minimize mean(max(0.9*(b - X@w - s), -0.1*(b - X@w - s))) + exp(t) * sumsq(w);
}
""",
}


# F by Clarabel on a grid and beside the point. The last two are plateaus of F, one beside a kink.
@pytest.mark.parametrize(
    ("kind", "seed", "F"),
    [("quantile", 4, 0.38016233), ("hinge", 3, 0.90848404), ("hinge", 7, 0.75274057)],
)
def test_minima_at_kinks_of_both_levels_are_certified(kind: str, seed: int, F: float) -> None:
    """Responses beside them hold other rows, known to rounding alone."""
    rng, n, p = np.random.default_rng(seed), 40, 2
    X, V = rng.normal(size=(2, n, p))
    b, c = (Z @ np.array([1.0, -1.0]) + 2 * rng.normal(size=n) for Z in (X, V))
    if kind == "hinge":
        b, c = np.sign(b), np.sign(c)
    data = {"X": X, "V": V, "b": b, "c": c}
    found = bl.solve(bl.parse(KINKED_ABOVE[kind], data=data), backend="kkt")
    assert found.success, found.message
    assert abs(found.F - F) < 1e-7
