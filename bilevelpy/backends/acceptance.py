"""Acceptance conditions weaker than strong convexity, for the methods whose theory has them."""

from __future__ import annotations

from dataclasses import replace

from bilevelpy.analysis.structure import Evidence, Fact, Structure
from bilevelpy.backends.base import Reject, refuse_common


def refuse_shape(structure: Structure) -> Reject | None:
    """Reject constraints, integers, coupling and kinks; the convexity of the lower level is left to
    the caller.
    """
    assumed = Fact("strongly convex", Evidence.DECLARED, "left to the backend")
    return refuse_common(replace(structure, convexity=assumed))


def refuse_nonconvex(structure: Structure) -> Reject | None:
    """As :func:`refuse_shape`, and reject lower levels that are not known to be convex."""
    refusal = refuse_shape(structure)
    if refusal is not None:
        return refusal
    if structure.convexity.value not in ("convex", "strongly convex"):
        return Reject("needs a convex lower level", structure.convexity)
    return None


def refuse_lower_bounds(structure: Structure) -> Reject | None:
    """Reject lower variables with a domain: the method differentiates unconstrained lower steps."""
    if structure.lower.domains.value - {"free"}:
        return Reject(
            "does not take bounds or other domains of lower variables", structure.lower.domains
        )
    return None
