"""Interruptions of ``exact``: SCIP catches Ctrl-C and forgets what Python raises inside of it."""

from __future__ import annotations

import math
import signal
from typing import Any

import pytest

import bilevelpy as bl
from bilevelpy.backends.exact import run as exact_run
from bilevelpy.backends.exact.engine.outcome import Limits
from bilevelpy.backends.exact.engine.scip import Model
from bilevelpy.backends.exact.relaxations.necessary import high_point
from bilevelpy.backends.exact.relaxations.relax import Relaxed
from bilevelpy.reductions.rows import system

pytest.importorskip("pyscipopt")

# A follower whose conditions are a program; one that is settled by cuts; one with whole numbers; a
# leader who fears the worst response.
MODELS = {
    "conditions": """
    upper { var x in [0, 4] start 0; minimize (x - 3)^2 + (y - 1)^2; }
    lower f { var y in [0, 3]; minimize (y - x)^2; subject to row: y <= 4 - x; }
    """,
    "cuts": """
    upper { var x in [-1, 1]; minimize (x - 0.4)^2 + y; subject to row: x + y >= -1; }
    lower f { var y in [-1, 1]; minimize y^4 - 2 * y^2 + x * y; }
    """,
    "whole": """
    upper { var x[2] in binary; minimize sum(y) - x[1]; }
    lower f { var y[2] in integers(0, 2); minimize -sum(y); subject to row: sum(y) <= 3 - sum(x); }
    """,
    "pessimistic": """
    upper pessimistic { var x in [0, 1]; minimize -x + sum(y); }
    lower f { var y[2] in [0, 1]; minimize -sum(y); subject to row: sum(y) <= 1 + x; }
    """,
}


@pytest.mark.parametrize("text", MODELS.values(), ids=MODELS.keys())
@pytest.mark.parametrize("raised", [KeyboardInterrupt, SystemExit])
def test_what_a_callback_raises(text: str, raised: type[BaseException]) -> None:
    def callback(state: Any) -> None:
        raise raised

    def solve() -> bl.Result:
        return bl.solve(bl.parse(text), backend="exact", callback=callback, progress=False)

    if raised is SystemExit:
        with pytest.raises(SystemExit):
            solve()
        return
    result = solve()
    assert result.status == "interrupted"
    assert math.isfinite(result.F)


def test_ctrl_c_inside_of_one_of_many_solves_ends_the_run() -> None:
    """SCIP catches it; whoever asked for that solve took it for one that had failed."""
    rows = high_point(system(bl.parse(MODELS["conditions"]).bound))
    model = Relaxed(rows).model(rows.objective)
    before = signal.getsignal(signal.SIGINT)
    _raising(model, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        model.solve(Limits())
    assert signal.getsignal(signal.SIGINT) is before


def _raising(model: Model, number: int) -> None:
    """A signal arrives when SCIP finds its first point."""
    from pyscipopt import SCIP_EVENTTYPE, Eventhdlr

    class Signal(Eventhdlr):
        def eventinit(self) -> None:
            self.model.catchEvent(SCIP_EVENTTYPE.BESTSOLFOUND, self)

        def eventexit(self) -> None:
            self.model.dropEvent(SCIP_EVENTTYPE.BESTSOLFOUND, self)

        def eventexec(self, event: Any) -> None:
            signal.raise_signal(number)

    model.scip.includeEventhdlr(Signal(), "signal", "raises a signal")


def test_an_interruption_of_the_certificate_keeps_the_point(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def certificate(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exact_run.Proof, "certificate", certificate)
    result = bl.solve(bl.parse(MODELS["conditions"]), backend="exact")
    assert result.status == "interrupted"
    assert math.isfinite(result.F)
