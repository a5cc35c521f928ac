"""Structured Hessians against automatic differentiation of the same function."""

import pytest
import scipy.sparse as sp
import torch

from bilevelpy.analysis.forms.predictors import find_predictors
from bilevelpy.ir.build import Builder
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.lowering.hessians import assembly
from bilevelpy.lowering.hessians.curvature import Curvature

FIT = frozenset({"fit"})


def compare(curvature, f_of_y, y):
    """Both the dense form and its diagonal against torch's Hessian."""
    value, zs = f_of_y(y)
    weights = curvature.weights(value, zs)
    exact = torch.autograd.functional.hessian(lambda v: f_of_y(v)[0], y)
    scale = exact.abs().max()
    assert (curvature.dense(weights) - exact).abs().max() < 1e-12 * scale
    assert (curvature.diagonal(weights) - exact.diagonal()).abs().max() < 1e-12 * scale


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def normal(rng, *shape):
    return torch.randn(*shape, dtype=torch.float64, generator=rng)


@pytest.mark.parametrize("rate", [None, assembly.SPARSE, 1e-3])
def test_logistic_with_intercept_and_penalties(rng, rate, monkeypatch):
    """Of dense data; of sparse data by its entries; by dense rows where those are many."""
    if rate is not None:
        monkeypatch.setattr(assembly, "SPARSE", rate)
    b = Builder()
    n, p = Axis("n", AxisKind.DIM), Axis("p", AxisKind.DIM)
    X, w, c = b.param("X", (n, p)), b.var("fit", "w", (p,)), b.var("fit", "c", ())
    lam, labels = b.var("upper", "lam", (p,)), b.param("y", (n,))
    z = b.add((b.product([(X, (0, 1)), (w, (1,))], (0,), {0: n, 1: p}), b.align(c, (None,), (n,))))
    margin = b.mul(labels, z)
    f = b.add(
        (
            b.reduce("sum", b.apply("softplus", margin), (0,)),
            b.reduce("sum", b.mul(b.apply("exp", lam), b.apply("square", w)), (0,)),
        )
    )
    found = find_predictors(b, f, FIT)
    N, P = 12, 5
    Xd, yd, lamd = normal(rng, N, P), normal(rng, N).sign(), normal(rng, P)
    Xd[normal(rng, N, P) > 0.5] = 0.0
    data = yd[:, None] * Xd
    known = data if rate is None else sp.csr_array(data.numpy())
    sizes, tensors = [], []
    for q in found:
        if q.samples:
            sizes.append((N,))
            tensors.append([known if t.contracted else yd[:, None] for t in q.terms])
        else:
            sizes.append((P,))
            tensors.append([torch.ones(P, dtype=torch.float64)])
    positions = {("fit", "w"): torch.arange(P), ("fit", "c"): torch.tensor(P)}
    curvature = Curvature(found, sizes, tensors, positions, P + 1)

    def f_of_y(y):
        margin = yd * (Xd @ y[:P] + y[P])
        weights = y[:P] * 1.0
        value = torch.nn.functional.softplus(margin).sum() + (lamd.exp() * weights**2).sum()
        return value, [margin if q.samples else weights for q in found]

    compare(curvature, f_of_y, normal(rng, P + 1).requires_grad_())


@pytest.mark.parametrize("entries", [assembly._STACK, 60, 20])
@pytest.mark.parametrize("sparse", [False, True])
def test_softmax_with_class_intercepts(rng, entries, sparse, monkeypatch):
    """In one piece, by a few samples at a time, and pair by pair where the whole is too large."""
    monkeypatch.setattr(assembly, "_STACK", entries)
    b = Builder()
    n, p, k = (Axis(name, AxisKind.DIM) for name in "npk")
    X, W, c = b.param("X", (n, p)), b.var("fit", "W", (p, k)), b.var("fit", "c", (k,))
    xw = b.product([(X, (0, 1)), (W, (1, 2))], (0, 2), {0: n, 1: p, 2: k})
    Z = b.add((xw, b.align(c, (None, 0), (n, k))))
    f = b.reduce("sum", b.reduce("logsumexp", Z, (1,)), (0,))
    (found,) = find_predictors(b, f, FIT)
    N, P, K = 9, 4, 3
    Xd = normal(rng, N, P)
    known = sp.csr_array(Xd.numpy()) if sparse else Xd
    ones = torch.ones(N, 1, dtype=torch.float64)
    tensors = [known if t.contracted else ones for t in found.terms]
    positions = {
        ("fit", "W"): torch.arange(P * K).reshape(P, K),
        ("fit", "c"): torch.arange(P * K, P * K + K),
    }
    curvature = Curvature([found], [(N, K)], [tensors], positions, P * K + K)

    def f_of_y(y):
        z = Xd @ y[: P * K].reshape(P, K) + y[P * K :]
        return torch.logsumexp(z, 1).sum(), [z]

    compare(curvature, f_of_y, normal(rng, P * K + K).requires_grad_())


def test_family_of_followers_is_block_diagonal(rng):
    b = Builder()
    i, n, p = (Axis(name, AxisKind.DIM) for name in "inp")
    X, w = b.param("X", (i, n, p)), b.var("fit", "w", (i, p))
    z = b.product([(X, (0, 1, 2)), (w, (0, 2))], (0, 1), {0: i, 1: n, 2: p})
    (found,) = find_predictors(b, b.reduce("sum", b.apply("cosh", z), (1,)), FIT)
    B, N, P = 3, 5, 2
    Xd = normal(rng, B, N, P)
    curvature = Curvature(
        [found], [(B, N)], [[Xd]], {("fit", "w"): torch.arange(B * P).reshape(B, P)}, B * P
    )

    def f_of_y(y):
        z = (Xd @ y.reshape(B, P, 1)).squeeze(-1)
        return torch.cosh(z).sum(), [z]

    compare(curvature, f_of_y, normal(rng, B * P).requires_grad_())


@pytest.mark.parametrize("near", [1, assembly._NEAR])
@pytest.mark.parametrize(
    "places",
    [range(12), [3, 4, 5, 0, 1, 2, 6, 7, 8, 9, 10, 11], range(2, 14), [13, 1, 2, *range(4, 13)]],
    ids=["all", "intercepts first", "behind others", "apart"],
)
def test_classes_are_added_where_they_belong(rng, places, near, monkeypatch):
    """Weights of 3 features and an intercept for each of 3 classes, wherever they stand in y."""
    monkeypatch.setattr(assembly, "_NEAR", near)
    N, C = 30, 3
    index = torch.tensor(list(places)).reshape(4, C)
    data, ones = normal(rng, N, 3), torch.ones(N, 1, dtype=torch.float64)
    blocks = [
        assembly.Block(data[None], index[None, :3]),
        assembly.Block(ones[None], index[None, 3:]),
    ]
    G = normal(rng, N, C, C)
    G = G + G.transpose(1, 2)
    H = torch.full((15, 15), 0.5, dtype=torch.float64)
    stack = assembly.Stack.of(blocks)
    assert stack is not None
    stack.add(H.numpy(), G[None])
    A = torch.cat([data, ones], 1)
    flat = index.reshape(-1)
    exact = torch.full_like(H, 0.5)
    exact[flat[:, None], flat] += torch.einsum("np,ncd,nq->pcqd", A, G, A).reshape(12, 12)
    assert (H - exact).abs().max() < 1e-12 * exact.abs().max()
