"""Which backend goes on where one has failed: the decision anew, with what its run has shown.

The reaction to each sign is a row of :data:`REACTIONS`: facts that the run has refuted are
replaced, and the decision table does the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from bilevelpy.analysis.structure import Evidence, Fact, Structure
from bilevelpy.dispatcher.dispatch import dispatch
from bilevelpy.errors import BackendError
from bilevelpy.result import Result, Status

# Further backends that a solve tries at most.
MOST = 3
# Ends that another backend may better. Limits, interruptions and proofs are final.
FAILED = (Status.STALLED, Status.DIVERGED)


@dataclass(frozen=True, slots=True)
class Reaction:
    """Where a result shows ``sign``, the next decision is made on ``corrected`` facts; ``words``
    say what was seen, ``first`` names backends that go before the table, if they accept.
    """

    sign: Callable[[Result], bool]
    corrected: Callable[[Structure], Structure]
    words: str
    first: tuple[str, ...] = ()


def _curved_down(result: Result) -> bool:
    seen = result.certificate.reasons if result.certificate is not None else ()
    return any("negative curvature" in text for text in (*seen, *result.warnings))


def _tied(result: Result) -> bool:
    certificate = result.certificate
    return certificate is not None and "F_pessimistic" in certificate.details


def _kinked(result: Result) -> bool:
    if result.status is not Status.STALLED:
        return False
    return "piece to piece" in result.message or any("kink" in text for text in result.warnings)


def _flat(result: Result) -> bool:
    seen = result.certificate.reasons if result.certificate is not None else ()
    return any("plateau" in text for text in seen)


def _nonconvex(s: Structure) -> Structure:
    seen = Fact("nonconvex", Evidence.OBSERVED, "negative curvature was met", s.convexity.span)
    open_: Fact[bool | None] = Fact(
        None, Evidence.OBSERVED, "the lower level is not convex", s.convexity.span
    )
    return replace(s, convexity=seen, by_text=None, unique=open_)


def _convex(s: Structure) -> Structure:
    kind = "convex" if s.convexity.value == "strongly convex" else s.convexity.value
    shape = Fact(kind, Evidence.OBSERVED, "several lower solutions were met", s.convexity.span)
    several: Fact[bool | None] = Fact(False, Evidence.OBSERVED, shape.reason, s.convexity.span)
    return replace(s, convexity=shape, unique=several)


REACTIONS: tuple[Reaction, ...] = (
    Reaction(_curved_down, _nonconvex, "met negative curvature of the lower level"),
    Reaction(_tied, _convex, "met several lower solutions"),
    # No descent leaves a plateau; a global search does, or proves that there is nothing better.
    Reaction(_flat, lambda s: s, "met a plateau of F(x, y(x))", ("exact",)),
    # By the conditions of the lower level a leader knows all pieces that meet at a kink. Penalties
    # see x and y apart and are smooth where y(x) is not: many kinks at once do not stop them, as
    # they stop every method that descends on F(x, y(x)).
    Reaction(_kinked, lambda s: s, "was stopped by kinks of the response", ("kkt", "pbgd", "meha")),
    Reaction(lambda r: r.status is Status.DIVERGED, lambda s: s, "diverged"),
    Reaction(lambda r: True, lambda s: s, "came to no certified end"),
)


def _reaction(result: Result) -> Reaction:
    return next(r for r in REACTIONS if r.sign(result))


def successor(
    structure: Structure,
    result: Result,
    tried: Collection[str],
    earlier: Sequence[Result] = (),
) -> tuple[str, str] | None:
    """The next backend after a failed ``result``, and the note that tells so; None where there is
    none left, or nothing to better.

    Parameters
    ----------
    structure
        The facts that the failed choice was made on.
    result
        What came of it.
    tried
        Backends that need not be tried again.
    earlier
        What came of the choices before: facts that they have refuted stay refuted.
    """
    if result.status not in FAILED or len(tried) > MOST:
        return None
    for before in earlier:
        structure = _reaction(before).corrected(structure)
    reaction = _reaction(result)
    try:
        decision = dispatch(reaction.corrected(structure))
    except BackendError:
        return None
    reached = f" at F = {result.F:.6g}" if math.isfinite(result.F) else ""
    seen = f"`{result.backend}` {reaction.words}{reached}"
    first = [n for n in reaction.first if n in decision.ranked]
    name = next((n for n in (*first, *decision.ranked) if n not in tried), None)
    return None if name is None else (name, f"{seen}; went on with `{name}`")
