"""From a structure to a decision: rules among the backends that accept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.structure import Evidence, Structure
from bilevelpy.backends.base import Accept, Reject
from bilevelpy.dispatcher.decision import Decision
from bilevelpy.dispatcher.refusal import nobody, refusal, rejection
from bilevelpy.dispatcher.rule import Rule
from bilevelpy.dispatcher.rules import RULES
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.options import did_you_mean

if TYPE_CHECKING:
    from bilevelpy.backends.base import Backend


def dispatch(
    structure: Structure,
    *,
    backend: str = "auto",
    force: bool = False,
    backends: Sequence[Backend[Any]] | None = None,
) -> Decision:
    """Choose a backend for a structure.

    Parameters
    ----------
    structure
        The facts about the model.
    backend
        A name, or "auto" for the first rule whose backend accepts.
    force
        Take the named backend even where it rejects the model.
    backends
        The backends to choose from; all installed ones by default.

    Raises
    ------
    UsageError
        Where no backend has that name.
    BackendError
        Where no backend accepts the model, or the named one does not.
    """
    if backends is None:
        from bilevelpy.backends.registry import all_backends

        backends = all_backends()
    verdicts = {b.name: b.accepts(structure) for b in backends}
    if backend != "auto" and backend not in verdicts:
        known = sorted(verdicts)
        hint = did_you_mean(backend, known)
        raise UsageError(f"no backend is called `{backend}`{hint}; there are: {', '.join(known)}")
    ranked, winner = _ranking(structure, backends, verdicts)
    if backend != "auto":
        return _named(structure, backend, force, verdicts, ranked)
    if not ranked:
        raise BackendError(nobody(structure, verdicts))
    chosen = verdicts[ranked[0]]
    row, options, why = 0, _prescribed(chosen), [chosen.reason]
    if winner is not None and winner.backend == ranked[0]:
        row, options = winner.row, {**winner.options, **options}
        why.insert(0, winner.reason(structure))
    return _decided(structure, verdicts, ranked, options, why, _warnings(structure, chosen), row)


def _ranking(
    structure: Structure,
    backends: Sequence[Backend[Any]],
    verdicts: Mapping[str, Accept | Reject],
) -> tuple[tuple[str, ...], Rule | None]:
    """The acceptable backends, by the first rule that prefers them, then by cost; and the winning
    rule.
    """
    accepted = [b for b in backends if isinstance(verdicts[b.name], Accept)]
    order: list[str] = []
    winner: Rule | None = None
    names = {b.name for b in accepted}
    for rule in RULES:
        if rule.backend in names and rule.backend not in order and rule.matches(structure):
            winner = winner or rule
            order.append(rule.backend)
    rest = sorted((b for b in accepted if b.name not in order), key=lambda b: _work(b, structure))
    return (*order, *(b.name for b in rest)), winner


def _work(backend: Backend[Any], structure: Structure) -> float:
    """The work of one upper iteration in rough multiples of a lower gradient's flops."""
    cost = backend.cost(structure)
    return cost.gradients + 2.0 * cost.products + cost.flops / max(1.0, float(structure.dim_y) ** 2)


def _named(
    structure: Structure,
    name: str,
    force: bool,
    verdicts: Mapping[str, Accept | Reject],
    ranked: tuple[str, ...],
) -> Decision:
    """The decision for a backend that was asked for."""
    verdict = verdicts[name]
    others = (name, *(r for r in ranked if r != name))
    if isinstance(verdict, Accept):
        rule = next((r for r in RULES if r.backend == name and r.matches(structure)), None)
        options = {**(rule.options if rule is not None else {}), **_prescribed(verdict)}
        why = ["asked for by name", verdict.reason]
        warnings = _warnings(structure, verdict)
        return _decided(structure, verdicts, others, options, why, warnings)
    if not force:
        reason = str(rejection(structure, verdict))
        raise BackendError(refusal(structure, name, verdict, ranked), f"`{name}` {reason}")
    warning = f"`{name}` was forced although it {verdict.reason}: its answer may be wrong"
    warnings = (warning, *_observed(structure))
    return _decided(structure, verdicts, others, {}, ["forced"], warnings, forced=True)


def _decided(
    structure: Structure,
    verdicts: Mapping[str, Accept | Reject],
    ranked: tuple[str, ...],
    options: dict[str, Any],
    why: Sequence[str],
    warnings: tuple[str, ...],
    row: int = 0,
    *,
    forced: bool = False,
) -> Decision:
    """The decision for the first of ``ranked``, with the reasons against all others."""
    against = {
        name: rejection(structure, v) for name, v in verdicts.items() if isinstance(v, Reject)
    }
    rejected = {name: str(r) for name, r in against.items()}
    reasons = tuple(w for w in why if w)
    return Decision(ranked[0], options, reasons, ranked, rejected, warnings, forced, against, row)


def _prescribed(verdict: Accept | Reject) -> dict[str, Any]:
    return dict(verdict.options) if isinstance(verdict, Accept) else {}


def _warnings(structure: Structure, verdict: Accept | Reject) -> tuple[str, ...]:
    own = verdict.warnings if isinstance(verdict, Accept) else ()
    return (*own, *_observed(structure))


def _observed(structure: Structure) -> tuple[str, ...]:
    """Facts that choose a backend though they were only seen or declared."""
    found = []
    convexity = structure.convexity
    if convexity.evidence is Evidence.OBSERVED and convexity.value == "strongly convex":
        found.append(
            f"the lower level looks strongly convex ({convexity.reason}): observed, not proved"
        )
    unique = structure.unique
    if convexity.value != "strongly convex" and unique.value:
        if unique.evidence is Evidence.DECLARED:
            found.append("that the lower solution is unique is assumed, not proved")
        elif unique.evidence is Evidence.OBSERVED:
            found.append(f"{unique.reason}: observed, not proved")
    upper = structure.upper.smooth
    if not upper.value:
        found.append(
            f"the upper objective is not smooth ({upper.reason}): steps may stall at kinks"
        )
    smooth = structure.lower.smooth
    if smooth.value and "jumps" in smooth.reason:
        found.append(
            f"the lower objective has {smooth.reason}: derivatives of the response can jump"
        )
    return tuple(found)
