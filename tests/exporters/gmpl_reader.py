"""A second reader of GMPL: its grammar in the package gmpl-tex, and linear functions from the tree.

What is read is solved by HiGHS, so that nothing of GLPK has a part in it.
"""

import sys

import numpy as np
import pytest
from scipy.optimize import Bounds, LinearConstraint, milp

from bilevelpy.exporters import consumers


def parser():
    """The function that makes a tree of a text."""
    place = consumers.beside("gmpl")
    if place is None:
        pytest.skip(f"needs gmpl-tex (tests/exporters/setup_consumers.sh; {consumers.FOLDER})")
    sys.path.insert(0, str(place))
    try:
        from gmpltex.Core import parse
    finally:
        sys.path.remove(str(place))
    return parse


def affine(tree):
    """The coefficients of an expression; that of "" is its constant."""
    kind, parts = str(tree.data), tree.children
    if kind == "number":
        return {"": float(parts[0])}
    if kind == "name":
        return {str(parts[0]): 1.0}
    if kind in ("paren_expr", "expression_list"):
        return affine(parts[0])
    if kind == "mul":
        first, second = affine(parts[0]), affine(parts[-1])
        scale, other = (first, second) if set(first) <= {""} else (second, first)
        assert set(scale) <= {""}, "a product of variables"
        return {name: scale.get("", 0.0) * c for name, c in other.items()}
    if kind == "expression_2":
        return {name: (-c if parts[0] == "-" else c) for name, c in affine(parts[1]).items()}
    assert kind == "expression_4", kind
    found = dict(affine(parts[0]))
    for name, c in affine(parts[2]).items():
        found[name] = found.get(name, 0.0) + (-c if parts[1] == "-" else c)
    return found


def optimum(text, parse):
    """The optimum of a model, and the values of its variables."""
    names, low, high, whole, rows, objective = [], [], [], [], [], None
    for statement in parse(text).children:
        inner = statement.children[0] if statement.children else None
        kind = str(getattr(inner, "data", ""))
        if kind == "variable_statement":
            names.append(str(inner.children[0]))
            ends, integer = [-np.inf, np.inf], False
            for part in inner.children[3:]:
                attribute = str(part.data)
                integer = integer or attribute == "num_attr"
                if attribute in ("var_greater_than", "var_less_than", "var_eq"):
                    value = affine(part.children[-1])[""]
                    ends[0] = ends[0] if attribute == "var_less_than" else value
                    ends[1] = ends[1] if attribute == "var_greater_than" else value
            low, high, whole = [*low, ends[0]], [*high, ends[1]], [*whole, integer]
        elif kind == "objective_statement":
            assert str(inner.children[0].data) == "minimize"
            objective = affine(inner.children[-1])
        elif kind == "constraint_statement":
            rows.append(_row(inner.children[-1].children))
    place = {name: j for j, name in enumerate(names)}
    matrix = np.zeros((len(rows), len(names)))
    ends = np.zeros((2, len(rows)))
    for r, (body, least, most) in enumerate(rows):
        for name, c in body.items():
            if name:
                matrix[r, place[name]] += c
        ends[:, r] = least - body.get("", 0.0), most - body.get("", 0.0)
    cost = np.array([objective.get(name, 0.0) for name in names])
    answer = milp(
        cost, constraints=LinearConstraint(matrix, *ends) if rows else None,
        integrality=np.array(whole, dtype=int), bounds=Bounds(np.array(low), np.array(high)),
    )  # fmt: skip
    assert answer.success, answer.message
    return answer.fun + objective.get("", 0.0), dict(zip(names, answer.x, strict=True))


def _row(parts):
    terms, signs = [affine(p) for p in parts[::2]], [str(p) for p in parts[1::2]]
    if len(terms) == 3:
        assert signs == ["<=", "<="]
        return terms[1], terms[0][""], terms[2][""]
    end = terms[1][""]
    return terms[0], -np.inf if signs[0] == "<=" else end, np.inf if signs[0] == ">=" else end
