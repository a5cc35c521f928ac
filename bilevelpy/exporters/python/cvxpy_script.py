"""A CVXPY program: the conditions with big-M constants as a mixed-integer program."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bilevelpy.exporters.base import Files, Options
from bilevelpy.exporters.conditions import Writer
from bilevelpy.exporters.header import header, mixed_lines, one_line
from bilevelpy.exporters.matrices.matrix import TITLES, mixed_program
from bilevelpy.exporters.python.cvxpy_matrices import matrix_data, matrix_program
from bilevelpy.exporters.python.python_script import docstring, python_names, style
from bilevelpy.reductions.optimality.validity import least_eigenvalue
from bilevelpy.reductions.refusal import refuse
from bilevelpy.reductions.rows import Functions

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.reductions.linearization.mixed import Mixed

TARGET = "a CVXPY program"
LARGE = 20_000
"""Coefficients from which on they are matrices beside the text."""


class CvxpyScript:
    """Linear rows, a convex objective."""

    name: ClassVar[str] = "cvxpy"
    title: ClassVar[str] = "CVXPY program of the KKT conditions with big-M constants"
    suffix: ClassVar[str] = ".py"
    consumer: ClassVar[str] = "python {file}"

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The program."""
        options.form("cvxpy", "big-m")
        chosen = Options("big-m", options.dual_bound, options.epsilon, options.force)
        mixed = mixed_program(bound, chosen, TARGET, quadratic_rows=False)
        columns = mixed.columns
        span = bound.program.upper.objective.span
        if 0 in mixed.objective.quadratic:
            least = least_eigenvalue(mixed.objective.quadratic[0], np.arange(columns.count))
            if least < 0:
                raise refuse(
                    bound.program, "BLV0701", span, f"its Hessian has the eigenvalue {least:.3g}",
                    target=TARGET, what="an objective that is not convex",
                    hint="lp with SOS1 sets takes it",
                )  # fmt: skip
        namer = python_names("cp", "np", "sys", "constraints", "problem")
        write = Writer(bound, TARGET, style("cp."), namer, columns.names)
        out = docstring(header(bound.program, TITLES["big-m"], mixed_lines(mixed)))
        if mixed.rows.functions.linear.nnz + columns.count > LARGE:
            return Files(
                matrix_program(out, mixed), {".npz": matrix_data(mixed)}, mixed.kkt.warnings
            )
        out += ["import sys", "", "import cvxpy as cp", "import numpy as np", ""]
        for j, name in enumerate(write.names):
            kind = ", integer=True" if columns.integer[j] else ""
            out.append(f"{name} = cp.Variable(name={columns.names[j]!r}{kind})")
        out += ["", "constraints = ["]
        for j, name in enumerate(write.names):
            low, high = float(columns.lower[j]), float(columns.upper[j])
            out += [f"    {name} >= {low!r},"] if low > -float("inf") else []
            out += [f"    {name} <= {high!r},"] if high < float("inf") else []
        for line in write.lines(mixed.rows):
            if line.low == line.high:
                name = one_line(mixed.rows.names[line.row])
                out.append(f"    {line.body} == {line.high!r},  # {name}")
                continue
            out += [f"    {line.body} >= {line.low!r},"] if line.low > -float("inf") else []
            out += [f"    {line.body} <= {line.high!r},"] if line.high < float("inf") else []
        out += ["]"]
        objective = _objective(mixed, write, span)
        out += [f"problem = cp.Problem(cp.Minimize({objective}), constraints)"]
        out += ["problem.solve(solver=sys.argv[1] if len(sys.argv) > 1 else None)"]
        out += [
            "print(problem.status)",
            f'print("F =", {int(mixed.kkt.system.sign)} * problem.value)',
            f"for variable in [{', '.join(write.names[: mixed.kkt.system.columns.count])}]:",
            '    print(variable.name(), "=", float(variable.value))',
        ]
        return Files("\n".join(out) + "\n", warnings=mixed.kkt.warnings)


def _objective(mixed: Mixed, write: Writer, span: Span | None) -> str:
    """The objective; a quadratic part as one form, which CVXPY knows to be convex."""
    if 0 not in mixed.objective.quadratic:
        return write.function(mixed.objective, 0, span)
    linear = Functions(mixed.objective.constant, mixed.objective.linear)
    coo = mixed.objective.quadratic[0].tocoo()
    used = sorted({int(i) for i in coo.row})
    place = {j: k for k, j in enumerate(used)}
    matrix = [[0.0] * len(used) for _ in used]
    for i, j, c in zip(coo.row, coo.col, coo.data, strict=True):
        matrix[place[int(i)]][place[int(j)]] = float(c) / 2
    vector = f"cp.hstack([{', '.join(write.names[j] for j in used)}])"
    form = f"cp.quad_form({vector}, cp.psd_wrap(np.array({matrix})))"
    return f"{write.function(linear, 0, span)} + {form}"
