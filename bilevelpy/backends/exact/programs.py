"""What a run of ``exact`` solves: the scalar rows of a model, and the programs made of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.backends.exact.certificate.ties import require_sharp
from bilevelpy.backends.exact.engine.expressions import engine
from bilevelpy.backends.exact.leaders.few_choices import MOST, few_choices
from bilevelpy.backends.exact.relaxations.conditions import conditions, sharper
from bilevelpy.backends.exact.relaxations.necessary import high_point
from bilevelpy.backends.whole import with_start
from bilevelpy.errors import BackendError
from bilevelpy.ir.types import Stance
from bilevelpy.ir.walk import duals
from bilevelpy.reductions.integer.relaxation import in_real_numbers
from bilevelpy.reductions.linearization.integer_duality import Whole, whole_duality
from bilevelpy.reductions.linearization.integer_products import Products
from bilevelpy.reductions.optimality.choice_rows import choice_rows
from bilevelpy.reductions.optimality.multiplier_bounds import with_multiplier_bounds
from bilevelpy.reductions.optimality.pessimistic import Unfit, Worst, worst_responses
from bilevelpy.reductions.optimality.validity import is_definite
from bilevelpy.reductions.refusal import Refused, refuse
from bilevelpy.reductions.rewriting.fractional import without_quotients
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.normalize import normalize
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import system

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

Array = np.ndarray[Any, np.dtype[Any]]


class Programs:
    """``stated`` and ``given`` are the rows in the units of the model, ``system`` those in
    ``units``, with real numbers for whole responses where that makes no difference; ``program``
    has the followers' conditions in place of them, and is the problem itself where ``settled``.
    Pessimistic leaders have ``choices`` to try, or a program of the ``worst`` responses.

    Raises
    ------
    MissingEngine
        SCIP is not installed.
    BackendError
        The model has no such programs; the text says why.
    """

    def __init__(self, bound: BoundProgram, start: Mapping[str, Any]) -> None:
        engine()
        self.worst: Worst | None = None
        self.pessimistic = False
        self.choices: Array | None = None
        try:
            stated = lift(system(bound))
            made = without_quotients(stated)
            self.stated = separate(stated)
            self.given = with_start(separate(made), start)
            self.units = normalize(self.given)
            self.system = in_real_numbers(self.units.system)
            self.program, self.settled = conditions(self.system)
            # Linear followers by strong duality, where binaries make its products linear.
            self.whole = self._whole(bound) if self.settled else None
            if self.settled and (self.whole is None or self.whole.program.degree > 1):
                self.program = sharper(self.program)
            if bound.program.stance is Stance.PESSIMISTIC and not is_definite(self.system):
                self.pessimistic = True
                self.choices = few_choices(self.system, coupled=True)
                if self.choices is None:
                    self.worst = worst_responses(self.system)
                elif not self.settled:
                    require_sharp(self.system)
        except Refused as error:
            raise BackendError(str(error)) from error
        except Unfit as error:
            program = bound.program
            said = refuse(
                program, "BLV0604", error.span or program.upper.span, reason=str(error),
                hint="`upper optimistic`; or whole numbers for all that the leader decides: "
                f"`exact` tries up to {MOST:,} choices one by one",
            )  # fmt: skip
            raise BackendError(str(said)) from error

    def _whole(self, bound: BoundProgram) -> Whole | None:
        """Rankings, where followers have nothing else. Else strong duality, where products with
        multipliers have whole numbers in them with the ends that basic ones have, unless somebody
        reads them: ends make special ordered sets no faster.
        """
        read = bool((self.system.columns.owner == -1).any())
        if not read and not duals([r.value for r in bound.program.reports.values()]):
            ranked = choice_rows(self.system)
            if ranked is not None and ranked.complete:
                rows = high_point(self.system)
                return Whole(rows, Products(rows.columns), {}, rows.columns.count)
            found = whole_duality(with_multiplier_bounds(self.program))
            if found is not None:
                return found
        return whole_duality(self.program)
