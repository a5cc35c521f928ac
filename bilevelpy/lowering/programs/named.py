"""Variables and expressions of a bound program by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from bilevelpy.errors import UsageError
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.objectives import level_total
from bilevelpy.ir.program import BoundProgram
from bilevelpy.lowering.programs.compiled import Programs

Vec = Tensor
Named = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True, slots=True)
class Summary:
    """A program whose sums of squares are statistics; ``numbers`` of them, of the params
    ``names``; ``error`` is the largest difference to the rows that was seen, relative.
    """

    bound: BoundProgram
    numbers: int
    names: tuple[str, ...]
    error: float


class NamedPrograms(Programs):
    """The compiled program, and what its vectors mean.

    Where sums over rows of files were replaced by their statistics, ``by_rows`` has the program as
    it is written, and ``summary`` says what was replaced.
    """

    by_rows: NamedPrograms | None = None
    summary: Summary | None = None

    def evaluate(self, expression: Expr, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        """Any expression of the program at a point, from the data as it is given."""
        program = self if self.by_rows is None else self.by_rows
        return program._evaluated(expression, x, y)

    def _evaluated(self, expression: Expr, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        value = self.function((expression,))(*self.upper.split(x), *self.lower.split(y))
        return value.detach().cpu().numpy()  # type: ignore[no-any-return]

    def tensor(self, expression: Expr) -> Tensor:
        """A data-only expression as a tensor, shared with the compiled programs."""
        return self.tensors.tensor(expression)

    def report(self, name: str, x: Vec, y: Vec) -> np.ndarray[Any, Any]:
        """A report of the model at a point."""
        reports = self.bound.program.reports
        if name not in reports:
            raise UsageError(f"there is no report {name!r}")
        return self.evaluate(reports[name].value, x, y)

    def objectives(self, x: Vec, y: Vec) -> dict[str, float]:
        """Level name -> value of its objective (summed over a family), in the sense it is written
        in.
        """
        whole = self if self.by_rows is None else self.by_rows
        program = whole.bound.program
        return {
            level.name: float(whole.evaluate(level_total(program, level), x, y))
            for level in program.levels
        }

    def unflatten_x(self, x: Vec) -> Named:
        """Upper variables by name: views of ``x``."""
        return {name: array for (_, name), array in self.upper.names(x).items()}

    def unflatten_y(self, y: Vec) -> dict[str, Named]:
        """Lower variables by follower and name: views of ``y``."""
        named: dict[str, Named] = {level.name: {} for level in self.bound.program.lowers}
        for (level, name), array in self.lower.names(y).items():
            named[level][name] = array
        return named

    def flatten_x(self, values: Mapping[str, Any]) -> Vec:
        """``x`` from upper variables by name; those not given keep their start."""
        return self.upper.flatten({("upper", name): v for name, v in values.items()}, self.x0)

    def flatten_y(self, values: Mapping[str, Mapping[str, Any]]) -> Vec:
        """``y`` from lower variables by follower and name; those not given keep their start."""
        flat = {(level, name): v for level, part in values.items() for name, v in part.items()}
        return self.lower.flatten(flat, self.y0)
