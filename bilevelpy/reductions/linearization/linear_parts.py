"""Parts of the leader's functions made linear by the followers' optimality conditions.

An objective of higher degree, ``sum_i (a_i - b_i w'(X_i + d_i))^2`` with responses ``d_i``, has
sums of products inside of it that those conditions make linear (``linear_objective``):
``w'd_i`` is what follower i minimises. With linear terms in their place such objectives are convex,
and so are rows of the leader: hinge losses, or a least revenue from tolls.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import scipy.sparse as sp

from bilevelpy.reductions import scalar as sc
from bilevelpy.reductions.linearization.linear_objective import (
    identities,
    linear_terms_of,
    price_terms,
)
from bilevelpy.reductions.monomials import Terms, functions_of
from bilevelpy.reductions.rows import Functions
from bilevelpy.reductions.trees import tree_of
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from collections.abc import Callable

    from bilevelpy.reductions.columns import Columns
    from bilevelpy.reductions.optimality.conditions import KKT

# Parts beyond which making them takes longer than it is worth, and terms of one.
PARTS, TERMS = 2000, 2000


def linear_parts(program: KKT) -> KKT:
    """The same program with an objective of higher degree, and rows of the leader, that agree with
    the given ones at every point that satisfies rows and pairs, and in which sums of products are
    linear where they can be; of degree one or two where that is what is left. The program itself
    where there is no such part.
    """
    prices = price_terms(program)
    objective, rows = program.objective, program.rows
    if objective.degree == 3:
        tree = _linear_in(program, tree_of(objective, 0), prices)
        objective = objective if tree is None else _functions([tree], program.columns)
    chosen, trees = [], []
    for r, kind in enumerate(program.kinds):
        if kind == "upper" and (r in rows.functions.quadratic or r in rows.functions.trees):
            tree = _linear_in(program, tree_of(rows.functions, r), prices)
            if tree is not None:
                chosen.append(r)
                trees.append(tree)
    if chosen:
        made = _functions(trees, program.columns)
        rows = replace(rows, functions=_exchanged(rows.functions, chosen, made))
    if objective is program.objective and not chosen:
        return program
    return replace(program, objective=objective, rows=rows)


def _linear_in(program: KKT, tree: sc.Scalar, prices: Callable[[Terms], Terms]) -> sc.Scalar | None:
    """The tree with linear sums in place of products; None where there are none."""
    known = _polynomials(tree)
    parts = _largest(tree, known)
    if len(parts) > PARTS:
        return None
    made: dict[int, sc.Scalar] = {}
    for node in parts:
        check()
        terms = prices(known[id(node)] or {})
        found = list(identities(program, {j for key in terms if len(key) == 2 for j in key}))
        linear = linear_terms_of(terms, found) if found else None
        if linear is not None:
            made[id(node)] = _tree(linear)
    return _replaced(tree, made) if made else None


def _polynomials(root: sc.Scalar) -> dict[int, Terms | None]:
    """Every node (by identity) as terms up to degree two; None where it is none."""
    found: dict[int, Terms | None] = {}
    for node in sc.postorder(root):
        found[id(node)] = _polynomial(node, found)
    return found


def _polynomial(node: sc.Scalar, known: dict[int, Terms | None]) -> Terms | None:
    if isinstance(node, sc.Num):
        return {(): node.value} if node.value else {}
    if isinstance(node, sc.Col):
        return {(node.index,): 1.0}
    parts = [known[id(a)] for a in node.arguments]
    if any(p is None for p in parts):
        return None
    given = [p for p in parts if p is not None]
    if node.function == "add":
        total: Terms = {}
        for part in given:
            for key, c in part.items():
                total[key] = total.get(key, 0.0) + c
        return total if len(total) <= TERMS else None
    if node.function == "mul":
        product: Terms | None = {(): 1.0}
        for part in given:
            product = None if product is None else _times(product, part)
        return product
    squared = isinstance(node.arguments[-1], sc.Num) and node.arguments[-1].value == 2.0
    return _times(given[0], given[0]) if node.function == "pow" and squared else None


def _times(a: Terms, b: Terms) -> Terms | None:
    """The product; None where it is of a higher degree, or long."""
    degree = max(map(len, a), default=0) + max(map(len, b), default=0)
    if degree > 2 or len(a) * len(b) > TERMS:
        return None
    found: Terms = {}
    for i, c in a.items():
        for j, d in b.items():
            key = tuple(sorted((*i, *j)))
            found[key] = found.get(key, 0.0) + c * d
    return found


def _largest(root: sc.Scalar, known: dict[int, Terms | None]) -> list[sc.Scalar]:
    """The nodes of degree two that lie in none of degree two."""
    found: list[sc.Scalar] = []
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        terms = known[id(node)]
        if terms is None and isinstance(node, sc.Call):
            stack += node.arguments
        elif terms is not None and any(len(key) == 2 and c for key, c in terms.items()):
            found.append(node)
    return found


def _tree(terms: Terms) -> sc.Scalar:
    return sc.add(*(sc.mul(sc.Num(c), *(sc.Col(j) for j in key)) for key, c in terms.items() if c))


def _replaced(root: sc.Scalar, made: dict[int, sc.Scalar]) -> sc.Scalar:
    """The tree with other nodes in place of some (by identity)."""
    done: dict[int, sc.Scalar] = {}
    for node in sc.postorder(root):
        if id(node) in made:
            done[id(node)] = made[id(node)]
        elif isinstance(node, sc.Call):
            arguments = tuple(done[id(a)] for a in node.arguments)
            same = all(a is b for a, b in zip(arguments, node.arguments, strict=True))
            done[id(node)] = node if same else sc.Call(node.function, arguments)
        else:
            done[id(node)] = node
    return done[id(root)]


def _functions(trees: list[sc.Scalar], columns: Columns) -> Functions:
    """The trees as functions, of degree two where they are."""
    terms = [_polynomials(tree)[id(tree)] for tree in trees]
    others = {r: tree for r, tree in enumerate(trees) if terms[r] is None}
    return replace(functions_of([t or {} for t in terms], columns.count), trees=others)


def _exchanged(functions: Functions, chosen: list[int], made: Functions) -> Functions:
    """The functions with those ``made`` in place of the ``chosen`` ones."""
    count, place = functions.constant.size, dict(enumerate(chosen))
    kept = np.ones(count)
    kept[chosen] = 0.0
    new = (np.ones(len(chosen)), (chosen, np.arange(len(chosen))))
    spread = sp.csr_array(new, shape=(count, len(chosen)))
    linear = sp.csr_array(sp.diags_array(kept) @ functions.linear + spread @ made.linear)
    linear.eliminate_zeros()
    quadratic = {r: q for r, q in functions.quadratic.items() if kept[r]}
    trees = {r: t for r, t in functions.trees.items() if kept[r]}
    return Functions(
        functions.constant * kept + spread @ made.constant,
        linear,
        quadratic | {place[r]: q for r, q in made.quadratic.items()},
        trees | {place[r]: t for r, t in made.trees.items()},
    )
