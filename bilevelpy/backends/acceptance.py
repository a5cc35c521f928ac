"""Acceptance conditions weaker than strong convexity, for the methods whose theory has them."""

from __future__ import annotations

from dataclasses import replace

from bilevelpy.analysis.forms.smooth import ABSOLUTE, GROUPS
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
    if not structure.is_convex:
        return Reject("needs a convex lower level", structure.convexity)
    return None


def refuse_other_than_rows(structure: Structure, whose: str) -> Reject | None:
    """Reject what no first-order method for lower constraints takes, and models without any."""
    s = structure
    if "single_level" in s.unsupported:
        return refuse_common(s)
    if s.lower.constraints.value in ("none", "bounds"):
        return Reject(f"is for lower levels with constraints; {whose}", s.lower.constraints)
    if not s.upper.smooth.value:
        return Reject("needs an upper objective with a derivative", s.upper.smooth)
    if "moving_bounds" in s.unsupported:
        return Reject(
            "does not take bounds that depend on variables", s.unsupported["moving_bounds"]
        )
    return refuse_shape(without_lower_rows(s))


def without_lower_rows(structure: Structure) -> Structure:
    """The facts with the constraints of the lower level left to the backend."""
    s = structure
    nothing = Fact("none", s.lower.constraints.evidence, "left to the backend")
    rest = {k: v for k, v in s.unsupported.items() if k != "lower_constraints"}
    return replace(
        s, lower_constraints=0, lower=replace(s.lower, constraints=nothing), unsupported=rest
    )


def with_one_level(structure: Structure) -> Structure:
    """The facts with the lack of a lower level left to the backend, where functions are `extern`:
    those that are written in the model go to a global search.
    """
    if not structure.externs.value:
        return structure
    rest = {k: v for k, v in structure.unsupported.items() if k != "single_level"}
    return replace(structure, unsupported=rest)


UPPER_ROWS = frozenset({"upper_constraints", "coupling"})


def without_upper_rows(structure: Structure) -> Structure:
    """The facts with the constraints of the upper level, on either level, left to the backend."""
    s = structure
    nothing = Fact("bounds", s.upper.constraints.evidence, "left to the backend")
    return replace(
        s,
        upper_constraints=0,
        upper=replace(s.upper, constraints=nothing),
        coupling=replace(s.coupling, value=False),
        unsupported={k: v for k, v in s.unsupported.items() if k not in UPPER_ROWS},
    )


SUPPORT = (
    "norms or absolute values below: the response is unique where f_yy is positive definite on its "
    "support"
)


LOCAL = (
    "the lower level is not known to be convex: one of its minimisers is followed, and others may "
    "be better"
)


ALMOST = (
    "kinks of a level that is not convex (networks of `relu`): slopes are those of one side of "
    "each, and claims hold between them"
)


def is_almost_smooth(structure: Structure) -> bool:
    """Whether kinks may be left to slopes of one side: those of lower levels that are not convex,
    where no point of interest lies on them. Absolute values and norms of variables draw solutions
    onto their kinks.
    """
    s = structure
    convex = s.is_convex or bool(s.unique.value)
    return not (convex or s.lower.smooth.value or s.lower.smooth.reason in (ABSOLUTE, GROUPS))


def without_kinks(structure: Structure) -> Structure:
    """The facts of almost smooth levels with their kinks left to the backend."""
    if not is_almost_smooth(structure):
        return structure
    smooth = Fact(True, Evidence.DECLARED, "left to the backend")
    upper = replace(structure.upper, smooth=smooth)
    return replace(with_smooth_lower(structure), upper=upper)


def refuse_implicit(structure: Structure, *, groups: bool = False) -> Reject | None:
    """As :func:`refuse_common`, but semidefinite variables are taken, and weighted absolute values
    in convex lower levels over free and box variables; with ``groups`` norms of groups too, over
    free variables. Lower levels that are not known to be convex, smooth or almost, are taken as
    well: near one of their minimisers implicit differentiation holds.
    """
    s = structure
    if groups and s.lower.smooth.reason == GROUPS:
        if s.lower.domains.value - {"free"}:
            return Reject("takes norms of groups of free variables", s.lower.domains)
        return refuse_nonconvex(with_smooth_lower(s))
    if s.lower.smooth.reason != ABSOLUTE:
        return refuse_common(_near_a_minimiser(without_kinks(s)), matrices=True)
    if s.lower.domains.value - {"free", "box"}:
        return Reject("takes `abs` terms over free and box variables", s.lower.domains)
    return refuse_nonconvex(with_smooth_lower(s))


