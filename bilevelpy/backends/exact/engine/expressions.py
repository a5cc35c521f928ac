"""SCIP as a module, and functions in its expressions."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any

from bilevelpy.backends.exact.engine.size import check_size
from bilevelpy.errors import BackendError, MissingEngine
from bilevelpy.reductions import scalar as sc

# SCIP reads numbers from here on as infinite.
INFINITE = 1e20


def engine() -> Any:
    """The module ``pyscipopt``.

    Raises
    ------
    MissingEngine
        Where it is not installed; the message names the extra.
    """
    try:
        import pyscipopt
    except ImportError as error:
        raise MissingEngine(
            "the backend `exact` needs SCIP: `pip install pyscipopt`, or install the extra "
            "`exact` from a checkout (`pip install -e '.[exact]'`)"
        ) from error
    return pyscipopt


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Without what the LP solver of SCIP writes to the standard error of the process; it has no
    switch for that.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def tree_expression(root: sc.Scalar, variables: Sequence[Any]) -> Any:
    """A scalar tree as an expression of SCIP; ``variables[j]`` stands for column j.

    Raises
    ------
    BackendError
        Where the expression would be too large.
    """
    scip = engine()
    check_size(root)
    known: dict[int, Any] = {}
    for node in sc.postorder(root):
        match node:
            case sc.Num():
                known[id(node)] = node.value
            case sc.Col():
                known[id(node)] = 1.0 * variables[node.index]
            case sc.Call():
                args = [known[id(a)] for a in node.arguments]
                known[id(node)] = _apply(scip, node.function, args)
    return known[id(root)] + 0.0 * variables[0]


def moves(expression: Any) -> bool:
    """Whether an expression reads a variable."""
    if isinstance(expression, int | float):
        return False
    terms = getattr(expression, "terms", None)
    return terms is None or any(len(t.vartuple) > 0 for t in terms)


def constant(expression: Any) -> float:
    """The value of an expression that reads no variable."""
    return float(sum(expression.terms.values()))


def _apply(scip: Any, function: str, args: list[Any]) -> Any:
    match function:
        case "add":
            # One by one copies what is before, every time.
            return scip.quicksum(args) if len(args) > sc.LONG else reduce(operator.add, args)
        case "mul":
            return reduce(operator.mul, args)
        case "div":
            return args[0] / args[1]
        case "pow":
            return _power(scip, *args)
        case "abs":
            return abs(args[0])
        case "max":  # SCIP has neither: (a + b + |a - b|) / 2
            return 0.5 * (args[0] + args[1] + abs(args[0] - args[1]))
        case "min":
            return 0.5 * (args[0] + args[1] - abs(args[0] - args[1]))
        case "tanh":
            return 1.0 - 2.0 / (scip.exp(2.0 * args[0]) + 1.0)
        case "exp" | "log" | "sqrt" | "sin" | "cos":
            return getattr(scip, function)(args[0])
    raise BackendError(f"the backend `exact` has no function `{function}`")


def _power(scip: Any, base: Any, exponent: Any) -> Any:
    if isinstance(exponent, int | float):
        whole = float(exponent).is_integer()
        return base ** (int(exponent) if whole else float(exponent))
    return scip.exp(exponent * scip.log(base))
