"""Better points of SCIP while it runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from bilevelpy.backends.exact.engine.expressions import INFINITE, engine

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.outcome import Watcher
    from bilevelpy.backends.exact.engine.scip import Model


def watch(model: Model, watcher: Watcher) -> None:
    """Show every better point, and stop where that is wanted."""
    module = engine()
    better = module.SCIP_EVENTTYPE.BESTSOLFOUND

    class Seen(module.Eventhdlr):  # type: ignore[misc, name-defined]
        def eventinit(self) -> None:
            self.model.catchEvent(better, self)

        def eventexit(self) -> None:
            self.model.dropEvent(better, self)

        def eventexec(self, event: Any) -> None:
            best = self.model.getBestSol()
            values = model.point(best)
            bound = float(self.model.getDualbound())
            bound = -math.inf if abs(bound) >= INFINITE else bound
            try:
                stopped = watcher.seen(values, float(self.model.getSolObjVal(best)), bound)
            except BaseException as error:
                model.raised, stopped = model.raised or error, True
            if stopped:
                model.halt()

    model.scip.includeEventhdlr(Seen(), "better points", "shows every better point")
