"""The interpreter against NumPy and SciPy, written out by hand."""

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.special

from bilevelpy.ir import expr as ir
from bilevelpy.ir.atoms import ELEMENTWISE, MAPS, MATRICES, REDUCTIONS
from bilevelpy.ir.build import Builder
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.meanings import MEANING, EvaluationError
from bilevelpy.ir.program import Data, Extern, ExternArgument
from bilevelpy.ir.types import Axis, AxisKind

N, P, K = Axis("n", AxisKind.DIM), Axis("p", AxisKind.DIM), Axis("k", AxisKind.DIM)
RNG = np.random.default_rng(0)
A, B, V, W = (
    RNG.normal(size=(5, 3)),
    RNG.normal(size=(3, 4)),
    RNG.normal(size=5),
    RNG.normal(size=3),
)
S = RNG.normal(size=(4, 4))


@pytest.fixture
def b():
    return Builder()


def data(**arrays):
    return Data({N: 5, P: 3, K: 4}, {}, {}, arrays)


def one(b, value):
    """A vector param `v` over n with that value."""
    node = b.param("v", (N,))
    value = np.asarray(value, dtype=float)
    return node, Data({N: len(value)}, {}, {}, {"v": value})


ELEMENTWISE_ANSWERS = {
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "log": np.log,
    "log1p": np.log1p,
    "abs": np.abs,
    "square": lambda x: x * x,
    "recip": lambda x: 1 / x,
    "neg": lambda x: -x,
    "relu": lambda x: np.maximum(x, 0),
    "sigmoid": scipy.special.expit,
    "softplus": lambda x: np.logaddexp(0, x),
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "atan": np.arctan,
    "sinh": np.sinh,
    "cosh": np.cosh,
    "entr": scipy.special.entr,
}


def test_every_function_of_the_tables_has_a_meaning(b):
    x, d = one(b, [0.5, 1.5])
    for name, atom in ELEMENTWISE.items():
        operands = [x] * (atom.arity or 2)
        assert evaluate(b.raw_apply(name, tuple(operands)), d).shape == (2,)
    for name in REDUCTIONS:
        assert evaluate(b.raw_reduce(name, x, (0,)), d).shape == ()
    for name in MAPS:
        assert evaluate(b.map_last(name, x), d).shape == (2,)
    for name in MATRICES:
        assert np.isfinite(evaluate(b.matrix(name, b.eye(N)), d))


def test_every_node_has_a_meaning():
    kinds = {
        c
        for c in vars(ir).values()
        if isinstance(c, type) and issubclass(c, ir.Expr) and c is not ir.Expr
    }
    assert kinds == set(MEANING)


@pytest.mark.parametrize("name", sorted(ELEMENTWISE_ANSWERS))
def test_elementwise(b, name):
    x, d = one(b, [0.1, 0.7, 2.0])
    np.testing.assert_allclose(
        evaluate(b.raw_apply(name, (x,)), d), ELEMENTWISE_ANSWERS[name](d.arrays["v"]), rtol=1e-14
    )


@pytest.mark.parametrize(
    ("name", "point", "answer"),
    [
        ("softplus", 800.0, 800.0),
        ("softplus", -800.0, 0.0),
        ("softplus", -40.0, math.exp(-40)),
        ("sigmoid", -800.0, 0.0),
        ("sigmoid", 800.0, 1.0),
        ("entr", 0.0, 0.0),
    ],
)
def test_stable_at_extremes(b, name, point, answer):
    x, d = one(b, [point])
    assert evaluate(b.raw_apply(name, (x,)), d)[0] == pytest.approx(answer, rel=1e-14, abs=0)


def test_logsumexp_does_not_overflow(b):
    x, d = one(b, [1000.0, 1000.0])
    assert evaluate(b.raw_reduce("logsumexp", x, (0,)), d) == pytest.approx(1000 + math.log(2))
    x, d = one(b, [-np.inf, -np.inf])
    assert evaluate(b.raw_reduce("logsumexp", x, (0,)), d) == -np.inf
    x, d = one(b, [1e200, 1e200])
    assert evaluate(b.raw_reduce("norm2", x, (0,)), d) == pytest.approx(math.sqrt(2) * 1e200)
    x, d = one(b, [1000.0, 0.0])
    np.testing.assert_allclose(evaluate(b.map_last("softmax", x), d), [1, 0], atol=1e-300)


def test_huber_on_both_sides(b):
    x, d = one(b, [0.5, -3.0])
    node = b.raw_apply("huber", (x, b.const(2.0)))
    np.testing.assert_allclose(evaluate(node, d), [0.125, 2 * 3 - 2])


def test_conditions_and_select(b):
    x, d = one(b, [1, 2, 3])
    gt, lt = b.raw_apply("gt", (x, b.const(1))), b.raw_apply("lt", (x, b.const(3)))
    both = b.raw_apply("and", (gt, lt))
    assert evaluate(both, d).dtype == bool
    np.testing.assert_array_equal(evaluate(both, d), [False, True, False])
    np.testing.assert_array_equal(evaluate(b.raw_apply("not", (both,)), d), [True, False, True])
    np.testing.assert_array_equal(
        evaluate(b.raw_apply("or", (b.raw_apply("not", (gt,)), gt)), d), [True] * 3
    )
    np.testing.assert_array_equal(
        evaluate(b.raw_apply("select", (both, x, b.const(0))), d), [0, 2, 0]
    )


