"""Convexity, modulus, Lipschitz constant and uniqueness of the lower level: the text first, then
points.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.convexity.judge import Judge, Verdict
from bilevelpy.analysis.convexity.modulus import proved_modulus, shares
from bilevelpy.analysis.convexity.relative_entropy import convex_together
from bilevelpy.analysis.declared import Declared
from bilevelpy.analysis.forms.scope import text_at
from bilevelpy.analysis.forms.terms import split
from bilevelpy.analysis.probing.probe import ROUNDING, SINGULAR, Probe
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.ir.expr import VarRef
from bilevelpy.ir.types import Sense
from bilevelpy.ir.walk import place, postorder

if TYPE_CHECKING:
    from bilevelpy.analysis.bounds.signs import Signs
    from bilevelpy.analysis.forms.form import Forms
    from bilevelpy.diagnostics import Span
    from bilevelpy.ir.program import Level, Variable

STRONGLY, CONVEX, NONCONVEX, UNKNOWN = "strongly convex", "convex", "nonconvex", "unknown"
_RANK = {NONCONVEX: 0, UNKNOWN: 1, CONVEX: 2, STRONGLY: 3}
_SURE = {Evidence.OBSERVED: 0, Evidence.DECLARED: 1, Evidence.PROVED: 2}
# The part of what a penalty bends that has to be seen where the other terms are not proved convex.
KEPT = 0.5


@dataclass(frozen=True, slots=True)
class LevelVerdict:
    """What the text and the assumptions of one follower say; ``ridge`` is the modulus that some of
    its terms have whatever the others are.
    """

    level: Level
    verdicts: tuple[Verdict, ...]
    declared: dict[str, Declared]
    absent: tuple[Variable, ...]
    kind: str
    evidence: Evidence
    modulus: float
    ridge: float
    reason: str
    span: Span | None

    @property
    def offences(self) -> list[Verdict]:
        """The terms that the text does not show to be convex."""
        return [v for v in self.verdicts if not v.convex]


def judge_level(
    forms: Forms, signs: Signs, level: Level, declared: dict[str, Declared]
) -> LevelVerdict:
    """Judge a follower by its text; assumptions fill what the text leaves open."""
    scope = forms.scope
    sign = 1.0 if level.sense is Sense.MINIMIZE else -1.0
    terms = split(scope, level.objective, sign)
    judge = Judge(forms, signs)
    verdicts = tuple(judge.judge(term) for term in terms)
    if not all(v.convex for v in verdicts):
        together = convex_together(forms, signs, terms)
        verdicts = tuple(
            Verdict(v.term, True) if k in together and not v.convex else v
            for k, v in enumerate(verdicts)
        )
    found = shares(scope, signs.measured, [v.term for v in verdicts])
    ridge = proved_modulus([level], found)
    read = {(n.level, n.name) for n in postorder(level.objective) if isinstance(n, VarRef)}
    absent = tuple(v for v in level.variables if (v.level, v.name) not in read)
    kind, evidence, mu, reason, span = UNKNOWN, Evidence.OBSERVED, 0.0, "", None
    bad = [v for v in verdicts if not v.convex]
    program = scope.bound.program
    if bad:
        first = bad[0].node if bad[0].node is not None else bad[0].term.root
        span = place(first) or place(level.objective)
        text = text_at(program, span)
        reason = f"`{text}`: {bad[0].why}" if text else bad[0].why
    else:
        kind = CONVEX
        evidence = min(
            (v.evidence for v in verdicts), key=_SURE.__getitem__, default=Evidence.PROVED
        )
        reason = "every term is convex for fixed x, none is known to be strongly convex"
        span = place(level.objective)
        mu = ridge
        if mu > 0:
            kind = STRONGLY
            # The least share is the one that decides: point at it.
            weakest = min(found, key=lambda s: s.value)
            span = place(weakest.term.root) or span
            reason = (
                f"every term is convex, and {_term_words(program, span)} has curvature >= {mu:.3g}"
            )
    stated = declared.get("strongly_convex") or declared.get("convex")
    if stated is not None:
        wanted = (
            STRONGLY if stated.name == "strongly_convex" and (stated.value or 0) > 0 else CONVEX
        )
        if _RANK[wanted] > _RANK[kind]:
            kind, evidence, mu = wanted, Evidence.DECLARED, stated.value or 0.0
            reason, span = f"`assume {stated.name}` in `{level.name}`", stated.assumption.span
    return LevelVerdict(level, verdicts, declared, absent, kind, evidence, mu, ridge, reason, span)


def _term_words(program: Any, span: Span | None) -> str:
    text = text_at(program, span)
    return f"`{text}`" if text else "a square"


@dataclass(frozen=True, slots=True)
class LowerCurvature:
    """The facts of the whole lower level; ``by_text`` is its convexity without what points show."""

    convexity: Fact[str]
    by_text: Fact[str]
    modulus: Fact[float | None]
    lipschitz: Fact[float | None]
    unique: Fact[bool | None]
    spectrum: Fact[tuple[float, float] | None]


def combine(
    levels: Sequence[LevelVerdict],
    probe: Probe | None,
    constant: bool,
    quadratic: bool,
    analytic: bool = False,
) -> LowerCurvature:
    """Join followers (the weakest decides) with what was seen.

    ``constant`` says that f_yy is the same everywhere, so that exact eigenvalues at one point
    prove; ``quadratic`` that it does not depend on y, ``analytic`` that f has all derivatives.
    """
    exact = constant and probe is not None and bool(probe.spectra) and probe.spectra[0].exact
    weakest = min(levels, key=lambda v: (_RANK[v.kind], _SURE[v.evidence]), default=None)
    if weakest is None:
        convexity = Fact(CONVEX, Evidence.PROVED, "there is no lower level")
        mu = 0.0
    else:
        convexity = Fact(weakest.kind, weakest.evidence, weakest.reason, weakest.span)
        mu = min(v.modulus for v in levels)
    by_text = convexity
    modulus: Fact[float | None] = Fact(
        mu or None, convexity.evidence, convexity.reason, convexity.span
    )
    if probe is not None and probe.spectra:
        ridge = min(v.ridge for v in levels) if levels else 0.0
        convexity, modulus = _seen(convexity, modulus, probe, exact, quadratic, ridge)
    elif probe is not None and probe.negative and convexity.value == UNKNOWN:
        convexity = _nonconvex(convexity, probe)
    spectrum = _spectrum(probe, exact)
    if modulus.value is None and convexity.value != STRONGLY:
        modulus = Fact(None, Evidence.OBSERVED, "no positive modulus is known", convexity.span)
    elif spectrum.value is not None and modulus.value is not None and not exact:
        low, high = spectrum.value
        seen = f"{modulus.reason}; seen at the start: {low:.3g} to {high:.3g}"
        modulus = Fact(modulus.value, modulus.evidence, seen, modulus.span)
    return LowerCurvature(
        convexity,
        by_text,
        modulus,
        _lipschitz(levels, probe, exact),
        _unique(levels, convexity, probe, exact, analytic, quadratic),
        spectrum,
    )


def _seen(
    convexity: Fact[str],
    modulus: Fact[float | None],
    probe: Probe,
    exact: bool,
    quadratic: bool,
    ridge: float,
) -> tuple[Fact[str], Fact[float | None]]:
    """Refine what the text says by curvatures at points."""
    if probe.least is not None:
        low, high = probe.least.low, probe.least.high
        words = (
            "f_yy is least where the upper variables are at their lower bounds: eigenvalues "
            f"{low:.3g} to {high:.3g} there with this data"
        )
        return (
            Fact(STRONGLY, Evidence.PROVED, words, convexity.span),
            Fact(low, Evidence.PROVED, words, convexity.span),
        )
    low, high = probe.low or 0.0, probe.high or 0.0
    size = max(abs(low), abs(high))
    if exact:
        rounding = ROUNDING * len(probe.spectra[0].y) * size
        range_words = f"eigenvalues of the constant Hessian with this data: {low:.3g} to {high:.3g}"
        if low > rounding:
            better = max(low, modulus.value or 0.0)
            return (
                Fact(STRONGLY, Evidence.PROVED, range_words, convexity.span),
                Fact(better, Evidence.PROVED, range_words, convexity.span),
            )
        if low < -rounding and convexity.evidence is not Evidence.DECLARED:
            # A convex form found by the text cannot have a negative eigenvalue: that would be
            # rounding.
            if convexity.value in (CONVEX, STRONGLY):
                return convexity, modulus
            return Fact(NONCONVEX, Evidence.PROVED, range_words, convexity.span), Fact(
                None, Evidence.PROVED, range_words
            )
        if convexity.evidence is Evidence.DECLARED:
            return convexity, modulus
        return (
            Fact(CONVEX, Evidence.PROVED, range_words, convexity.span),
            Fact(None, Evidence.PROVED, range_words),
        )
    if convexity.value == STRONGLY and convexity.evidence is not Evidence.OBSERVED:
        return convexity, modulus
    known = convexity.value == CONVEX and convexity.evidence is not Evidence.OBSERVED
    if probe.negative and not known:
        return _nonconvex(convexity, probe), Fact(
            None, Evidence.OBSERVED, "f curves downwards somewhere"
        )
    words = f"curvature {low:.3g} to {high:.3g} at {_points(len(probe.spectra))}"
    if low > _least(probe, quadratic, ridge) * size:
        return (
            Fact(STRONGLY, Evidence.OBSERVED, words, convexity.span),
            Fact(low, Evidence.OBSERVED, words, convexity.span),
        )
    if convexity.value == UNKNOWN:
        return Fact(CONVEX, Evidence.OBSERVED, words, convexity.span), Fact(
            None, Evidence.OBSERVED, words
        )
    return convexity, modulus


def _least(probe: Probe, quadratic: bool, ridge: float) -> float:
    """The least curvature that is one, relative to the largest.

    Where f is quadratic in y an eigenvalue above rounding is a modulus, however small: kernel
    matrices are that ill-conditioned. So it is where f has no less of it than its ``ridge`` at any
    point seen. Elsewhere a small one says that the next point has none.
    """
    kept = ridge > 0.0 and all(s.low >= KEPT * ridge for s in probe.spectra)
    if (quadratic or kept) and all(s.exact for s in probe.spectra):
        return ROUNDING * len(probe.spectra[0].y)
    return SINGULAR


def _nonconvex(convexity: Fact[str], probe: Probe) -> Fact[str]:
    lowest = probe.lowest
    if lowest is not None and lowest.low < 0:
        why = f"f has curvature {lowest.low:.3g} in y at a sampled point"
    else:
        slope = probe.witness.slope if probe.witness is not None else 0.0
        why = f"f curves downwards between two sampled points (slope {slope:.3g})"
    return Fact(NONCONVEX, Evidence.OBSERVED, why, convexity.span)


def _spectrum(probe: Probe | None, exact: bool) -> Fact[tuple[float, float] | None]:
    if probe is None or not probe.spectra:
        return Fact(None, Evidence.OBSERVED, "not probed")
    first = probe.spectra[0]
    how = "eigenvalues" if first.exact else "Ritz values"
    evidence = Evidence.PROVED if exact else Evidence.OBSERVED
    return Fact((first.low, first.high), evidence, f"extreme {how} of f_yy at the start")


def _lipschitz(
    levels: Sequence[LevelVerdict], probe: Probe | None, exact: bool
) -> Fact[float | None]:
    stated = [v.declared["smooth"] for v in levels if v.declared.get("smooth")]
    if exact and probe is not None:
        return Fact(probe.high, Evidence.PROVED, "largest eigenvalue of the constant Hessian")
    if levels and len(stated) == len(levels) and all(s.value is not None for s in stated):
        largest = max(s.value or 0.0 for s in stated)
        return Fact(largest, Evidence.DECLARED, "`assume smooth`", stated[0].assumption.span)
    if probe is not None and probe.spectra:
        return Fact(
            probe.high, Evidence.OBSERVED, f"largest curvature at {_points(len(probe.spectra))}"
        )
    return Fact(None, Evidence.OBSERVED, "not probed")


def _unique(
    levels: Sequence[LevelVerdict],
    convexity: Fact[str],
    probe: Probe | None,
    exact: bool,
    analytic: bool,
    quadratic: bool,
) -> Fact[bool | None]:
    """Whether the lower solution is unique for every x."""
    if not levels:
        return Fact(True, Evidence.PROVED, "there is no lower level")
    if convexity.value == STRONGLY:
        return Fact(
            True, convexity.evidence, "a strongly convex function has one minimiser", convexity.span
        )
    for v in levels:
        if v.absent and not v.level.constraints:
            name = v.absent[0].name
            reason = (
                f"`{name}` does not occur in the objective of `{v.level.name}`: "
                "every value is a solution"
            )
            return Fact(False, Evidence.PROVED, reason, v.absent[0].span)
    if all("unique" in v.declared for v in levels):
        first = levels[0].declared["unique"].assumption
        return Fact(True, Evidence.DECLARED, "`assume unique`", first.span)
    curved = analytic and convexity.value == CONVEX and convexity.evidence is Evidence.PROVED
    if curved and probe is not None and probe.spectra:
        # Minimisers along a line would make f constant on all of it, and then, being convex, in
        # that direction from every point. Where the loss saturates, far from the data, curvature
        # may be below all rounding all the same.
        start = probe.spectra[0]
        if start.definite and not quadratic:
            reason = (
                f"f is convex and analytic in y, with curvature {start.low:.3g} to "
                f"{start.high:.3g} at the start, in every direction: it has one minimiser at most"
            )
            return Fact(True, Evidence.OBSERVED, reason, convexity.span)
        if probe.hidden:
            # What f is constant along, it is so from every point; where F is, too, minimisers that
            # differ by it are one.
            count = "a direction" if probe.hidden == 1 else f"{probe.hidden} directions"
            reason = (
                f"f is convex and analytic in y, and flat along {count} only, along which F does "
                "not change either: its minimisers are one to the leader"
            )
            return Fact(True, Evidence.OBSERVED, reason, convexity.span)
    if probe is not None and probe.singular:
        evidence = Evidence.PROVED if exact else Evidence.OBSERVED
        return Fact(None, evidence, "f has directions without curvature in y", convexity.span)
    return Fact(
        None, Evidence.OBSERVED, "nothing shows that the lower solution is unique", convexity.span
    )


def _points(count: int) -> str:
    return "one point" if count == 1 else f"{count} points"
