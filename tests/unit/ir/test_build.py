"""The canonical form: equal meanings are the same node, however they are written."""

import pytest

from bilevelpy.ir import expr as ir
from bilevelpy.ir.build import Builder
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.ir.walk import postorder


@pytest.fixture
def b():
    return Builder()


@pytest.fixture
def axes():
    return [Axis(name, AxisKind.DIM) for name in ("n", "p", "k")]


def matvec(b, X, w):
    return b.product([(X, (0, 1)), (w, (1,))], (0,), {0: X.axes[0], 1: X.axes[1]})


def test_factor_order_and_label_names_do_not_matter(b, axes):
    n, p, _ = axes
    X, w = b.param("X", (n, p)), b.var("fit", "w", (p,))
    assert matvec(b, X, w) is b.product([(w, (7,)), (X, (4, 7))], (4,), {4: n, 7: p})


def test_residual_squared_equals_residual_times_residual(b, axes):
    n, p, _ = axes
    r = b.sub(matvec(b, b.param("X", (n, p)), b.var("fit", "w", (p,))), b.param("y", (n,)))
    assert b.product([(r, (0,)), (r, (0,))], (), {0: n}) is b.reduce(
        "sum", b.apply("square", r), (0,)
    )


def test_scaling_moves_out_of_a_sum(b, axes):
    _, p, _ = axes
    w2 = b.apply("square", b.var("fit", "w", (p,)))
    rho = b.param("rho", ())
    assert b.reduce("sum", b.mul(rho, w2), (0,)) is b.mul(rho, b.reduce("sum", w2, (0,)))


def test_chain_of_products_contracts_the_vector_first(b, axes):
    n, p, k = axes
    A, B, c = b.param("A", (n, p)), b.param("B", (p, k)), b.param("c", (k,))
    flat = b.product([(A, (0, 1)), (B, (1, 2)), (c, (2,))], (0,), {0: n, 1: p, 2: k})
    assert max(node.rank for node in postorder(flat) if isinstance(node, ir.Einsum)) == 1


def test_row_scaling_keeps_the_predictor_as_a_node(b, axes):
    n, p, _ = axes
    X, w, y = b.param("X", (n, p)), b.var("fit", "w", (p,)), b.param("y", (n,))
    margin = b.product([(y, (0,)), (X, (0, 1)), (w, (1,))], (0,), {0: n, 1: p})
    assert matvec(b, X, w) in set(postorder(margin))


def test_sum_over_an_axis_that_nothing_carries_counts_it(b, axes):
    n, p, _ = axes
    w = b.var("fit", "w", (p,))
    total = b.product([(w, (1,))], (1,), {0: n, 1: p})
    assert total is b.mul(b.size(n), w)


def test_sums_are_flat_and_signs_are_taken_apart(b, axes):
    n = axes[0]
    x, y, z = (b.param(name, (n,)) for name in "xyz")
    assert b.sub(x, b.sub(y, z)) is b.add((x, z, b.scale(-1, y)))
    assert b.add((x, b.const(1), b.const(-1))) is x


def test_many_terms_stay_shallow(b):
    x = b.var("upper", "x", ())
    terms = [b.scale(k + 2.0, x) for k in range(5000)]
    total = b.add(terms)
    assert isinstance(total, ir.Apply)
    assert len(total.operands) == 5000


def test_trace_is_a_sum_of_the_diagonal(b, axes):
    A = b.param("A", (axes[0], axes[0]))
    trace = b.product([(A, (0, 0))], (), {0: axes[0]})
    assert isinstance(trace, ir.Reduce)
    assert isinstance(trace.operand, ir.Einsum)


def test_powers_have_one_spelling(b, axes):
    x = b.param("x", (axes[0],))
    assert b.apply("pow", x, b.const(2)) is b.mul(x, x)
    assert b.apply("pow", x, b.const(1)) is x
    assert b.apply("square", b.scale(-1, x)) is b.apply("square", x)


def test_broadcast_is_absorbed_by_products(b, axes):
    n, p, _ = axes
    a, X = b.param("a", (n,)), b.param("X", (n, p))
    wide = b.align(a, (0, None), (n, p))
    assert b.mul(wide, X) is b.product([(a, (0,)), (X, (0, 1))], (0, 1), {0: n, 1: p})


def test_data_nodes_are_told_from_variables(b, axes):
    n = axes[0]
    x, y = b.param("x", (n,)), b.var("fit", "y", (n,))
    assert b.is_data(b.apply("exp", x))
    assert not b.is_data(b.add((x, y)))


def test_digests_are_equal_across_builders():
    def make():
        b = Builder()
        n, p = Axis("n", AxisKind.DIM), Axis("p", AxisKind.DIM)
        return b.digest(matvec(b, b.param("X", (n, p)), b.var("fit", "w", (p,))))

    assert make() == make()


def test_unequal_axes_are_refused(b, axes):
    n, p, _ = axes
    with pytest.raises(ValueError, match="axes"):
        b.add((b.param("x", (n,)), b.param("z", (p,))))
