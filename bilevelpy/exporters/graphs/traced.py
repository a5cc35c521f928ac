"""The functions of a model as one graph of plain tensor operations, checked against the oracle.

``x`` in R^n holds the upper variables and ``y`` in R^m the lower ones, both flat and in declared
order; ``v`` in R^m is a direction. Both levels are minimisations. The graph computes ::

    F, f, dF/dx, dF/dy, df/dx, df/dy, f_yy v, f_xy v

Derivatives are traced into operations (``make_fx``), because exporters of graphs know no nested
differentiation. A trace freezes whatever depends on the point, so it is compared with the oracle at
other points before anything is written.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx

from bilevelpy.errors import BackendError, ExportError
from bilevelpy.exporters.consumers import need
from bilevelpy.ir.expr import DualRef
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import DomainKind
from bilevelpy.ir.walk import level_roots, postorder
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.lowering.programs.linear_map import data_product
from bilevelpy.reductions.refusal import refuse

if TYPE_CHECKING:
    from pathlib import Path

    from bilevelpy.ir.expr import Expr
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.lowering.programs.layout import Layout

INPUTS = ("x", "y", "v")
OUTPUTS = ("F", "f", "grad_x_F", "grad_y_F", "grad_x_f", "grad_y_f", "hvp", "cross")
DENSE_LIMIT = 20_000_000
"""Entries of a sparse array at most, which a graph holds in full (160 MB)."""
AGREEMENT = 1e-9
"""Relative difference between graph and oracle: both compute the same sums in another order."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A graph, a point to give its shapes, and the oracle that it was compared with."""

    module: fx.GraphModule
    point: tuple[Tensor, Tensor, Tensor]
    oracle: TorchOracle

    def layout(self) -> str:
        """Where the variables lie in the flat vectors, as JSON."""
        bound = self.oracle.bound
        content = {
            "model": bound.program.name,
            "inputs": {"x": self.oracle.n, "y": self.oracle.m, "v": self.oracle.m},
            "outputs": list(OUTPUTS),
            "sign": {"F": self.oracle.F_sign, "f": self.oracle.f_sign},
            "x": _pieces(self.oracle.upper, self.oracle.x0, self.oracle.domain_x),
            "y": _pieces(self.oracle.lower, self.oracle.y0, self.oracle.domain_y),
        }
        return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _pieces(layout: Layout, start: Tensor, domain: Any) -> list[dict[str, Any]]:
    def shown(values: Tensor) -> list[Any]:
        # Infinities are no numbers of JSON.
        return [v if abs(v) < float("inf") else str(v) for v in values.tolist()]

    return [
        {
            "level": p.variable.level,
            "name": p.variable.name,
            "shape": list(p.shape),
            "start": p.start,
            "stop": p.stop,
            "domain": str(p.variable.domain.kind),
            "lower": shown(domain.lower[p.start : p.stop]),
            "upper": shown(domain.upper[p.start : p.stop]),
            "initial": shown(start[p.start : p.stop]),
        }
        for p in layout.pieces
    ]


def trace(bound: BoundProgram, target: str) -> Traced:
    """The graph of a bound program.

    Raises
    ------
    ExportError
        Where the model has parts that are no functions of ``x`` and ``y`` (shadow prices, extern
        functions), or where the graph does not give the oracle's values.
    """
    program = bound.program
    if not program.lowers:
        raise refuse(
            program, "BLV0701", program.upper.span, "no `lower` in this model",
            target=target, what="a model of one level", hint="nl, pyomo and casadi hold it",
        )  # fmt: skip
    for level in program.levels:
        for variable in level.variables:
            if variable.domain.kind in (DomainKind.BINARY, DomainKind.INTEGERS):
                raise refuse(
                    program, "BLV0701", variable.span, "it has no derivatives",
                    target=target, what="whole numbers", hint="nl and pyomo hold them",
                )  # fmt: skip
    roots = [*level_roots(program.upper), *(r for low in program.lowers for r in level_roots(low))]
    priced = next((n for n in postorder(roots) if isinstance(n, DualRef)), None)
    if priced is not None:
        raise refuse(
            program, "BLV0701", priced.span, "no function of the variables alone",
            target=target, what="shadow prices", hint="pyomo and gams-mpec hold them",
        )  # fmt: skip
    for extern in program.externs.values():
        raise refuse(
            program, "BLV0701", extern.span, "its code is not part of the model",
            target=target, what=f"the extern function `{extern.name}`",
        )  # fmt: skip
    try:
        oracle = TorchOracle(_dense(bound, target))
        run = _functions(oracle)
        generator = torch.Generator().manual_seed(0)
        points = [_point(oracle, generator) for _ in range(3)]
        wanted = [_values(oracle, *p) for p in points]
    except BackendError as error:
        raise ExportError(f"{target} cannot hold this model: {error}") from error
    from torch.fx.experimental.proxy_tensor import make_fx

    # `real`: sizes are numbers, and nothing is guessed about them.
    module = make_fx(run, tracing_mode="real")(*points[0])
    for point, expected in zip(points[1:], wanted[1:], strict=True):
        _compare(module(*point), expected, target)
    return Traced(module, points[0], oracle)


