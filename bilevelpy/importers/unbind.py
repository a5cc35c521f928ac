"""A bound program as a model file and its data, as they were before binding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.ir.program import Read
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import AxisKind

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


def texts(bound: BoundProgram) -> tuple[str, dict[str, Any]]:
    """The text of a model and the data that it does not hold itself.

    Raises
    ------
    UsageError
        Where the text is not known, or is spread over several files.
    """
    program, data = bound.program, bound.data
    if len(program.sources) != 1:
        raise UsageError(
            "the model was written in several files; `bilevelpy.read` takes it as it is"
            if program.sources
            else "the file does not hold the text of the model; `bilevelpy.read` takes it as it is"
        )
    values: dict[str, Any] = {}
    for name, axis in program.axes.items():
        if (
            axis in data.labels
            and axis.labels is None
            and axis.kind
            in (
                AxisKind.LABELS,
                AxisKind.PAIRS,
            )
        ):
            values[name] = [list(v) if isinstance(v, tuple) else v for v in data.labels[axis]]
    for name, param in program.params.items():
        if name in data.arrays and (param.default is None or isinstance(param.default, Read)):
            value = data.arrays[name]
            values[name] = np.asarray(value.toarray() if is_sparse(value) else value)
    return next(iter(program.sources.values())).text, values