def test_leaves(b):
    d = data()
    assert evaluate(b.const(2), d) == 2
    np.testing.assert_array_equal(evaluate(b.array([1, 2, 3], (P,)), d), [1, 2, 3])
    np.testing.assert_array_equal(evaluate(b.fill(2, (P, K)), d), np.full((3, 4), 2.0))
    np.testing.assert_array_equal(evaluate(b.eye(P), d), np.eye(3))
    assert evaluate(b.size(P), d) == 3
    np.testing.assert_array_equal(evaluate(b.position(P), d), [0, 1, 2])
    assert evaluate(b.position(P), d).dtype.kind == "i"


def test_least_squares_dense_and_sparse(b):
    X, w, y = b.param("X", (N, P)), b.var("fit", "w", (P,)), b.param("y", (N,))
    residual = b.sub(b.product([(X, (0, 1)), (w, (1,))], (0,), {0: N, 1: P}), y)
    loss = b.reduce("mean", b.apply("square", residual), (0,))
    for matrix in (A, scipy.sparse.csr_matrix(A)):
        value = evaluate(loss, data(X=matrix, y=V), {("fit", "w"): W})
        assert value == pytest.approx(np.mean((A @ W - V) ** 2), rel=1e-14)


@pytest.mark.parametrize("output", ["ik", "ki", "i", "k", ""])
@pytest.mark.parametrize("sparse", [(), (0,), (1,), (0, 1)])
def test_contractions_agree_with_einsum(b, output, sparse):
    operands = [A * (np.abs(A) > 0.5), B]
    values = {
        n: scipy.sparse.csr_matrix(v) if k in sparse else v
        for k, (n, v) in enumerate(zip("AB", operands, strict=True))
    }
    out = tuple("ijk".index(c) for c in output)
    node = b.product(
        [(b.param("A", (N, P)), (0, 1)), (b.param("B", (P, K)), (1, 2))], out, {0: N, 1: P, 2: K}
    )
    expected = np.einsum(f"ij,jk->{output}", *operands)
    np.testing.assert_allclose(evaluate(node, data(**values)), expected, rtol=1e-13)


@pytest.mark.parametrize("output", [(0, 1), (1, 0), (0,), (1,), ()])
@pytest.mark.parametrize("other", [(), (0,), (1,), (0, 1), (1, 0)])
def test_products_with_a_sparse_matrix(b, output, other):
    axis_of = {0: N, 1: P}
    thin = A * (np.abs(A) > 0.8)
    dense = RNG.normal(size=tuple((5, 3)[k] for k in other))
    factor = b.var("u", "d", tuple(axis_of[k] for k in other))
    node = b.product([(b.param("A", (N, P)), (0, 1)), (factor, other)], output, axis_of)
    value = evaluate(node, data(A=scipy.sparse.csr_matrix(thin)), {("u", "d"): dense})
    np.testing.assert_allclose(
        value, np.einsum(thin, [0, 1], dense, list(other), list(output)), atol=1e-14
    )


def test_sparse_stays_sparse_where_it_can(b):
    place = (RNG.integers(0, 10_000, 5_000), RNG.integers(0, 5_000, 5_000))
    big = scipy.sparse.coo_matrix((RNG.normal(size=5_000), place), (10_000, 5_000)).tocsr()
    sizes = Data({N: 10_000, P: 5_000}, {}, {}, {"A": big})
    a = b.param("A", (N, P))
    total = b.reduce("sum", b.apply("square", a), (0, 1))
    assert evaluate(total, sizes) == pytest.approx(big.multiply(big).sum())
    rows = b.reduce("sum", b.scale(2.0, a), (1,))
    np.testing.assert_allclose(evaluate(rows, sizes), 2 * np.asarray(big.sum(axis=1)).ravel())
    with pytest.raises(EvaluationError, match="10000 x 5000"):
        evaluate(b.apply("exp", a), sizes)


def test_align_diag_concat_matrix(b):
    d = data(A=A, v=V, S=S @ S.T)
    a, v, s = b.param("A", (N, P)), b.param("v", (N,)), b.param("S", (K, K))
    np.testing.assert_array_equal(evaluate(b.align(a, (1, 0), (P, N)), d), A.T)
    np.testing.assert_array_equal(
        evaluate(b.align(v, (0, None), (N, P)), d), np.repeat(V[:, None], 3, 1)
    )
    np.testing.assert_array_equal(evaluate(b.diag(v), d), np.diag(V))
    np.testing.assert_array_equal(evaluate(b.einsum([(s, (0, 0))], (0,)), d), np.diag(S @ S.T))
    axis = Axis("v + v", AxisKind.CONCAT, parents=(N, N))
    d.sizes[axis] = 10
    np.testing.assert_array_equal(evaluate(b.concat([v, v], axis), d), np.concatenate([V, V]))
    assert evaluate(b.matrix("logdet", s), d) == pytest.approx(np.linalg.slogdet(S @ S.T)[1])
    assert evaluate(b.matrix("spectral_norm", s), d) == pytest.approx(np.linalg.norm(S @ S.T, 2))


