"""Which form of a problem ``nlp`` begins with: conditions, or responses that are solved for."""

from __future__ import annotations

from bilevelpy.backends.nlp.joined import has_prices
from bilevelpy.errors import BackendError
from bilevelpy.ir.types import Stance
from bilevelpy.numerics.followers.parametric import ParametricResponse
from bilevelpy.numerics.followers.response import JointResponse
from bilevelpy.reductions.optimality.validity import is_definite, require_convex
from bilevelpy.reductions.refusal import Refused
from bilevelpy.reductions.rows import System

# From this many lower variables on the reduced form comes first, where there is one; the same where
# kinks have become variables and rows: conditions are slow then, and solutions many.
MANY, KINKED = 300, 50


def require_form(system: System, stance: Stance) -> None:
    """Raise ``BackendError`` where neither form answers the problem."""
    if stance is Stance.PESSIMISTIC and not is_definite(system):
        raise BackendError("the backend `nlp` takes the optimistic reading")
    # An equilibrium is checked player by player; a multiplier is a price where f is convex.
    if has_prices(system) and not is_convex(system):
        raise BackendError(
            "the backend `nlp` knows the shadow prices of convex followers only, and these are "
            "not known to be convex"
        )


def reduced_form(system: System, form: str) -> JointResponse | None:
    """The reduced form, where it is wanted (``nlp.form``) and there is one.

    Raises
    ------
    BackendError
        Where "reduced" is asked for and there is none.
    """
    columns = system.columns
    kinked = columns.count > sum(b.size for b in columns.blocks)
    many = system.lower_columns.size >= (KINKED if kinked else MANY)
    wanted = form == "reduced" or (form == "auto" and many)
    made = reducible(system) if wanted else None
    if form == "reduced" and made is None:
        raise BackendError(
            "nlp.form = reduced takes followers that are convex quadratic, with rows affine in "
            "their variables, at every x"
        )
    return None if made is None else made(system)


def reducible(system: System) -> type[JointResponse] | None:
    """The kind of reduced form that there is, whether or not it is wanted."""
    made = next((k for k in (JointResponse, ParametricResponse) if k.fits(system)), None)
    return made if made is not None and is_convex(system) else None


def is_linear(system: System) -> bool:
    """Whether some follower has no curvature of its own: responses jump."""
    objectives = system.lower_objectives
    for k in range(len(system.followers)):
        own = system.columns.owner == k + 1
        q = objectives.quadratic.get(k)
        if k not in objectives.trees and (q is None or not q[own][:, own].nnz):
            return True
    return False


def is_convex(system: System) -> bool:
    """Whether every follower is known to be convex."""
    try:
        require_convex(system)
    except Refused:
        return False
    return True
