"""The oracle: gradients against differences, products against the dense Hessian, counts, names,
domains.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.lowering import oracle as module
from bilevelpy.lowering.oracle import TorchOracle
from tests.unit.lowering.programs import LOGISTIC, RIDGE, logistic_data, oracle, point, ridge_data

FAMILY = """
set FIRM = {"a", "b", "c"};
dim k = 2;
param c[FIRM] = {"a": 1, "b": 2, "c": 3}, D[k, k];
upper { var q0 in [0, 10] start 1, z[k]; maximize (9 - q0 - sum(firm.q)) * q0 - sumsq(z) + sum(s); }
lower firm[i in FIRM] {
  var q in [0, 8] start 7, s[k] in simplex;
  maximize (c[i] - q) * q - s' @ D @ s * (1 + z[1]^2) - q0 * q * s[1];
}
lower other { var v[k, k] in ball(2), u; minimize sum((v - D)^4) + u^2 + u * q0 + sum(v @ z); }
"""
QUADRATIC = """
upper { var x; minimize x^2; }
lower l { var y; minimize (y - x)^2 / 2; }
"""
STEP = 1e-6
# Central differences of a smooth function with STEP lose half the digits.
DIFFERENCE = 1e-7


def family() -> TorchOracle:
    return oracle(FAMILY, D=np.array([[2.0, 0.5], [0.1, 1.0]]))


def everything() -> list[TorchOracle]:
    return [oracle(RIDGE, **ridge_data()), oracle(LOGISTIC, **logistic_data()), family()]


def differences(function, z):
    columns = []
    for k in range(len(z)):
        step = torch.zeros_like(z)
        step[k] = STEP
        up, down = (torch.as_tensor(function(p), dtype=torch.float64) for p in (z + step, z - step))
        columns.append((up - down) / (2 * STEP))
    return torch.stack(columns, -1)


@pytest.mark.parametrize("o", everything(), ids=["ridge", "logistic", "family"])
def test_gradients(o):
    x, y = point(o)
    value, F_x, F_y = o.value_grad_F(x, y)
    assert value == o.F(x, y)
    torch.testing.assert_close(
        F_x, differences(lambda x: o.F(x, y), x), rtol=DIFFERENCE, atol=DIFFERENCE
    )
    torch.testing.assert_close(
        F_y, differences(lambda y: o.F(x, y), y), rtol=DIFFERENCE, atol=DIFFERENCE
    )
    value, f_y = o.value_grad_f(x, y)
    assert value == o.f(x, y)
    torch.testing.assert_close(
        f_y, differences(lambda y: o.f(x, y), y), rtol=DIFFERENCE, atol=DIFFERENCE
    )
    torch.testing.assert_close(o.grad_f(x, y), f_y)
    torch.testing.assert_close(o.grad_F(x, y), (F_x, F_y))
    torch.testing.assert_close(
        o.grad_f_x(x, y), differences(lambda x: o.f(x, y), x), rtol=DIFFERENCE, atol=DIFFERENCE
    )


@pytest.mark.parametrize("o", everything(), ids=["ridge", "logistic", "family"])
def test_second_order(o, monkeypatch):
    x, y = point(o)
    H = differences(lambda y: o.grad_f(x, y), y)
    J = differences(lambda x: o.grad_f(x, y), x)  # (m, n)
    torch.testing.assert_close(o.hessian(x, y), H, rtol=DIFFERENCE, atol=10 * DIFFERENCE)
    dense = o.hessian(x, y)
    # By predictors, then the general way, all at once and one product at a time.
    monkeypatch.setattr(o, "expanded", None)
    monkeypatch.setattr(o, "quadratic", None)
    torch.testing.assert_close(o.hessian(x, y), dense)
    monkeypatch.setattr(o, "predicted", None)
    torch.testing.assert_close(o.hessian(x, y), dense)
    monkeypatch.setattr(module, "BATCH_ENTRIES", 1)
    torch.testing.assert_close(o.hessian(x, y), dense)
    pullback, hvp, cross = o.pullback(x, y), o.hvp(x, y), o.cross(x, y)
    for seed in range(3):
        v = torch.from_numpy(np.random.default_rng(seed).standard_normal(o.m))
        both = pullback(v)
        torch.testing.assert_close(both, (hvp(v), cross(v)))
        torch.testing.assert_close(both[0], dense @ v)
        torch.testing.assert_close(both[1], J.T @ v, rtol=DIFFERENCE, atol=10 * DIFFERENCE)
        assert not both[0].requires_grad


def test_results_own_their_memory():
    o = oracle(QUADRATIC)
    x, y = point(o)
    pullback, v = o.pullback(x, y), torch.ones(1, dtype=torch.float64)
    for result in (*pullback(v), o.grad_f(x, y), *o.grad_F(x, y)):
        before = o.grad_f(x, y).clone(), pullback(v)[0].clone()
        result.add_(7.0)
        assert torch.equal(v, torch.ones(1, dtype=torch.float64))
        torch.testing.assert_close((o.grad_f(x, y), pullback(v)[0]), before)


def test_counts():
    o = oracle(RIDGE, **ridge_data())
    x, y = point(o)
    o.F(x, y)
    o.f(x, y)
    o.grad_F(x, y)
    o.value_grad_f(x, y)
    product = o.pullback(x, y)
    product(y)
    product(y)
    o.cross(x, y)(y)
    o.hvp(x, y)(y)
    assert o.counts.as_dict() == {
        "F": 1, "f": 2, "grad_F": 1, "grad_f": 4, "hvp": 3, "jvp": 3, "lower_solves": 0
    }  # fmt: skip


def test_layout_names_and_senses():
    o = family()
    assert (o.n, o.m) == (3, 14)
    assert (o.F_sign, o.f_sign) == (-1.0, 1.0)
    x, y = point(o)
    upper, lower = o.unflatten_x(x), o.unflatten_y(y)
    assert {n: a.shape for n, a in upper.items()} == {"q0": (), "z": (2,)}
    assert {n: a.shape for n, a in lower["firm"].items()} == {"q": (3,), "s": (3, 2)}
    assert lower["other"]["v"].shape == (2, 2)
    assert torch.equal(o.flatten_x(upper), x)
    assert torch.equal(o.flatten_y(lower), y)
    assert o.flatten_x({"q0": 4.0}).tolist() == [4, 0, 0]
    with pytest.raises(UsageError, match="no variable 'r'"):
        o.flatten_x({"r": 1.0})
    with pytest.raises(UsageError, match="shape"):
        o.flatten_x({"z": np.ones(3)})
    values = o.objectives(x, y)
    assert values["upper"] == pytest.approx(-o.F(x, y))
    assert values["other"] - values["firm"] == pytest.approx(o.f(x, y))


def test_domains_and_starts():
    o = family()
    assert o.domain_x.lower.tolist() == [0, -np.inf, -np.inf]
    kinds = [(b.kind, b.start, b.count, b.size) for b in o.domain_y.blocks]
    assert kinds == [("box", 0, 1, 3), ("simplex", 3, 3, 2), ("ball", 9, 1, 4), ("free", 13, 1, 1)]
    assert o.x0.tolist() == [1, 0, 0]
    assert o.y0.tolist() == [7, 7, 7, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0, 0, 0, 0, 0]


def test_domains_without_a_projection_are_refused():
    with pytest.raises(BackendError, match=r"upper\.z.*binary|binary.*upper\.z"):
        oracle("upper { var z in binary; minimize z; } lower l { var y; minimize (y - z)^2; }")


def test_constraints():
    o = oracle(RIDGE, **ridge_data())
    x, y = point(o)
    expected = [float(x.exp().sum()) - 100, -float(x[0] + y[0]), float(x[0] + y[0]) - 1]
    np.testing.assert_allclose(o.G.values(x, y), expected)
    assert o.G.equality.tolist() == [False] * 3
    assert [(r.constraint.name, r.part) for r in o.G.rows] == [
        ("budget", 0),
        ("pair", 0),
        ("pair", 1),
    ]
    np.testing.assert_allclose(o.G.violation(x, y), np.maximum(expected, 0))
    J_x = differences(lambda x: o.G.values(x, y), x)
    J_y = differences(lambda y: o.G.values(x, y), y)
    u = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(
        o.G.vjp(x, y)(u), (J_x.T @ u, J_y.T @ u), rtol=DIFFERENCE, atol=DIFFERENCE
    )
    torch.testing.assert_close(
        o.G.jvp(x, y)(y, x), J_x @ y + J_y @ x, rtol=DIFFERENCE, atol=DIFFERENCE
    )
    assert o.g.values(x, y).shape == (0,)
    assert o.g.jvp(x, y)(x, y).shape == (0,)
    assert o.g.vjp(x, y)(x[:0])[1].tolist() == [0] * 4


def test_reports():
    data = ridge_data()
    o = oracle(RIDGE, **data)
    x, y = point(o)
    assert float(o.report("train", x, y)) == pytest.approx(
        np.mean((data["X"] @ y.numpy() - data["y"]) ** 2)
    )
    with pytest.raises(UsageError, match="no report"):
        o.report("test", x, y)


def test_program_without_a_lower_level():
    o = oracle("upper { var x[3]; minimize sumsq(x - 1); }")
    x, y = point(o)
    assert (o.m, o.f(x, y)) == (0, 0.0)
    assert o.value_grad_f(x, y)[1].shape == (0,)
    torch.testing.assert_close(o.grad_F(x, y)[0], 2 * (x - 1))
    assert o.hessian(x, y).shape == (0, 0)


def test_linear_lower_level_has_a_zero_hessian():
    o = oracle(
        "dim k = 2; upper { var x[k]; minimize sumsq(x); }"
        "lower l { var y[k] in simplex; minimize sum(3 * y); }"
    )
    x, y = point(o)
    assert o.hessian(x, y).tolist() == [[0, 0], [0, 0]]
    assert [part.tolist() for part in o.pullback(x, y)(y)] == [[0, 0], [0, 0]]
    assert o.grad_f(x, y).tolist() == [3, 3]


def test_single_precision():
    data = ridge_data()
    from tests.unit.lowering.programs import bound

    o = TorchOracle(bound(RIDGE, **data), dtype=torch.float32)
    x, y = (part.float() for part in point(oracle(RIDGE, **data)))
    assert o.grad_f(x, y).dtype is torch.float32
