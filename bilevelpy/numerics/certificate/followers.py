"""The followers of a point, solved again by solvers of their own in scalar rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bilevelpy.numerics.certificate.constrained import Findings, examine_point
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.numerics.programs.linearised import confirmed_by_tangent, tangent_bound
from bilevelpy.numerics.rows.resolver import RowsResolver
from bilevelpy.system.deadline import check

if TYPE_CHECKING:
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.numerics.programs.smooth import Program
    from bilevelpy.reductions.rows import System

Vec = torch.Tensor
Array = np.ndarray[Any, np.dtype[Any]]

# A point whose slope proves its value to this fraction, and that keeps its rows so well, is a
# response.
CONFIRMED, EXACT = 1e-9, 1e-9
# The same at the edge of what can be met, where an x has to be as exact for rows to hold so well.
MET = 1e-8


class Followers:
    """Responses for a certificate; ``until`` is a reading of ``time.perf_counter``. ``affine`` and
    ``convex`` say what is known of the rows and of the objectives.
    """

    def __init__(
        self,
        oracle: TorchOracle,
        rows: System,
        seed: int,
        until: float,
        *,
        convex: bool,
        affine: bool,
    ) -> None:
        self.oracle, self.rows, self.seed, self.until = oracle, rows, seed, until
        self.convex, self.newton = convex, None
        if affine and convex and bool(rows.lower_objectives.trees):
            self.newton = RowsResolver(oracle)

    def columns(self, x: Vec, y: Vec) -> Array:
        """The point as columns of the scalar rows."""
        upper, lower = self.oracle.unflatten_x(x), self.oracle.unflatten_y(y)
        v = np.zeros(self.rows.columns.count)
        for block in self.rows.columns.blocks:
            part = (upper if block.level == "upper" else lower[block.level])[block.name]
            v[block.offset : block.offset + block.size] = np.asarray(part).ravel()
        return v

    def examined(self, v: Array) -> tuple[Findings, Array | None]:
        """What is found at a point, and its columns with every follower solved again."""
        solved, known = self.respond(v), None
        if solved is not None and self.convex:  # a local solution of a convex program is global
            known = {k: float(f) for k, f in enumerate(self.rows.lower_objectives.value(solved))}
        found = examine_point(self.rows, v, solved=known, seed=self.seed, convex=self.convex)
        return found, solved

    def respond(self, v: Array) -> Array | None:
        """The columns with every follower solved again."""
        new, newton = v.copy(), self._by_newton(v)
        for k in range(len(self.rows.followers)):
            check()
            program = follower_program(self.rows, k, new).reduced()
            if self.convex and _is_response(program, new):
                continue
            if newton is not None:
                at = new.copy()
                at[program.free] = newton[program.free]
                if _is_response(program, at):
                    new = at
                    continue
            answer = program.solve(
                np.random.default_rng(self.seed), self.until, convex=self.convex, sharp=True
            )
            if answer.values is None and self.convex and _is_least(program, new):
                continue  # where only this point meets the rows, solvers may find none
            if answer.values is None:
                return None
            new[program.free] = answer.values[program.free]
        return new

    def _by_newton(self, v: Array) -> Array | None:
        """The columns with the responses of Newton's method, which nothing is claimed of; None
        where followers are quadratic, whose own solver is as accurate.
        """
        if self.newton is None:
            return None
        x = self.upper(v)
        lower = self.newton.solved(x, self.lower(v))
        return None if lower is None else self.columns(x, lower.y)

    def upper(self, v: Array) -> Vec:
        """The upper variables of columns."""
        named: dict[str, Any] = {}
        for block in self.rows.columns.blocks:
            if block.level == "upper":
                named[block.name] = v[block.offset : block.offset + block.size].reshape(block.shape)
        return self.oracle.flatten_x(named)

    def lower(self, v: Array) -> Vec:
        """The lower variables of columns."""
        named: dict[str, dict[str, Any]] = {}
        for block in self.rows.columns.blocks:
            if block.level != "upper":
                part = v[block.offset : block.offset + block.size].reshape(block.shape)
                named.setdefault(block.level, {})[block.name] = part
        return self.oracle.flatten_y(named)


def _is_least(program: Program, v: Array) -> bool:
    """Whether a point of a convex follower meets its rows, and no other has a smaller objective by
    its slope.
    """
    if program.violation(v) > MET * max(1.0, float(np.abs(v).max(initial=0.0))):
        return False
    program = program.reduced()
    here = program.value(v)
    return here - tangent_bound(program, v) <= CONFIRMED * max(abs(here), 1e-3)


def _is_response(program: Program, v: Array) -> bool:
    """Whether a point of a convex follower is its response, by its rows and its slope."""
    if program.violation(v) > EXACT * max(1.0, float(np.abs(v).max(initial=0.0))):
        return False
    return confirmed_by_tangent(program, v, CONFIRMED) is not None
