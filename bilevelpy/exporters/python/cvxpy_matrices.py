"""Large CVXPY programs: one vector of variables, and sparse matrices in a file beside the text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.python.python_script import arrays_packed

if TYPE_CHECKING:
    from bilevelpy.reductions.linearization.mixed import Mixed

Array = np.ndarray[Any, np.dtype[Any]]

BODY = """\
import pathlib
import sys

import cvxpy as cp
import numpy as np
import scipy.sparse as sp

# every number and name of the model
with np.load(pathlib.Path(__file__).with_suffix(".npz")) as content:
    t = dict(content)


def matrix(name):
    \"\"\"A sparse matrix over the variables.\"\"\"
    parts = t[f"{name}_data"], t[f"{name}_indices"], t[f"{name}_indptr"]
    return sp.csr_array(parts, shape=(t[f"{name}_indptr"].size - 1, t["name"].size))


def between(expressions, low, high):
    \"\"\"low <= expressions <= high, entry by entry; infinite ends are open.\"\"\"
    exact = low == high
    above, below = np.isfinite(low) & ~exact, np.isfinite(high) & ~exact
    made = [expressions(exact) == low[exact]] if exact.any() else []
    made += [expressions(above) >= low[above]] if above.any() else []
    return made + ([expressions(below) <= high[below]] if below.any() else [])


v = cp.Variable(t["name"].size)
A = matrix("rows")
constraints = between(lambda chosen: v[chosen.nonzero()[0]], t["low"], t["high"])
constraints += between(lambda chosen: A[chosen.nonzero()[0]] @ v, t["least"], t["most"])
whole = t["whole"].nonzero()[0]
if whole.size:
    constraints.append(v[whole] == cp.Variable(whole.size, integer=True))
F = t["cost"] @ v + float(t["constant"])
"""
CURVED = """\
curved = t["curved"]  # the variables with squares and products in the objective
F += cp.quad_form(v[curved], cp.psd_wrap(matrix("hessian")[curved][:, curved].toarray() / 2))
"""
TAIL = """\
problem = cp.Problem(cp.Minimize(F), constraints)
problem.solve(solver=sys.argv[1] if len(sys.argv) > 1 else None)
print(problem.status)
print("F =", SIGN * problem.value)
for name, value in zip(t["name"][:SHOWN], v.value):
    print(name, "=", float(value))
"""


def matrix_program(head: list[str], mixed: Mixed) -> str:
    """The text: what is minimised under what; ``head`` is its docstring."""
    system = mixed.kkt.system
    said = (
        f"\nSIGN = {int(system.sign)}  # of the model's objective against the one minimised here\n"
    )
    said += f"SHOWN = {system.columns.count}  # the variables of the model stand first\n"
    curved = CURVED if mixed.objective.quadratic else ""
    return "\n".join(head) + "\n" + BODY + curved + said + TAIL


def matrix_data(mixed: Mixed) -> bytes:
    """Names, bounds and coefficients."""
    columns, rows = mixed.columns, mixed.rows
    arrays: dict[str, Array] = {
        "name": np.array(columns.names),
        "low": columns.lower,
        "high": columns.upper,
        "whole": columns.integer,
        "row_name": np.array(rows.names),
        "least": rows.lower,
        "most": rows.upper,
        "cost": mixed.objective.linear.toarray()[0],
        "constant": mixed.objective.constant[0],
        **_matrix("rows", rows.functions.linear),
    }
    if mixed.objective.quadratic:
        hessian = mixed.objective.quadratic[0]
        arrays |= _matrix("hessian", hessian.tocsr())
        arrays["curved"] = np.unique(hessian.tocoo().row)
    return arrays_packed(arrays)


def _matrix(name: str, matrix: Any) -> dict[str, Array]:
    return {
        f"{name}_data": matrix.data,
        f"{name}_indices": matrix.indices,
        f"{name}_indptr": matrix.indptr,
    }
