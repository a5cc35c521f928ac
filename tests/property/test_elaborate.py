"""Elaborated expressions against a scalar interpreter that loops over every element.

The interpreter walks the syntax tree, knows no axes, einsums or gathers, and runs every
comprehension as a loop.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bilevelpy.diagnostics import Source
from bilevelpy.errors import DataError
from bilevelpy.ir.evaluate import evaluate
from bilevelpy.sema import check
from bilevelpy.sema.bind import bind
from bilevelpy.syntax import ast
from bilevelpy.syntax.parser import parse

HEAD = """
dim n, p;
set F = {"a", "b", "c"};
set E within F * F = {("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")};
param X[n, p], D[p, p], y[n], c[F], e[E], s;
def gap(A, b, v) = sumsq(A @ v - b);
def twice(x) = x + x;
upper { var w[p], q[F], g[E], t; minimize t + sum(w) + sum(q) + sum(g); }
"""
RNG = np.random.default_rng(0)
SIZES = {"n": 3, "p": 4, "F": 3, "E": 4}
LABELS = ["a", "b", "c"]
EDGES = [("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")]
SHAPES = {
    "X": "np", "D": "pp", "y": "n", "c": "F", "e": "E", "s": "",
    "w": "p", "q": "F", "g": "E", "t": "",
}  # fmt: skip
VALUES = {k: RNG.uniform(0.2, 1.5, [SIZES[a] for a in v]) for k, v in SHAPES.items()}
DATA = {k: VALUES[k] for k in "XDyces"}
ENV = {("upper", k): VALUES[k] for k in "wqgt"}
DATA_NAMES = "XDyces"


class Writer:
    """Writes random well-formed expressions; ``scope`` maps iterators in reach to their axes."""

    def __init__(self, rnd: random.Random) -> None:
        self.rnd = rnd
        self.count = 0

    def element(self, axis: str, scope: dict[str, str]) -> str:
        """A subscript for ``axis``."""
        found = [i for i, a in scope.items() if a == axis]
        if found and self.rnd.random() < 0.9:
            return self.rnd.choice(found)
        if axis == "E":
            pairs = [i for i, a in scope.items() if a == "E*"]
            if pairs:
                return self.rnd.choice(pairs)
            return '"{}", "{}"'.format(*self.rnd.choice(EDGES))
        if axis == "F":
            return f'"{self.rnd.choice(LABELS)}"'
        return str(self.rnd.randint(1, SIZES[axis]))

    def entry(self, scope: dict[str, str], names: str = "XDycewqgst") -> str:
        """An entry of a tensor, or a scalar."""
        name = self.rnd.choice(names)
        if not SHAPES[name]:
            return name
        return f"{name}[{', '.join(self.element(a, scope) for a in SHAPES[name])}]"

    def condition(self, scope: dict[str, str]) -> str:
        """A condition over data and iterators."""
        numeric = [i for i, a in scope.items() if a in "np"]
        labelled = [i for i, a in scope.items() if a == "F"]
        kind = self.rnd.random()
        if numeric and kind < 0.35:
            other = self.rnd.choice([*numeric, str(self.rnd.randint(1, 3))])
            text = f"{self.rnd.choice(numeric)} {self.rnd.choice(['<', '<=', '!=', '>='])} {other}"
        elif labelled and kind < 0.6:
            other = self.rnd.choice([*labelled, '"b"'])
            text = f"{self.rnd.choice(labelled)} {self.rnd.choice(['==', '!='])} {other}"
        else:
            operator = self.rnd.choice(["<", ">"])
            text = f"{self.entry(scope, DATA_NAMES)} {operator} {self.rnd.choice([0.6, 0.9, 1.1])}"
        roll = self.rnd.random()
        if roll < 0.15:
            return f"not {text}"
        if roll < 0.4:
            word = self.rnd.choice(["and", "or"])
            return f"({text} {word} {self.condition(scope)})"
        return text

    def binder(self) -> tuple[str, dict[str, str]]:
        self.count += 1
        i = f"i{self.count}"
        kind = self.rnd.choice("npFEP")
        if kind == "P":
            return f"({i}, k{i}) in E", {i: "F", f"k{i}": "F", f"{i}, k{i}": "E*"}
        return f"{i} in {kind}", {i: kind}

    def scalar(self, depth: int, scope: dict[str, str]) -> str:
        """An expression without axes."""
        if depth <= 0:
            return self.rnd.choice([self.entry(scope), self.entry(scope), "0.5", "2"])
        kind = self.rnd.random()
        if kind < 0.4:
            function = self.rnd.choice(
                ["sum", "sum", "sum", "mean", "max", "min", "sumsq", "norm1", "logsumexp", "prod"]
            )
            made = [self.binder() for _ in range(self.rnd.choice([1, 1, 2]))]
            inner = dict(scope)
            for _, names in made:
                inner |= names
            body = self.scalar(depth - 1, inner)
            where = ""
            # Without elements these reductions are infinite or undefined: no conditions for them.
            if function in ("sum", "sumsq", "norm1", "prod") and self.rnd.random() < 0.6:
                where = f" where {self.condition(inner)}"
            return f"{function}({body} for {', '.join(b for b, _ in made)}{where})"
        if kind < 0.6:
            a, b = self.scalar(depth - 1, scope), self.scalar(depth - 1, scope)
            return f"({a} {self.rnd.choice(['+', '-', '*', '/'])} {b})"
        if kind < 0.7:
            body = self.scalar(depth - 1, scope)
            return self.rnd.choice([f"({body})^2", f"tanh({body})", f"-{body}", f"twice({body})"])
        if kind < 0.78:
            a, b = self.scalar(depth - 1, scope), self.scalar(depth - 1, scope)
            return f"(if {self.condition(scope)} then {a} else {b})"
        axis = self.rnd.choice("np")
        v = self.vector(depth - 1, axis, scope)
        u = self.vector(depth - 1, axis, scope)
        choices = [f"sum({v})", f"dot({u}, {v})", f"({u})' @ ({v})", f"norm2({v})^2", f"mean({v})"]
        if axis == "p":
            choices += [f"quad({v}, D)", f"gap(X, y, {v})"]
        return self.rnd.choice(choices)

    def vector(self, depth: int, axis: str, scope: dict[str, str]) -> str:
        """An expression with one axis."""
        if depth <= 0:
            rows = {
                "n": ["y", f"X[:, {self.element('p', scope)}]"],
                "p": ["w", f"X[{self.element('n', scope)}, :]"],
            }
            return self.rnd.choice(rows[axis])
        kind = self.rnd.random()
        if kind < 0.35:
            a, b = self.vector(depth - 1, axis, scope), self.vector(depth - 1, axis, scope)
            return f"({a} {self.rnd.choice('+-*')} {b})"
        if kind < 0.5:
            return f"({self.scalar(depth - 1, scope)} * {self.vector(depth - 1, axis, scope)})"
        if kind < 0.8:
            other = self.vector(depth - 1, "n" if axis == "p" else "p", scope)
            return f"(X @ {other})" if axis == "n" else f"(X' @ {other})"
        return f"sin({self.vector(depth - 1, axis, scope)})"


# --- the interpreter ------------------------------------------------------------------------

FUNCTIONS: dict[str, Any] = {
    "sum": np.sum, "mean": np.mean, "prod": np.prod, "max": np.max, "min": np.min,
    "sumsq": lambda x: np.sum(np.square(x)), "norm1": lambda x: np.sum(np.abs(x)),
    "norm2": lambda x: np.sqrt(np.sum(np.square(x))),
    "logsumexp": lambda x: np.log(np.sum(np.exp(x))),
    "tanh": np.tanh, "sin": np.sin, "dot": lambda a, b: np.sum(a * b),
    "quad": lambda x, a: x @ a @ x,
    "gap": lambda a, b, v: np.sum((a @ v - b) ** 2), "twice": lambda x: 2 * x,
}  # fmt: skip
COMPARE: dict[str, Any] = {
    "<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b, "==": lambda a, b: a == b, "!=": lambda a, b: a != b,
}  # fmt: skip
ELEMENTS: dict[str, list[Any]] = {"n": [1, 2, 3], "p": [1, 2, 3, 4], "F": LABELS, "E": EDGES}


def loop(node: ast.Generators, names: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every assignment of the iterators that satisfies the condition."""
    sets = [ELEMENTS[b.set.name] for b in node.binders if isinstance(b.set, ast.Name)]
    for chosen in itertools.product(*sets):
        inner = dict(names)
        for binder, value in zip(node.binders, chosen, strict=True):
            parts = value if len(binder.names) > 1 else (value,)
            inner |= dict(zip(binder.names, parts, strict=True))
        if node.condition is None or run(node.condition, inner):
            yield inner