def _near_a_minimiser(structure: Structure) -> Structure:
    """The facts near one minimiser of a lower level that is not known to be convex."""
    if structure.is_convex or structure.unique.value:
        return structure
    near = Fact("strongly convex", Evidence.DECLARED, "near one minimiser")
    return replace(structure, convexity=near)


def warn_implicit(structure: Structure) -> tuple[str, ...]:
    """What the theory of :func:`refuse_implicit` leaves open for this model."""
    if not structure.is_convex:
        return (LOCAL, ALMOST) if is_almost_smooth(structure) else (LOCAL,)
    strong = structure.has_one_response
    return () if strong or structure.lower.smooth.reason not in (ABSOLUTE, GROUPS) else (SUPPORT,)


def with_epigraphs(structure: Structure) -> Structure:
    """The facts of the model with rows in place of its kinks, where epigraphs can stand for all of
    them; the given facts elsewhere.
    """
    s = structure
    if s.epigraphs is None:
        return s
    made, evidence = s.epigraphs.value, s.epigraphs.evidence
    rows = Fact("linear", evidence, s.epigraphs.reason, s.epigraphs.span)
    if s.lower.constraints.value in ("convex", "nonconvex"):
        rows = s.lower.constraints
    lower = replace(
        with_smooth_lower(s).lower,
        form=replace(s.lower.form, value=made.form),
        constraints=rows,
        domains=replace(s.lower.domains, value=s.lower.domains.value | {"box"}),
    )
    return replace(
        s,
        lower=lower,
        dim_y=s.dim_y + made.variables,
        lower_constraints=s.lower_constraints + made.rows,
        unsupported={**s.unsupported, "lower_constraints": rows},
        epigraphs=None,
    )


def with_smooth_lower(structure: Structure) -> Structure:
    """The facts with the kinks of the lower level left to the backend."""
    smooth = Fact(True, Evidence.DECLARED, "left to the backend")
    return replace(structure, lower=replace(structure.lower, smooth=smooth))


def with_smooth_upper(structure: Structure) -> Structure:
    """The facts with the kinks of the upper objective left to the backend."""
    smooth = Fact(True, Evidence.DECLARED, "left to the backend")
    return replace(structure, upper=replace(structure.upper, smooth=smooth))


def refuse_any_function(structure: Structure) -> Reject | None:
    """Reject constraints, integers and coupling, and domains other than boxes, but no function."""
    refusal = refuse_shape(with_smooth_lower(structure))
    if refusal is not None:
        return refusal
    for level in (structure.upper, structure.lower):
        if level.domains.value - {"free", "box"}:
            return Reject("takes free and box variables only", level.domains)
    return None


def refuse_lower_bounds(structure: Structure) -> Reject | None:
    """Reject lower variables with a domain: the method differentiates unconstrained lower steps."""
    if structure.lower.domains.value - {"free"}:
        return Reject(
            "does not take bounds or other domains of lower variables", structure.lower.domains
        )
    return None


def refuse_ill(structure: Structure, most: float) -> Reject | None:
    """Reject strongly convex lower levels of a condition number above ``most``, where it is known:
    the method walks gradient steps, some 30 for each unit of it, and differentiates them all.
    """
    kappa = structure.condition
    if kappa is None or kappa <= 1.01 * most:  # estimates are off by a percent
        return None
    return Reject(
        f"follows gradient steps of the lower level, too many above a condition number of {most:g} "
        f"(here {kappa:.3g})",
        structure.convexity,
    )


def refuse_choice(structure: Structure) -> Reject | None:
    """Reject convex lower levels that may have several solutions: the method follows one."""
    s = structure
    if s.convexity.value == "convex" and not s.unique.value:
        return Reject("follows one lower solution, and there may be several", s.convexity)
    return None
