"""How a solve of ``exact`` ended, in the words of the result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bilevelpy.backends.whole import GIVEN_UP
from bilevelpy.result import Status

if TYPE_CHECKING:
    from bilevelpy.backends.exact.engine.outcome import Outcome
    from bilevelpy.result import Certificate

# A gap of so many times the wanted one is as small as tolerances may allow.
CLOSE = 10.0


def is_close(found: Outcome, gap: float) -> bool:
    """Whether an unfinished proof leaves a gap that a claim may name: the last digits are those of
    the followers' tolerances.
    """
    return found.gap <= CLOSE * gap


def is_local(certificate: Certificate | None) -> bool:
    """Whether a local optimum is certified."""
    return certificate is not None and certificate.kind == "local"


def end_of(
    found: Outcome, certificate: Certificate | None, seconds: float, why: str
) -> tuple[Status, str]:
    """Status and message of an answer with a point; ``why`` says what stopped the cuts."""
    if found.status == "interrupted":
        return Status.INTERRUPTED, "interrupted; the best point is kept"
    if found.status in ("time_limit", "trouble") and is_local(certificate):
        reason = f"was not proved in {seconds:.3g} s: the gap is {found.gap:.2e}"
        if found.status == "trouble":
            reason = f"was not proved: {why or 'numerical trouble'}"
        return Status.CONVERGED, f"a local optimum; that it is the global one {reason}"
    if found.status == "time_limit":
        return (
            Status.TIME_LIMIT,
            f"stopped after {seconds:g} s (time_limit) with a gap of {found.gap:.2e}; the best "
            "point is kept",
        )
    if found.status == "hopeless":
        return Status.TIME_LIMIT, f"{GIVEN_UP} with a gap of {found.gap:.2e}: {why}"
    if found.status in ("stuck", "trouble"):
        return Status.STALLED, f"the best point is kept: {why or 'numerical trouble'}"
    if certificate is None:
        return Status.STALLED, "SCIP calls the point optimal; not verified"
    if certificate.kind == "global":
        return Status.CONVERGED, f"global optimum, gap {found.gap:.1e}"
    return Status.STALLED, "SCIP calls the point optimal, but " + "; ".join(certificate.reasons)


def end_without_point(status: str, why: str) -> tuple[Status, str]:
    """The same without a point, with what is known of the reason; an infeasible problem is
    explained elsewhere.
    """
    ends = {
        "infeasible": (Status.INFEASIBLE, ""),
        "unbounded": (
            Status.UNBOUNDED,
            "the leader's objective has no bound over the best responses" + (why and f": {why}"),
        ),
        "trouble": (Status.STALLED, "SCIP met numerical trouble that it could not resolve"),
        "stuck": (Status.STALLED, why),
        "interrupted": (Status.INTERRUPTED, "interrupted before a point was found"),
    }
    return ends.get(status, (Status.TIME_LIMIT, "no point was found within the time limit"))