def position(item: ast.Expr | None, names: dict[str, Any]) -> Any:
    """A subscript as a position, or as a label that is looked up later."""
    if item is None:
        return slice(None)
    return item.value if isinstance(item, ast.String) else run(item, names)


def subscript(node: ast.Index, names: dict[str, Any]) -> Any:
    """The entry of a tensor."""
    assert isinstance(node.base, ast.Name)
    array, axes = VALUES[node.base.name], SHAPES[node.base.name]
    found = [position(s, names) for s in node.subscripts]
    if axes == "E" and len(found) == 2:
        found = [tuple(found)]
    return array[
        tuple(
            f if isinstance(f, slice) else ELEMENTS[a].index(f)
            for f, a in zip(found, axes, strict=True)
        )
    ]


def run(node: ast.Expr, names: dict[str, Any]) -> Any:
    """The value of an expression at one assignment of its iterators."""
    match node:
        case ast.Number():
            return node.value
        case ast.String():
            return node.value
        case ast.Name():
            return names[node.name] if node.name in names else VALUES[node.name]
        case ast.Sum():
            total = run(node.terms[0], names)
            for operator, term in zip(node.operators, node.terms[1:], strict=True):
                value = run(term, names)
                total = total + value if operator == "+" else total - value
            return total
        case ast.Product():
            total = run(node.factors[0], names)
            for operator, factor in zip(node.operators, node.factors[1:], strict=True):
                value = run(factor, names)
                total = (
                    total * value
                    if operator == "*"
                    else total / value
                    if operator == "/"
                    else total @ value
                )
            return total
        case ast.Negate():
            return -run(node.operand, names)
        case ast.Power():
            return run(node.base, names) ** run(node.exponent, names)
        case ast.Transpose():
            return np.transpose(run(node.operand, names))
        case ast.Index():
            return subscript(node, names)
        case ast.Call():
            return FUNCTIONS[node.function](*(run(a, names) for a in node.arguments))
        case ast.Comprehension():
            values = [run(node.body, inner) for inner in loop(node.generators, names)]
            return FUNCTIONS[node.function](np.array(values, dtype=float))
        case ast.IfElse():
            return run(node.then if run(node.condition, names) else node.otherwise, names)
        case ast.Compare():
            values = [run(o, names) for o in node.operands]
            pairs = zip(node.operators, values, values[1:], strict=False)
            return all(COMPARE[o](a, b) for o, a, b in pairs)
        case ast.Boolean():
            results = [run(o, names) for o in node.operands]
            return all(results) if node.operator == "and" else any(results)
        case ast.Not():
            return not run(node.operand, names)
        case _:
            raise AssertionError(node)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 10**9))
def test_elaboration_agrees_with_loops(seed: int) -> None:
    rnd = random.Random(seed)
    texts = [Writer(rnd).scalar(rnd.choice([1, 2, 3]), {}) for _ in range(4)]
    source = HEAD + "".join(f"report r{k} = {t};\n" for k, t in enumerate(texts))
    checked = check(Source("<text>", source))
    assert checked.diagnostics == [], source
    assert checked.program is not None
    try:
        bound = bind(checked.program, DATA)
    except DataError as error:
        # A quotient by the size of a set that a condition left empty.
        if any(d.code != "BLV0420" for d in error.diagnostics):
            raise
        return
    items = {
        i.name: i.value
        for i in parse(Source("<text>", source)).file.items
        if isinstance(i, ast.ReportDecl)
    }
    for k, text in enumerate(texts):
        with np.errstate(all="ignore"):
            expected = run(items[f"r{k}"], {})
            found = evaluate(checked.program.reports[f"r{k}"].value, bound.data, ENV)
        if np.isfinite(expected):
            np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9, err_msg=text)
