"""A bound program as JSON and back, without loss: the published exchange form of the IR.

The document holds ``objects``, a list of axes and nodes in an order where everything stands after
what it refers to (by its position in the list), the declarations, the levels, and the data.
``digest`` names the structure and the data: it is equal for equal models in every process, and does
not see comments, layout, spans or documentation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from bilevelpy.diagnostics import Span
from bilevelpy.ir import expr as ir
from bilevelpy.ir.program import (
    Assumption,
    BoundProgram,
    Constraint,
    Expect,
    Extern,
    Level,
    Param,
    Program,
    Read,
    Table,
    Variable,
)
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import Axes, Axis, Domain
from bilevelpy.ir.walk import postorder
from bilevelpy.system.storage import dumps, plain

FORMAT = "bilevelpy-ir"
VERSION = 1

# Attributes of a node besides its axes and operands, by the name of its class.
ATTRIBUTES: dict[type[ir.Expr], tuple[str, ...]] = {
    ir.Const: ("value",),
    ir.Array: ("values",),
    ir.Fill: ("value",),
    ir.Eye: (),
    ir.ParamRef: ("name",),
    ir.VarRef: ("level", "name"),
    ir.DualRef: ("level", "constraint"),
    ir.Size: ("axis",),
    ir.Position: ("axis",),
    ir.Coordinate: ("axis",),
    ir.Component: ("axis", "part"),
    ir.LabelPosition: ("axis", "label"),
    ir.Locate: ("axis", "by_number"),
    ir.Apply: ("function",),
    ir.Einsum: ("subscripts", "output"),
    ir.Align: ("source",),
    ir.Reduce: ("function", "dims"),
    ir.MapLast: ("function",),
    ir.Matrix: ("function",),
    ir.Gather: ("index",),
    ir.ScatterSum: (),
    ir.Concat: (),
    ir.Diag: (),
    ir.ExternCall: ("name",),
}


def encode(bound: BoundProgram, *, source: bool = True) -> dict[str, Any]:
    """The document. Arrays are NumPy arrays still (SciPy matrices as their three arrays).

    ``source`` keeps the texts of the model and the spans, so that messages can show places.
    """
    writer = _Writer(source)
    program, data = bound.program, bound.data
    body = writer.program(program)
    known = list(data.sizes)
    numbers = [writer.axis(a) for a in known]
    found: dict[str, Any] = {
        "sizes": [[n, data.sizes[a]] for n, a in zip(numbers, known, strict=True)],
        "labels": [[writer.axis(a), _labels(v)] for a, v in data.labels.items()],
        "members": [[writer.axis(a), np.asarray(v)] for a, v in data.members.items()],
        "arrays": {name: _array(value) for name, value in data.arrays.items()},
        "origins": dict(data.origins) if source else {},
    }
    return {"objects": writer.objects, "program": body, "data": found}


def document(bound: BoundProgram) -> dict[str, Any]:
    """The document with its format, version and digest."""
    return {"format": FORMAT, "version": VERSION, "digest": digest(bound), **encode(bound)}


def digest(bound: BoundProgram) -> str:
    """The name of a program and its data: equal for equal models.

    Arrays count by their bytes (numbers of eight bytes, lowest first), everything else by its JSON
    text: writing millions of numbers as text would take minutes.
    """
    text = dumps(as_json(encode(bound, source=False), _fingerprint))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _fingerprint(array: np.ndarray[Any, Any]) -> str:
    whole = array.dtype.kind in "iub"
    values = np.ascontiguousarray(array, dtype="<i8" if whole else "<f8")
    if not whole and np.isnan(values).any():
        # There are many bit patterns of NaN, and they mean the same.
        values = np.where(np.isnan(values), np.nan, values)
    kind = f"{'int' if whole else 'float'}{list(array.shape)}:"
    return kind + hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()


def _labels(values: tuple[Any, ...]) -> list[Any]:
    return [list(v) if isinstance(v, tuple) else v for v in values]


def _array(value: Any) -> dict[str, Any]:
    if is_sparse(value):
        csr = value.tocsr()
        return {
            "shape": list(csr.shape),
            "data": np.asarray(csr.data),
            "indices": np.asarray(csr.indices),
            "indptr": np.asarray(csr.indptr),
        }
    array = np.asarray(value, dtype=np.float64)
    return {"shape": list(array.shape), "values": array.reshape(-1)}


class _Writer:
    """Gives axes and nodes their numbers."""

    def __init__(self, source: bool) -> None:
        self.source = source
        self.objects: list[dict[str, Any]] = []
        self._numbers: dict[Axis | ir.Expr, int] = {}

    def span(self, span: Span | None) -> list[Any] | None:
        return [span.file, span.start, span.end] if span is not None and self.source else None

    def doc(self, doc: str | None) -> str | None:
        return doc if self.source else None

    def axis(self, axis: Axis) -> int:
        if axis in self._numbers:
            return self._numbers[axis]
        entry = {
            "axis": axis.name,
            "kind": str(axis.kind),
            "span": self.span(axis.span),
            "size": self.optional(axis.size),
            "low": self.optional(axis.low),
            "high": self.optional(axis.high),
            "labels": None if axis.labels is None else _labels(axis.labels),
            "parents": [self.axis(p) for p in axis.parents],
            "condition": self.optional(axis.condition),
            "operation": axis.operation,
            "operands": [self.axis(o) for o in axis.operands],
            "doc": self.doc(axis.doc),
        }
        return self._add(axis, entry)

    def axes(self, axes: Axes) -> list[int]:
        return [self.axis(a) for a in axes]

    def optional(self, node: ir.Expr | None) -> int | None:
        return None if node is None else self.expr(node)

    def expr(self, root: ir.Expr) -> int:
        for node in postorder(root):
            if node in self._numbers:
                continue
            entry: dict[str, Any] = {
                "node": type(node).__name__,
                "axes": self.axes(node.axes),
                "operands": [self._numbers[c] for c in node.children],
            }
            for name in ATTRIBUTES[type(node)]:
                entry[name] = self._attribute(getattr(node, name))
            if self.source:
                entry["span"] = self.span(node.span)
            self._add(node, entry)
        return self._numbers[root]

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, Axis):
            return self.axis(value)
        if isinstance(value, ir.Expr):
            return self._numbers[value]
        if isinstance(value, tuple):
            return [self._attribute(v) for v in value]
        return value

    def _add(self, thing: Axis | ir.Expr, entry: dict[str, Any]) -> int:
        self.objects.append(entry)
        self._numbers[thing] = len(self.objects) - 1
        return self._numbers[thing]

    def domain(self, domain: Domain) -> dict[str, Any]:
        return {
            "kind": str(domain.kind),
            "lower": self.optional(domain.lower),
            "upper": self.optional(domain.upper),
            "radius": self.optional(domain.radius),
            "span": self.span(domain.span),
        }

    def default(self, value: ir.Expr | Read | Table | None) -> dict[str, Any] | None:
        if value is None:
            return None
        if isinstance(value, Read):
            return {
                "read": [value.format, value.path, value.key],
                "folder": value.folder if self.source else None,
                "span": self.span(value.span),
            }
        if isinstance(value, Table):
            rows = [[list(k) if isinstance(k, tuple) else k, v] for k, v in value.values.items()]
            return {"table": rows, "span": self.span(value.span)}
        return {"expr": self.expr(value)}

    def program(self, program: Program) -> dict[str, Any]:
        return {
            "name": program.name,
            "title": program.title if self.source else None,
            "stance": str(program.stance),
            "axes": {name: self.axis(a) for name, a in program.axes.items()},
            "params": [self.param(p) for p in program.params.values()],
            "externs": [self.extern(e) for e in program.externs.values()],
            "levels": [self.level(level) for level in program.levels],
            "reports": [
                [r.name, self.expr(r.value), self.span(r.span), self.doc(r.doc)]
                for r in program.reports.values()
            ],
            "expects": [self.expect(e) for e in program.expects],
            "sources": {n: s.text for n, s in program.sources.items()} if self.source else {},
        }

    def param(self, param: Param) -> dict[str, Any]:
        return {
            "name": param.name,
            "axes": self.axes(param.axes),
            "domain": self.domain(param.domain),
            "default": self.default(param.default),
            "span": self.span(param.span),
            "doc": self.doc(param.doc),
        }

    def extern(self, extern: Extern) -> dict[str, Any]:
        return {
            "name": extern.name,
            "arguments": [[a.name, self.axes(a.axes)] for a in extern.arguments],
            "result": self.axes(extern.result),
            "properties": [[name, list(args)] for name, args in extern.properties],
            "span": self.span(extern.span),
            "doc": self.doc(extern.doc),
        }

    def expect(self, expect: Expect) -> dict[str, Any]:
        level = isinstance(expect.value, str)
        return {
            "level": expect.value if level else None,
            "value": None if isinstance(expect.value, str) else self.expr(expect.value),
            "expected": expect.expected,
            "tolerance": expect.tolerance,
            "text": expect.text if self.source else "",
            "span": self.span(expect.span),
        }

    def level(self, level: Level) -> dict[str, Any]:
        return {
            "name": level.name,
            "family": self.axes(level.family),
            "variables": [self.variable(v) for v in level.variables],
            "sense": str(level.sense),
            "objective": self.expr(level.objective),
            "constraints": [self.constraint(c) for c in level.constraints],
            "assumptions": [self.assumption(a) for a in level.assumptions],
            "nash": level.nash,
            "span": self.span(level.span),
            "doc": self.doc(level.doc),
        }

    def variable(self, variable: Variable) -> dict[str, Any]:
        return {
            "name": variable.name,
            "axes": self.axes(variable.axes),
            "domain": self.domain(variable.domain),
            "start": self.optional(variable.start),
            "span": self.span(variable.span),
            "doc": self.doc(variable.doc),
        }

    def constraint(self, constraint: Constraint) -> dict[str, Any]:
        return {
            "name": constraint.name,
            "axes": self.axes(constraint.axes),
            "terms": [self.expr(t) for t in constraint.terms],
            "relations": [str(r) for r in constraint.relations],
            "span": self.span(constraint.span),
            "doc": self.doc(constraint.doc),
        }

    def assumption(self, fact: Assumption) -> dict[str, Any]:
        return {
            "name": fact.name,
            "arguments": [self.expr(a) for a in fact.arguments],
            "constraint": fact.constraint,
            "span": self.span(fact.span),
        }


def as_json(
    value: Mapping[str, Any], keep: Callable[[np.ndarray[Any, Any]], Any] | None = None
) -> Any:
    """The document with arrays as lists, or as what ``keep`` returns for them (None: a list)."""

    def visit(item: Any) -> Any:
        if isinstance(item, np.ndarray):
            kept = keep(item) if keep is not None else None
            return plain(item) if kept is None else kept
        if isinstance(item, Mapping):
            return {str(k): visit(v) for k, v in item.items()}
        if isinstance(item, (list, tuple)):
            return [visit(v) for v in item]
        return plain(item)

    return visit(value)
