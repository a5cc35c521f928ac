"""The graph: its size, its inputs, and every kind of node against the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bilevelpy.ir.build import Builder
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.program import Data
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.graph import compile_expressions
from bilevelpy.lowering.programs.memory import widest
from bilevelpy.lowering.programs.slots import DataTensors
from bilevelpy.sema.bind import bind
from tests.unit.lowering.programs import (
    LOGISTIC,
    RIDGE,
    bound,
    checked,
    logistic_data,
    oracle,
    point,
    ridge_data,
)


def calls(o: TorchOracle) -> int:
    return sum(n.op == "call_function" for n in o.compiled((o.f_expr,)).module.graph.nodes)


def test_size_does_not_depend_on_data():
    small, large = (oracle(RIDGE, **ridge_data(n=n, p=p)) for n, p in ((5, 2), (400, 30)))
    assert calls(small) == calls(large) == 8


def test_comprehension_and_matrix_form_are_one_graph():
    other = RIDGE.replace(
        "mean((A @ w - b)^2)", "sum((sum(A[i, j] * w[j] for j in p) - b[i])^2 for i in n) / n"
    )
    other = other.replace("mse(Xv, yv, w);\n  subject", "sum((Xv @ w - yv)^2) / m;\n  subject")
    a, b = oracle(RIDGE, **ridge_data()), oracle(other, **ridge_data())
    assert a.compiled((a.f_expr,)).code == b.compiled((b.f_expr,)).code


def test_new_data_needs_no_compilation():
    program = checked(RIDGE)
    first, second = (TorchOracle(bind(program, ridge_data(n=n, seed=n))) for n in (10, 20))
    assert first.compiled((first.f_expr,)) is second.compiled((second.f_expr,))
    x, y = point(first)
    assert first.f(x, y) != second.f(x, y)


def test_code_reads_like_the_model():
    o = oracle(LOGISTIC, **logistic_data())
    code = o.compiled((o.f_expr,)).code
    assert "torch.mv(" in code
    assert "einsum" not in code
    assert code.count("expand") == code.count("spread") == 0


def test_params_are_not_copied():
    data = ridge_data()
    o = oracle(RIDGE, **data)
    slots = o.compiled((o.f_expr,)).slots
    values = dict(zip((s.name for s in slots), o.tensors.resolve(slots, {}), strict=True))
    assert values["X"].data_ptr() == data["X"].__array_interface__["data"][0]


def test_data_is_folded_into_one_input():
    text = """
    dim n; param a[n], b[n], r;
    upper { var x; minimize x^2; }
    lower l { var w[n]; minimize sum((exp(a) * r * w - sqrt(square(a) + square(b)) * 3)^2); }
    """
    rng = np.random.default_rng(0)
    o = oracle(text, a=rng.standard_normal(5), b=rng.standard_normal(5), r=1.5)
    compiled = o.compiled((o.f_expr,))
    assert len(compiled.slots) == 2
    assert "exp" not in compiled.code
    assert calls(o) <= 4


def test_odd_names_are_usable():
    text = """
    dim lambda; param torch[lambda], self[lambda], upper_x[lambda];
    upper { var x[lambda]; minimize sum(x * torch); }
    lower l { var w[lambda]; minimize sum((w * self - torch * x)^2) + sum(upper_x * w) + sum(w *
    x); }
    """
    o = oracle(text, torch=np.ones(3), self=np.ones(3), upper_x=np.ones(3))
    x, y = point(o)
    expected = ((y - x) ** 2).sum() + y.sum() + (x * y).sum()
    assert o.f(x, y) == pytest.approx(float(expected))


def test_memory_guard_sees_the_largest_result():
    b = bound(RIDGE, **ridge_data(n=300, p=4))
    assert widest(b, [v.objective for v in b.program.levels])[0] == 300


class Setting:
    """Axes i (3), j (4), k (2), variables over them, and data."""

    def __init__(self) -> None:
        rng = np.random.default_rng(3)
        self.b = b = Builder()
        self.i, self.j, self.k = (Axis(n, AxisKind.DIM) for n in "ijk")
        self.s = Axis("s", AxisKind.SUBSET, parents=(self.i, self.j))
        self.c = Axis("c", AxisKind.CONCAT, parents=(self.i, self.i))
        sizes = {self.i: 3, self.j: 4, self.k: 2, self.s: 5, self.c: 6}
        members = {self.s: np.array([[0, 1], [0, 3], [1, 0], [2, 2], [2, 3]])}
        shapes = {"P": (3, 4), "Q": (4, 2), "p": (3,), "q": (4,), "r": ()}
        self.axes = {
            "P": (self.i, self.j),
            "Q": (self.j, self.k),
            "p": (self.i,),
            "q": (self.j,),
            "r": (),
        }
        arrays = {n: np.asarray(rng.uniform(0.2, 1.5, s)) for n, s in shapes.items()}
        self.data = Data(sizes, {}, members, arrays)
        self.par = {n: b.param(n, a) for n, a in self.axes.items()}
        self.var = {n: b.var("upper", n, a) for n, a in self.axes.items()}
        self.sq = b.var("upper", "S", (self.i, self.i))
        self.variables = (*self.var.values(), self.sq)
        self.values = [
            torch.from_numpy(np.asarray(rng.uniform(0.2, 1.5, s))) for s in shapes.values()
        ]
        root = rng.standard_normal((3, 3))
        self.values.append(torch.from_numpy(root @ root.T + np.eye(3)))

    def agree(self, node) -> None:
        compiled = compile_expressions(self.b, (node,), self.variables)
        tensors = DataTensors(self.data, torch.float64, torch.device("cpu"))
        got = compiled.bind(tensors.resolve(compiled.slots, {}))(*self.values)
        env = {
            (v.level, v.name): t.numpy() for v, t in zip(self.variables, self.values, strict=True)
        }
        expected = evaluate(node, self.data, env)
        assert tuple(got.shape) == expected.shape
        np.testing.assert_allclose(got, expected, rtol=1e-12)


def cases(t: Setting):
    b, v, d = t.b, t.var, t.par
    pos = b.component(t.s, 0), b.component(t.s, 1)
    yield (
        "add broadcast",
        b.add(
            [v["P"], b.align(v["p"], (0, None), (t.i, t.j)), b.align(v["q"], (None, 0), (t.i, t.j))]
        ),
    )
    yield "only broadcast", b.align(b.apply("exp", v["p"]), (None, 0), (t.j, t.i))
    yield "scalar broadcast", b.align(v["r"], (None, None), (t.i, t.j))
    yield "broadcast of broadcast", b.apply("exp", b.align(v["p"], (0, None), (t.i, t.j)))
    yield (
        "reduce broadcast",
        b.raw_reduce("max", b.apply("exp", b.align(v["p"], (0, None), (t.i, t.j))), (1,)),
    )
    yield "data minus", b.sub(d["P"], v["P"])
    yield "number minus", b.sub(b.const(1.0), v["P"])
    yield "data scalar minus scalar", b.sub(d["r"], v["r"])
    yield "minus minus", b.add([b.scale(-1, v["P"]), b.scale(-1, d["P"]), b.const(-2.0)])
    yield (
        "scaled",
        b.add([b.scale(3.0, v["P"]), b.mul(d["r"], b.apply("exp", v["P"])), b.const(1.0)]),
    )
    yield (
        "scaled only",
        b.add([b.scale(3.0, v["r"]), b.mul(d["r"], v["r"], b.apply("exp", v["r"]))]),
    )
    yield "neg of product", b.apply("neg", b.mul(d["p"], v["p"], d["r"]))
    yield (
        "outer",
        b.product(
            [(v["p"], (0,)), (v["q"], (1,)), (d["r"], ()), (d["P"], (0, 1))],
            (1, 0),
            {0: t.i, 1: t.j},
        ),
    )
    yield (
        "matrix products",
        b.product([(d["P"], (0, 1)), (v["Q"], (1, 2))], (2, 0), {0: t.i, 1: t.j, 2: t.k}),
    )
    yield (
        "quadratic",
        b.product([(v["p"], (0,)), (d["P"], (0, 1)), (v["q"], (1,))], (), {0: t.i, 1: t.j}),
    )
    yield "diagonal", b.einsum([(t.sq, (0, 0))], (0,))
    yield "trace", b.product([(t.sq, (0, 0))], (), {0: t.i})
    yield "diagonal times", b.product([(t.sq, (0, 0)), (v["p"], (0,))], (0,), {0: t.i})
    yield "transpose", b.align(v["P"], (1, 0), (t.j, t.i))
    yield "counted", b.product([(v["p"], (0,))], (), {0: t.i, 1: t.j})
    yield "gather one", b.gather(v["p"], [pos[0]])
    yield "gather second", b.gather(v["P"], [None, pos[1]])
    yield "gather both", b.gather(v["P"], pos)
    yield "gather data by var", b.mul(b.gather(d["P"], pos), b.gather(v["p"], [pos[0]]))
    yield "gather number", b.gather(v["P"], [None, b.const(2.0)])
    yield "gather numbers", b.gather(v["P"], [b.const(1.0), b.const(2.0)])
    yield (
        "gather matrix",
        b.gather(
            v["q"],
            [
                b.locate(
                    t.j, [b.align(b.apply("add", b.coordinate(t.i)), (0, None), (t.i, t.k))], True
                )
            ],
        ),
    )
    yield "scatter", b.scatter_sum(b.gather(v["p"], [pos[0]]), [pos[1]], (t.j,))
    yield "scatter two", b.scatter_sum(b.gather(v["p"], [pos[0]]), [pos[0], pos[1]], (t.i, t.j))
    yield "scatter rows", b.scatter_sum(b.gather(v["P"], [pos[0], None]), [pos[1]], (t.j,))
    yield "concat", b.concat([v["p"], b.apply("exp", v["p"])], t.c)
    yield "concat data", b.concat([d["p"], v["p"]], t.c)
    yield "concat fill", b.concat([b.fill(2.0, (t.i,)), v["p"]], t.c)
    yield "diag", b.diag(v["P"])
    yield "logdet", b.matrix("logdet", t.sq)
    yield "spectral", b.matrix("spectral_norm", v["P"])
    yield "softmax", b.map_last("softmax", v["P"])
    yield "logsoftmax broadcast", b.map_last("logsoftmax", b.align(v["p"], (0, None), (t.i, t.j)))
    yield "select", b.apply("select", b.apply("lt", d["P"], b.const(0.8)), v["P"], b.const(0.0))
    yield (
        "select scalar condition",
        b.apply("select", b.apply("lt", d["r"], b.const(0.1)), v["P"], d["P"]),
    )
    yield "mask product", b.mul(b.apply("ge", d["P"], b.const(0.8)), v["P"])
    yield "max with number", b.apply("maximum", v["P"], b.const(0.8))
    yield "max with scalar", b.apply("minimum", v["P"], v["r"])
    yield "huber", b.apply("huber", v["P"], b.const(0.5))
    yield "power", b.apply("pow", v["P"], b.align(d["q"], (None, 0), (t.i, t.j)))
    yield "number to the power", b.apply("pow", b.const(2.0), v["P"])
    yield "mean", b.reduce("mean", v["P"], (0,))
    yield "data only", b.apply("exp", d["P"])
    yield "number", b.const(4.0)
    yield "fill", b.fill(4.0, (t.i,))
    for name in ("sum", "prod", "max", "min", "logsumexp", "norm2"):
        yield f"{name} all", b.raw_reduce(name, v["P"], (0, 1))
        yield f"{name} one", b.raw_reduce(name, v["P"], (1,))


SETTING = Setting()


@pytest.mark.parametrize(
    ("name", "node"), list(cases(SETTING)), ids=[name for name, _ in cases(SETTING)]
)
def test_agrees_with_the_interpreter(name, node):
    SETTING.agree(node)