def test_gather_and_scatter(b):
    d = data(A=A, v=V)
    tail = b.subset_axis("n where n > 1", (N,), b.raw_apply("gt", (b.coordinate(N), b.const(1))))
    d.sizes[tail], d.members[tail] = 4, np.array([[1], [2], [3], [4]])
    position = b.component(tail, 0)
    before = b.locate(N, (b.sub(b.coordinate(tail), b.const(1)),), True)
    np.testing.assert_array_equal(evaluate(b.gather(b.param("v", (N,)), [before]), d), V[:-1])
    np.testing.assert_array_equal(
        evaluate(b.gather(b.param("A", (N, P)), [position, None]), d), A[1:]
    )
    np.testing.assert_array_equal(
        evaluate(b.scatter_sum(b.gather(b.param("v", (N,)), [position]), [position], (N,)), d),
        [0, *V[1:]],
    )
    sparse = data(A=scipy.sparse.csr_matrix(A))
    sparse.sizes[tail], sparse.members[tail] = 4, d.members[tail]
    first = b.align(b.const(0), (None,), (tail,))
    np.testing.assert_allclose(
        evaluate(b.gather(b.param("A", (N, P)), [position, first]), sparse), A[1:, 0]
    )


def test_an_index_out_of_range_names_its_place(b):
    d = data(v=V)
    before = b.sub(b.position(N), b.const(1))
    with pytest.raises(EvaluationError) as caught:
        evaluate(b.gather(b.param("v", (N,)), [before]), d)
    assert caught.value.place == (0,)
    assert caught.value.found == -1
    outside = b.locate(N, (b.add([b.coordinate(N), b.const(2)]),), True)
    with pytest.raises(EvaluationError) as caught:
        evaluate(outside, d)
    assert caught.value.place == (3,)


def test_pairs(b):
    node = Axis("NODE", AxisKind.LABELS, labels=("a", "b", "c"))
    arc = Axis("ARC", AxisKind.PAIRS, parents=(node, node), labels=(("a", "b"), ("c", "a")))
    d = Data(
        {node: 3, arc: 2},
        {node: node.labels, arc: arc.labels},
        {arc: np.array([[0, 1], [2, 0]])},
        {},
    )
    assert evaluate(b.label_position(arc, ("c", "a")), d) == 1
    found = b.locate(arc, (b.component(arc, 0), b.component(arc, 1)), False)
    np.testing.assert_array_equal(evaluate(found, d), [0, 1])
    with pytest.raises(EvaluationError):
        evaluate(b.locate(arc, (b.component(arc, 1), b.component(arc, 0)), False), d)
    with pytest.raises(EvaluationError):
        evaluate(b.label_position(node, "d"), d)


def test_ranges_count_from_their_first_element(b):
    year = Axis("YEAR", AxisKind.RANGE, low=b.const(2020), high=b.const(2023))
    d = Data({year: 4}, {}, {}, {})
    np.testing.assert_array_equal(evaluate(b.coordinate(year), d), [2020, 2021, 2022, 2023])
    assert evaluate(b.locate(year, (b.const(2022),), True), d) == 2
    assert evaluate(b.label_position(year, 2023), d) == 3


def test_a_missing_variable_and_an_empty_maximum_are_errors(b):
    with pytest.raises(EvaluationError, match=r"no value of fit\.w"):
        evaluate(b.var("fit", "w", (P,)), data())
    with pytest.raises(EvaluationError, match="no elements"):
        evaluate(
            b.raw_reduce("max", b.param("v", (N,)), (0,)), Data({N: 0}, {}, {}, {"v": np.zeros(0)})
        )


def test_deep_expressions_do_not_recurse(b):
    x, d = one(b, [0.5])
    node = x
    for _ in range(5_000):
        node = b.raw_apply("sin", (node,))
    assert np.isfinite(evaluate(node, d)[0])


def test_extern_functions_get_arrays_or_tensors(b):
    call = b.extern("net", [b.param("v", (N,))], ())
    d = Data({N: 5}, {}, {}, {"v": V}, {"net": lambda v: (v * v).sum()})
    assert evaluate(call, d) == pytest.approx(V @ V)


def test_an_extern_call_is_repeated_along_iterators(b):
    declared = Extern("net", (ExternArgument("a", (P,)), ExternArgument("t", ())), ())
    call = b.extern("net", [b.param("A", (N, P)), b.param("t", ())], (N,))
    d = Data(
        {N: 5, P: 3}, {}, {}, {"A": A, "t": np.array(2.0)}, {"net": lambda a, t: t * (a * a).sum()}
    )
    np.testing.assert_allclose(
        evaluate(call, d, externs={"net": declared}), 2 * (A * A).sum(axis=1)
    )