def _dense(bound: BoundProgram, target: str) -> BoundProgram:
    """Sparse arrays in full: graphs have no sparse products."""
    arrays = dict(bound.data.arrays)
    for name, value in arrays.items():
        if is_sparse(value):
            if value.shape[0] * value.shape[1] > DENSE_LIMIT:
                raise refuse(
                    bound.program, "BLV0701", bound.program.params[name].span,
                    "it would have to be written in full", target=target,
                    what=f"a sparse array of {value.shape[0]} x {value.shape[1]}",
                )  # fmt: skip
            arrays[name] = np.asarray(value.toarray(), dtype=np.float64)
    return replace(bound, data=replace(bound.data, arrays=arrays))


def _functions(oracle: TorchOracle) -> Callable[..., tuple[Tensor, ...]]:
    upper, lower = oracle.upper, oracle.lower
    F, f = _function(oracle, oracle.F_expr), _function(oracle, oracle.f_expr)

    def split(layout: Layout, flat: Tensor) -> list[Tensor]:
        return [flat[p.start : p.stop].reshape(p.shape) for p in layout.pieces]

    def value_F(x: Tensor, y: Tensor) -> Tensor:
        made: Tensor = F(*split(upper, x), *split(lower, y))
        return made.reshape(())

    def value_f(x: Tensor, y: Tensor) -> Tensor:
        made: Tensor = f(*split(upper, x), *split(lower, y))
        return made.reshape(())

    def run(x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        # torch.func keeps its own levels of differentiation, which a trace can look through.
        by_F, at_F = torch.func.grad_and_value(value_F, argnums=(0, 1))(x, y)
        by_f, at_f = torch.func.grad_and_value(value_f, argnums=(0, 1))(x, y)

        def along(x: Tensor, y: Tensor) -> Tensor:
            slope: Tensor = torch.func.grad(value_f, argnums=1)(x, y)
            return (slope * v).sum()

        cross, hvp = torch.func.grad(along, argnums=(0, 1))(x, y)
        return at_F, at_f, *by_F, *by_f, hvp, cross

    return run


def _function(oracle: TorchOracle, expression: Expr) -> Callable[..., Tensor]:
    """An expression with its data in place; products with data go through torch alone."""
    compiled = oracle.compiled((expression,))
    graph = copy.deepcopy(compiled.module.graph)
    for node in graph.nodes:
        if node.target is data_product:
            node.target = _product
    module = fx.GraphModule(torch.nn.Module(), graph)
    values = oracle.tensors.resolve(compiled.slots, oracle.bound.program.externs)
    return partial(module.forward, *values)


def _product(matrix: Tensor, v: Tensor, transpose: bool) -> Tensor:
    return torch.mm(matrix.t() if transpose else matrix, v)


def _point(oracle: TorchOracle, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """A point of both domains near the start, and a direction."""

    def near(start: Tensor, domain: Any) -> Tensor:
        noise = 0.1 * torch.randn(start.shape, generator=generator, dtype=start.dtype)
        made: Tensor = domain.project(start + noise)
        return made.clone()

    x, y = near(oracle.x0, oracle.domain_x), near(oracle.y0, oracle.domain_y)
    return x, y, torch.randn(oracle.m, generator=generator, dtype=y.dtype)


def _values(oracle: TorchOracle, x: Tensor, y: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    value_F, Fx, Fy = oracle.value_grad_F(x, y)
    value_f, fy = oracle.value_grad_f(x, y)
    fx_ = oracle.grad_f_x(x, y)
    hvp, cross = oracle.pullback(x, y)(v)
    numbers = x.new_tensor(value_F), x.new_tensor(value_f)
    return (*numbers, Fx, Fy, fx_, fy, hvp, cross)


def difference(bound: BoundProgram, path: Path) -> float:
    """The largest relative difference between a file and the oracle, at a point of its own.

    Raises
    ------
    Missing
        Where the file is ONNX and no runtime is installed.
    """
    oracle = TorchOracle(bound)
    point = _point(oracle, torch.Generator().manual_seed(7))
    if path.suffix == ".onnx":
        need("onnxruntime")
        import onnxruntime

        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        feeds = {n: p.numpy() for n, p in zip(INPUTS, point, strict=True)}
        found = [torch.as_tensor(v) for v in session.run(list(OUTPUTS), feeds)]
    else:
        found = list(torch.export.load(path).module()(*point))
    worst = 0.0
    for a, b in zip(found, _values(oracle, *point), strict=True):
        if b.numel():
            worst = max(worst, float((a - b).abs().max() / (1 + b.abs().max())))
    return worst


def _compare(found: Any, expected: tuple[Tensor, ...], target: str) -> None:
    for name, a, b in zip(OUTPUTS, found, expected, strict=True):
        size = 1.0 + (float(b.abs().max()) if b.numel() else 0.0)
        if not torch.allclose(a, b, rtol=AGREEMENT, atol=AGREEMENT * size, equal_nan=True):
            raise ExportError(
                f"{target} cannot hold this model: the graph of `{name}` is right only at the "
                "point where it was traced"
            )
