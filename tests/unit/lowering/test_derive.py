"""Derivatives of expressions against automatic differentiation, one function of the language at a
time.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.fx

from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs import array_kernels as module
from bilevelpy.lowering.programs.arrays import array_function
from bilevelpy.lowering.programs.derive import derivatives
from bilevelpy.lowering.programs.differentiate import gradient, gradients
from bilevelpy.lowering.programs.splitting import split
from tests.unit.lowering.programs import oracle

# Every function that has a rule, in smooth places; `u` and `w` are vectors, `M` is a matrix.
TERMS = [
    "sum(exp(u) * w)", "sum(expm1(u) * w)", "sum(log(1 + u^2) * w)", "sum(log1p(u^2))",
    "sum(sqrt(1 + u^2))", "sum(1 / (2 + u^2))", "sum((2 + u)^3)", "sum((3 + u)^2.5)",
    "sum(10^u * w^2)", "sum(w * 0.5^(u * w))",
    "sum(abs(u) * w)", "sum(max(u, w))", "sum(min(u, 0.1) * w)", "sum(relu(u) * w)",
    "sum(softplus(u - w))", "sum(sigmoid(u) * w)", "sum(tanh(u) * w)", "sum(sin(u) * cos(w))",
    "sum(tan(u / 3))", "sum(atan(u))", "sum(sinh(u) * cosh(w))", "sum(huber(u, 0.3) * w)",
    "entropy(softmax(u))", "logsumexp(u * w)", "norm2(u - w)", "max(u[i] * w[i] for i in k)",
    "sum(softmax(u) * w)", "sum(logsoftmax(u) * w^2)", "quad(u, D) + u' @ M @ w",
    "sum(M^2 * D) + trace(M @ D)", "sum(diag(u) @ M)", "sum(concat(u, w)^2 * 3)",
    "u[1] * w[3] + M[2, 1]^2", "sum(diag(M) * u)", "mean(softmax_cross_entropy(M, label))",
    "sum(logsumexp(M[i, j] for i in k) for j in k)",
    "sum((M @ u)[i] * M[i, j] * w[j] for i in k, j in k)",
    "sum(u[i] * w[j] * D[i, j] for i in k, j in k where i < j)",
    "sum(" + "*".join(["u"] * 13) + " * w * w)",
    "sum(if D[i, i] > 0 then u[i]^2 else w[i] for i in k)",
]  # fmt: skip
TEXT = """
dim k = 4;
param D[k, k], label[k];
upper {{ var x; minimize x^2; }}
lower fit {{ var u[k], w[k], M[k, k]; minimize {term} + x * sum(u); }}
"""


@pytest.fixture(params=TERMS, ids=TERMS)
def o(request):
    draw = np.random.default_rng(3)
    return oracle(
        TEXT.format(term=request.param), D=draw.standard_normal((4, 4)), label=[1, 3, 2, 2]
    )


def point(o):
    draw = torch.Generator().manual_seed(5)
    ys = [0.8 * torch.randn(p.shape, generator=draw, dtype=torch.float64) for p in o.lower.pieces]
    return [torch.tensor(0.3, dtype=torch.float64)], ys


def test_first_and_second_derivatives(o):
    xs, ys = point(o)
    leaves = [v.clone().requires_grad_() for v in (*xs, *ys)]
    value = o.function((o.f_expr,))(*leaves)
    first = gradient(value, leaves, create=True)
    program = o.straight(o.f_expr)
    call = program.gradient(value=True, by_x=True, by_y=True)
    assert call is not None, "no rule"
    parts = o.parts(torch.cat([x.reshape(1) for x in xs]), torch.cat([y.reshape(-1) for y in ys]))
    found = [torch.as_tensor(v) for v in call(*parts)]
    torch.testing.assert_close(found[0], value.detach())
    for mine, theirs in zip(found[1:], first, strict=True):
        want = torch.zeros_like(mine) if theirs is None else theirs.detach()
        torch.testing.assert_close(mine, want, rtol=1e-11, atol=1e-12)
    directions = [torch.randn(y.shape, dtype=torch.float64) for y in ys]
    exact = gradients(first[1:], [*leaves[1:], leaves[0]], directions)
    product = program.product(by_x=True, by_y=True)
    assert product is not None
    along = o.along(torch.cat([d.reshape(-1) for d in directions]))
    for mine, theirs in zip(product.at(parts)(along), exact, strict=True):
        want = torch.zeros(np.shape(mine), dtype=torch.float64) if theirs is None else theirs
        torch.testing.assert_close(torch.as_tensor(mine), want, rtol=1e-10, atol=1e-11)


def test_numpy_and_torch_run_the_same_graph(o):
    xs, ys = point(o)
    builder = o.bound.program.builder
    found = derivatives(builder, o.f_expr, o.program_variables)
    compiled = o.compiled((o.f_expr, *found))
    values = o.tensors.resolve(compiled.slots, {})
    run = array_function(compiled.graph, values, o.tensors.gaps)
    assert run is not None
    for a, b in zip(
        run(*(v.numpy() for v in (*xs, *ys))), compiled.bind(values)(*xs, *ys), strict=True
    ):
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-14)


def test_functions_without_a_rule_are_differentiated_at_run_time():
    o = oracle(
        "dim k = 3; upper { var x; minimize x; } "
        "lower l { var A[k, k] start 0; minimize -logdet(A + 3 * eye(k)) + sumsq(A) * (1 + x^2); }"
    )
    assert derivatives(o.bound.program.builder, o.f_expr, o.program_variables) is None
    x, y = o.x0 + 0.5, o.y0 + 0.1
    H = torch.autograd.functional.hessian(lambda v: o.function((o.f_expr,))(x, v.view(3, 3)), y)
    v = torch.arange(9, dtype=torch.float64)
    torch.testing.assert_close(o.hvp(x, y)(v), H @ v)


def test_a_long_power_has_one_part():
    """The derivative of x * x * ... is not written once for each of its factors."""
    power = " * ".join(["x"] * 4000)
    o = oracle("upper { var x; minimize " + power + "; } lower l { var y; minimize y^2; }")
    (first,) = derivatives(o.bound.program.builder, o.F_expr, o.xs)
    assert len(list(postorder(first))) < 20


def test_products_hold_what_the_point_alone_decides():
    """A product with a logistic Hessian is two products with the data: no function of the point is
    left in it.
    """
    o = oracle(
        "dim n, p; param X[n, p], s[n]; upper { var x; minimize x; } "
        "lower l { var w[p]; minimize sum(softplus(-s * (X @ w))) + exp(x) * sumsq(w); }",
        X=np.ones((3, 2)),
        s=[1, -1, 1],
    )
    b = o.bound.program.builder
    along = (b.var("along", "w", o.ys[0].axes),)
    (first,) = derivatives(b, o.f_expr, o.ys)
    slope = b.product([(first, (0,)), (along[0], (0,))], (), {0: o.ys[0].axes[0]})
    _, roots = split(b, derivatives(b, slope, o.ys), frozenset(along))
    held, _ = split(b, derivatives(b, slope, o.ys), frozenset(along))
    assert len(held) == 2  # one weight per sample, and exp(x)
    assert len(roots) == 1


def test_an_operation_without_counterpart_is_left_to_torch(monkeypatch):
    o = oracle("upper { var x; minimize x; } lower l { var y; minimize (y - x)^2 + exp(y); }")
    monkeypatch.delitem(module.COUNTERPARTS, torch.exp)
    compiled = o.compiled((o.f_expr,))
    assert (
        array_function(compiled.graph, o.tensors.resolve(compiled.slots, {}), o.tensors.gaps)
        is None
    )
    fresh = type(o)(o.bound)
    assert fresh.f(fresh.x0, fresh.y0) == pytest.approx(1.0)


def test_what_is_written_twice_is_computed_once():
    """Derivatives multiply the same two arrays in either order."""
    o = oracle("upper { var x; minimize x; } lower l { var y; minimize y^2 + x; }")
    graph = torch.fx.Graph()
    a, b = graph.placeholder("a"), graph.placeholder("b")
    first = graph.call_function(torch.mul, (a, b))
    second = graph.call_function(torch.mul, (b, a))
    graph.output((graph.call_function(torch.sub, (first, second)), first, second))
    function = array_function(graph, [], o.tensors.gaps)
    assert function is not None
    difference, one, other = function(np.array([2.0, 3.0]), np.array([5.0, 7.0]))
    assert one is other
    assert one.tolist() == [10.0, 21.0]
    assert difference.tolist() == [0.0, 0.0]
