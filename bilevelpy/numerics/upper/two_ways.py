"""Two runs from one start where F(x, y(x)) has many local minima: the better end counts."""

from __future__ import annotations

from dataclasses import replace

from bilevelpy.numerics.driver.measure import Finish, Measure
from bilevelpy.numerics.upper.optimizer import advance, begin, leave, measure
from bilevelpy.numerics.upper.pieces import InPieces
from bilevelpy.numerics.upper.state import WINDOW, Rival, UpperState
from bilevelpy.result import Status

# A second run ends where its latest steps took it by less than this part of the way down to the
# end of the first.
BEHIND = 1e-4
# Steps from piece to piece end where the latest ones changed F by less than so many times tol.
STILL = 0.5
# Steps without pieces hand over to them where they change F by less than this part of it.
SLOW = 1e-2


def step(state: UpperState) -> UpperState:
    """One step. Whole steps over pieces of Phi end soon, often at lower minima than quasi-Newton
    steps and sometimes at higher ones: after them the run goes on from its start without pieces
    until it creeps, and so it does from where it got stuck between them.
    """
    newton = state.response.newton
    if not isinstance(newton, InPieces):
        return advance(state)
    state = _moved(state, newton)
    finish = state.finish or _converged(state) or _given_up(state, newton)
    if finish is None:
        return state
    if state.rival is None:
        if newton.has_stepped and finish.status in (Status.CONVERGED, Status.STALLED):
            state.finish, state.pending = None, finish
    elif state.rival.end.F <= state.point.F:
        state.point, state.finish = state.rival.point, state.rival.end.finish
    return state


def _moved(state: UpperState, newton: InPieces) -> UpperState:
    """One step of the run, or, after the end of the first one, the start of the next."""
    ended, state.pending = state.pending, None
    if ended is None:
        return advance(state)
    is_stuck = newton.is_on and ended.status is Status.STALLED and not _is_flat(state)
    newton.is_on = False
    if is_stuck:
        state.forget()
        return advance(state)
    first, rival = state, Rival(state.point, replace(measure(state), finish=ended))
    state = begin(first.response, first.start.x, first.start.y, first.tol)
    state.norms[:0], state.rival = first.norms, rival
    return state


def _given_up(state: UpperState, newton: InPieces) -> Finish | None:
    """The end of a run that leads no further. The second one goes on by pieces where it creeps, and
    leaves the kinks that it meets.
    """
    rival = state.rival
    if rival is not None:
        newton.is_on = newton.is_on or _creeps(state)
        if _is_behind(state, rival):
            return rival.end.finish
    if not (_is_flat(state) and (newton.is_on or rival is None)):
        return None
    leave(state)
    if state.finish is None and rival is None:
        return Finish(Status.STALLED, "steps from piece to piece lead no further")
    if state.finish is None:
        state.values.clear()
    return state.finish


def _is_flat(state: UpperState) -> bool:
    """Whether F hardly falls any more, whatever its slope: between pieces that stays steep."""
    values = state.values
    if len(values) <= WINDOW:
        return False
    return values[-WINDOW - 1] - values[-1] <= STILL * state.tol * state.size()


def _creeps(state: UpperState) -> bool:
    """Whether quasi-Newton steps cross kink after kink: pieces lead down the valley they found."""
    values = state.values
    if len(values) <= WINDOW:
        return False
    return values[-WINDOW - 1] - values[-1] <= SLOW * state.size()


def _is_behind(state: UpperState, rival: Rival) -> bool:
    """Whether the run flattens out above the end of the first one."""
    values = state.values
    if len(values) <= WINDOW:
        return False
    return values[-WINDOW - 1] - values[-1] < BEHIND * (values[-1] - rival.end.F)


def _converged(state: UpperState) -> Finish | None:
    found = state.stationarity()
    if found > state.tol:
        return None
    return Finish(Status.CONVERGED, f"relative hypergradient {found:.1e} within tol")


def described(found: Measure, state: UpperState) -> Measure:
    """A measure with the end that the run has behind it, or is at, while it goes on."""
    if state.finish is not None:
        return found
    if state.pending is not None:
        return replace(found, rival=replace(found, finish=state.pending), goes_on=True)
    return found if state.rival is None else replace(found, rival=state.rival.end)
