"""Expressions of AMPL as text of this language, and as numbers."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import lark

from bilevelpy.importers import blv_text as blv
from bilevelpy.importers.ampl_file import Range, line_of
from bilevelpy.reductions import scalar

if TYPE_CHECKING:
    from bilevelpy.importers.ampl_declared import File, Row, Variable

Tree = lark.Tree[Any]
# What our expressions know, and what AMPL has of it.
FUNCTIONS: dict[str, Callable[..., float]] = {
    **{name: f for name, f in scalar.FUNCTIONS.items() if name != "sign"},
    "max": max,
    "min": min,
}
INFIX: dict[str, tuple[str, int, Callable[[float, float], float]]] = {
    "add": (" + ", 1, operator.add),
    "sub": (" - ", 1, operator.sub),
    "mul": ("*", 2, operator.mul),
    "div": ("/", 2, operator.truediv),
    "pow": ("^", 4, math.pow),
}
NEGATION, ATOM = 3, 5
TOO_DEEP = "an expression is nested too deeply"
LIMIT = 100_000
"""Elements of a set at most: the libraries have dozens."""


def used(tree: Any) -> set[str]:
    """Names that a tree reads."""
    if not isinstance(tree, lark.Tree):
        return set()
    found = {str(t.children[0]) for t in tree.iter_subtrees() if t.data in ("name", "entry")}
    for t in tree.iter_subtrees():
        if t.data == "total" and len(t.children[0].children) == 2:
            found.discard(str(t.children[0].children[0]))
    return found


def value(found: File, tree: Tree, line: int) -> float:
    """The number that a tree without variables stands for."""
    try:
        return _value(found, tree, line)
    except RecursionError:
        raise found.text.bad(line, TOO_DEEP) from None


def _spine(tree: Tree) -> list[Tree]:
    """A binary operation, the one that is its left side, and so on: long sums are deep there."""
    found = [tree]
    while found[-1].children[0].data in INFIX:
        found.append(found[-1].children[0])
    return found


def _value(found: File, tree: Tree, line: int) -> float:
    kind = str(tree.data)
    try:
        match kind:
            case "number":
                return float(str(tree.children[0]))
            case "minus" | "neg":
                inner = tree.children[0]
                return -(_value(found, inner, line) if kind == "neg" else float(str(inner)))
            case "name" if str(tree.children[0]) in found.params:
                return found.params[str(tree.children[0])]
            case "entry" if str(tree.children[0]) in found.tables:
                at = _value(found, tree.children[1], line)
                return found.tables[str(tree.children[0])][1][int(at)]
            case "call" if str(tree.children[0]) in FUNCTIONS:
                arguments = [_value(found, a, line) for a in tree.children[1:]]
                return FUNCTIONS[str(tree.children[0])](*arguments)
            case _ if kind in INFIX:
                spine = _spine(tree)
                number = _value(found, spine[-1].children[0], line)
                for node in reversed(spine):
                    right = _value(found, node.children[1], line)
                    number = INFIX[str(node.data)][2](number, right)
                return number
    except (ValueError, ZeroDivisionError, OverflowError, KeyError, TypeError) as error:
        raise found.text.bad(line, f"this has no value ({error})") from None
    raise found.text.bad(line, "a number is wanted here")


def index_of(found: File, tree: Tree) -> tuple[Range, str | None]:
    """The members of ``{i in I}`` and the name of the index."""
    binder = str(tree.children[0]) if len(tree.children) == 2 else None
    return range_of(found, tree.children[-1], line_of(tree)), binder


def range_of(found: File, tree: Any, line: int) -> Range:
    """The members of a set that is named, a range, or a list."""
    if isinstance(tree, lark.Token):
        if str(tree) not in found.sets:
            raise found.text.bad(line, f"there is no set `{tree}`")
        return found.sets[str(tree)]
    if tree.data == "braced":
        return range_of(found, tree.children[0], line)
    if tree.data == "listed":
        members = [_whole(found, number_of(n), line) for n in tree.children]
        return Range(tuple(members))
    ends = [_whole(found, value(found, e, line), line) for e in tree.children]
    if ends[1] - ends[0] >= LIMIT:
        raise found.text.bad(line, f"a set of more than {LIMIT} elements")
    return Range(tuple(range(ends[0], ends[1] + 1)))


def number_of(tree: Tree) -> float:
    """A number with its sign."""
    sign = -1.0 if tree.data == "minus" else 1.0
    return sign * float(str(tree.children[0]))


def _whole(found: File, number: float, line: int) -> int:
    if number != int(number):
        raise found.text.bad(line, f"{number:g} is no whole number")
    return int(number)


class Names:
    """The names of a model, and what has to be declared before its levels."""

    def __init__(self, found: File, renamed: dict[str, str]) -> None:
        self.found = found
        self.renamed = renamed
        self.declared: list[str] = []
        self._sets: dict[Range, str] = {}
        self._params: set[str] = set()

    def axis(self, members: Range) -> str:
        """``[3]``, or a set where it does not count from 1."""
        if members.from_one:
            return str(len(members.members))
        if members not in self._sets:
            taken = {*self.renamed.values(), *self._sets.values()}
            name = next(iter(blv.names(["INDEX"], taken).values()))
            low, high = members.members[0], members.members[-1]
            if members.members != tuple(range(low, high + 1)):
                raise self.found.text.bad(1, "a set of numbers with gaps cannot be taken over")
            self._sets[members] = name
            self.declared.append(f"set {name} = {low}..{high};")
        return self._sets[members]

    def declare(self, name: str) -> None:
        """Declare a param."""
        if name in self._params:
            return
        self._params.add(name)
        shown = self.renamed[name]
        if name in self.found.params:
            number = self.found.params[name]
            if math.isnan(number):
                raise self.found.text.bad(1, f"param `{name}` has no value")
            self.declared.append(f"param {shown} = {blv.number(number)};")
            return
        members, values = self.found.tables[name]
        numbers = ", ".join(blv.number(values[m]) for m in members.members)
        self.declared.append(f"param {shown}[{self.axis(members)}] = [{numbers}];")

    def variable(self, variable: Variable) -> str:
        """A declaration with its domain."""
        low, high, start = "-inf", "inf", ""
        integer = False
        for attribute in variable.attributes:
            kind = str(attribute.data)
            if kind == "integer":
                integer = True
            elif kind == "binary":
                integer, low, high = True, "0", "1"
            elif kind == "at_least":
                low = self._bound(attribute.children[0], variable)
            elif kind == "at_most":
                high = self._bound(attribute.children[0], variable)
            else:
                number = value(self.found, attribute.children[0], variable.line)
                start = f" start {blv.number(number)}"
        name = self.renamed[variable.name]
        if variable.members is not None:
            name += f"[{self.axis(variable.members)}]"
        if integer:
            binary = (low, high) == ("0", "1")
            return name + (" in binary" if binary else f" in integers({low}, {high})") + start
        domain = "" if (low, high) == ("-inf", "inf") else f" in [{low}, {high}]"
        return name + domain + start

    def _bound(self, tree: Tree, variable: Variable) -> str:
        """A bound: a number, or the table whose entries it takes one after another."""
        if tree.data == "entry" and str(tree.children[0]) in self.found.tables:
            name = str(tree.children[0])
            members, values = self.found.tables[name]
            if variable.members is None or not isinstance(tree.children[1], lark.Tree):
                raise self.found.text.bad(variable.line, f"`{name}` has an index")
            if members != variable.members:
                raise self.found.text.bad(variable.line, f"`{name}` has another index set")
            if len({values[m] for m in members.members}) == 1:
                return blv.number(values[members.members[0]])
            self.declare(name)
            return self.renamed[name]
        return blv.number(value(self.found, tree, variable.line))

    def row(self, row: Row, name: str) -> str:
        """A constraint."""
        body = show(self, row.terms[0], row.line, row.binder)
        for relation, term in zip(row.relations, row.terms[1:], strict=True):
            sign = "==" if relation in ("=", "==") else relation
            body += f" {sign} {show(self, term, row.line, row.binder)}"
        head = name
        if row.binder is not None:
            head += f"[{row.binder[0]} in {self.span(row.binder[1])}]"
        return f"{head}: {body};"

    def span(self, members: Range) -> str:
        """What an index runs over."""
        return f"1..{len(members.members)}" if members.from_one else self.axis(members)


def show(names: Names, tree: Tree, line: int, binder: tuple[str, Range] | None = None) -> str:
    """A tree as text."""
    try:
        return _show(names, tree, line, {binder[0]} if binder else set())[0]
    except RecursionError:
        raise names.found.text.bad(line, TOO_DEEP) from None


def _show(names: Names, tree: Tree, line: int, bound: set[str]) -> tuple[str, int]:
    """Text and how tightly it binds."""
    kind = str(tree.data)
    found = names.found
    known = found.variables.keys() | found.params.keys() | found.tables.keys()
    if kind == "number":
        if math.isinf(float(str(tree.children[0]))):
            raise found.text.bad(line, f"{tree.children[0]} is beyond 1.8e308")
        return str(tree.children[0]), ATOM
    if kind == "neg":
        inner, strength = _show(names, tree.children[0], line, bound)
        return f"-{inner if strength > NEGATION else f'({inner})'}", 1
    if kind in ("name", "entry"):
        word = str(tree.children[0])
        if kind == "name" and word in bound:
            return word, ATOM
        if word not in known:
            raise found.text.bad(line, f"`{word}` is not declared")
        if kind == "name":
            return names.renamed[word], ATOM
        at = _show(names, tree.children[1], line, bound)[0]
        return f"{names.renamed[word]}[{at}]", ATOM
    if kind == "call":
        word = str(tree.children[0])
        if word not in FUNCTIONS:
            raise found.text.foreign(line, f"the function `{word}`", "not known here")
        arguments = ", ".join(_show(names, a, line, bound)[0] for a in tree.children[1:])
        return f"{word}({arguments})", ATOM
    if kind == "total":
        members, binder = index_of(found, tree.children[0])
        if binder is None:
            raise found.text.bad(line, "a sum needs a name for its index")
        inner = _show(names, tree.children[1], line, bound | {binder})[0]
        return f"sum({inner} for {binder} in {names.span(members)})", ATOM
    if kind in INFIX:
        spine = _spine(tree)
        shown = _show(names, spine[-1].children[0], line, bound)
        for node in reversed(spine):
            shown = _joined(node, shown, _show(names, node.children[1], line, bound))
        return shown
    raise found.text.bad(line, "this is no expression")


def _joined(tree: Tree, left: tuple[str, int], right: tuple[str, int]) -> tuple[str, int]:
    """A binary operation from its two sides."""
    kind = str(tree.data)
    sign, strength, _ = INFIX[kind]
    if kind in ("mul", "div") and tree.children[0].data == "neg":
        # -2*x is the same whichever way it is read, but not behind another sign.
        left, strength = (left[0], ATOM), 1
    # Powers bind to the right, everything else to the left.
    first = left[1] > strength if kind == "pow" else left[1] >= strength
    second = right[1] > INFIX[kind][1] if kind != "pow" else right[1] >= ATOM
    texts = [left[0] if first else f"({left[0]})", right[0] if second else f"({right[0]})"]
    return f"{texts[0]}{sign}{texts[1]}", strength
