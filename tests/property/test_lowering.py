"""Random expressions: the compiled graph agrees with the interpreter, and derivatives with
differences.
"""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilevelpy.ir.build import Builder
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.program import Data
from bilevelpy.ir.types import Axis, AxisKind
from bilevelpy.lowering.programs.graph import compile_expressions
from bilevelpy.lowering.programs.slots import DataTensors

SMOOTH = ("exp", "tanh", "sin", "softplus", "square", "sigmoid", "atan", "neg")
STEP = 1e-5
# Central differences of smooth functions of size about 1 with this step.
DIFFERENCE = 1e-6


class Grower:
    """Draws expressions over axes of 2, 3 and 4 elements."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.builder = Builder()
        self.axes = [Axis(n, AxisKind.DIM) for n in "ijk"]
        self.sizes = dict(zip(self.axes, (2, 3, 4), strict=True))
        self.arrays: dict[str, np.ndarray] = {}
        self.rng = np.random.default_rng(draw(st.integers(0, 2**16)))

    def some_axes(self) -> tuple[Axis, ...]:
        return tuple(self.draw(st.permutations(self.axes))[: self.draw(st.integers(0, 3))])

    def leaf(self, axes: tuple[Axis, ...]) -> Expr:
        if self.draw(st.booleans()):
            name = "p" + "".join(a.name for a in axes)
            self.arrays.setdefault(
                name, np.asarray(self.rng.uniform(-1, 1, [self.sizes[a] for a in axes]))
            )
            return self.builder.param(name, axes)
        return self.builder.var("l", "v" + "".join(a.name for a in axes), axes)

    def grow(self, axes: tuple[Axis, ...], depth: int) -> Expr:
        b = self.builder
        kind = self.draw(st.integers(0, 8)) if depth else 0
        if kind <= 1:
            return self.leaf(axes)
        if kind == 2:
            return b.apply(self.draw(st.sampled_from(SMOOTH)), self.grow(axes, depth - 1))
        if kind == 3:
            factors = [self.draw(st.sampled_from([1.0, -1.0, 0.5])) for _ in range(2)]
            return b.add(
                [
                    b.scale(f, self.grow(self.draw(st.sampled_from([axes, ()])), depth - 1))
                    for f in factors
                ]
                + [self.grow(axes, depth - 1)]
            )
        if kind == 4:
            fewer = tuple(a for a in axes if self.draw(st.booleans()))
            source = tuple(fewer.index(a) if a in fewer else None for a in axes)
            return b.align(self.grow(fewer, depth - 1), source, axes)
        if kind == 5:
            extra = self.draw(st.sampled_from(self.axes))
            if extra in axes:
                return self.leaf(axes)
            inner = self.grow((*axes, extra), depth - 1)
            return b.reduce(
                self.draw(st.sampled_from(["sum", "mean", "logsumexp"])), inner, (len(axes),)
            )
        if kind == 6 and axes:
            order = self.draw(st.permutations(range(len(axes))))
            return b.align(
                self.grow(tuple(axes[d] for d in order), depth - 1),
                tuple(order.index(d) for d in range(len(axes))),
                axes,
            )
        if kind == 7 and axes:
            index = self.rng.integers(0, self.sizes[axes[0]], self.sizes[axes[0]])
            name = f"index{len(self.arrays)}"
            self.arrays[name] = index.astype(float)
            position = b.param(name, axes[:1])
            return b.gather(self.grow(axes, depth - 1), [position, *[None] * (len(axes) - 1)])
        labels = dict(enumerate(self.axes))
        output = tuple(self.axes.index(a) for a in axes)
        factors = []
        for _ in range(self.draw(st.integers(1, 3))):
            own = self.some_axes()
            factors.append((self.grow(own, depth - 1), tuple(self.axes.index(a) for a in own)))
        used = {s for _, own in factors for s in own} | set(output)
        return b.product(factors, output, {s: a for s, a in labels.items() if s in used})


@st.composite
def expressions(draw: st.DrawFn) -> tuple[Grower, Expr]:
    grower = Grower(draw)
    return grower, grower.grow(grower.some_axes(), draw(st.integers(1, 4)))


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(expressions())
def test_compiled_agrees_with_the_interpreter(case):
    grower, node = case
    b = grower.builder
    from bilevelpy.ir.walk import variables

    names = sorted(variables(node)) or [("l", "v")]
    by_letter = {a.name: a for a in grower.axes}
    refs = tuple(b.var(level, name, tuple(by_letter[s] for s in name[1:])) for level, name in names)
    values = [
        np.asarray(grower.rng.uniform(-1, 1, [grower.sizes[a] for a in r.axes])) for r in refs
    ]
    data = Data(grower.sizes, {}, {}, grower.arrays)
    compiled = compile_expressions(b, (node,), refs)
    function = compiled.bind(
        DataTensors(data, torch.float64, torch.device("cpu")).resolve(compiled.slots, {})
    )

    def reference(arrays):
        return evaluate(
            node, data, {(r.level, r.name): v for r, v in zip(refs, arrays, strict=True)}
        )

    leaves = [torch.from_numpy(v.copy()).requires_grad_() for v in values]
    result = function(*leaves)
    expected = reference(values)
    assert tuple(result.shape) == expected.shape
    np.testing.assert_allclose(result.detach(), expected, rtol=1e-10, atol=1e-10)
    if not result.requires_grad:
        return
    weights = grower.rng.uniform(-1, 1, expected.shape)
    grads = torch.autograd.grad(
        (result * torch.from_numpy(np.asarray(weights))).sum(), leaves, allow_unused=True
    )
    directions = [np.asarray(grower.rng.uniform(-1, 1, v.shape)) for v in values]
    up, down = (
        reference([v + h * d for v, d in zip(values, directions, strict=True)])
        for h in (STEP, -STEP)
    )
    slope = float((weights * (up - down)).sum() / (2 * STEP))
    along = sum(
        float((g.numpy() * d).sum())
        for g, d in zip(grads, directions, strict=True)
        if g is not None
    )
    scale = 1 + abs(slope) + float(np.abs(expected).max())
    assert abs(along - slope) <= DIFFERENCE * scale * 100
