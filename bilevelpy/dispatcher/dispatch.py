"""From a structure to a decision: rules among the backends that accept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bilevelpy.analysis.structure import Evidence, Structure
from bilevelpy.backends.base import Accept, Reject
from bilevelpy.diagnostics import Diagnostic, diagnostic
from bilevelpy.dispatcher.decision import Decision
from bilevelpy.dispatcher.rules import RULES, Rule
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
    BackendError
        Where no backend accepts the model, or the named one does not.
    """
    if backends is None:
        from bilevelpy.backends.registry import all_backends

        backends = all_backends()
    verdicts = {b.name: b.accepts(structure) for b in backends}
    rejected = {name: _reason(v) for name, v in verdicts.items() if isinstance(v, Reject)}
    ranked, rule = _ranking(structure, backends, verdicts)
    if backend != "auto":
        return _named(structure, backend, force, verdicts, ranked, rejected)
    if not ranked:
        raise BackendError(_render(_nobody(structure, verdicts), structure))
    chosen = ranked[0]
    options = dict(rule.options) if rule is not None and rule.backend == chosen else {}
    why = [_words(rule, structure)] if rule is not None and rule.backend == chosen else []
    why += [verdicts[chosen].reason]
    return Decision(
        chosen,
        options,
        tuple(w for w in why if w),
        ranked,
        rejected,
        _warnings(structure, verdicts[chosen]),
    )


def _ranking(
    structure: Structure, backends: Sequence[Backend[Any]], verdicts: dict[str, Accept | Reject]
) -> tuple[tuple[str, ...], Rule | None]:
    """The acceptable backends, by the first rule that prefers them, then by cost; and the winning
    rule.
    """
    accepted = [b for b in backends if isinstance(verdicts[b.name], Accept)]
    matching = [r for r in RULES if r.when(structure)]
    order: list[str] = []
    winner: Rule | None = None
    names = {b.name for b in accepted}
    for rule in matching:
        if rule.backend in names and rule.backend not in order:
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
    verdicts: dict[str, Accept | Reject],
    ranked: tuple[str, ...],
    rejected: dict[str, str],
) -> Decision:
    if name not in verdicts:
        known = sorted(verdicts)
        hint = did_you_mean(name, known)
        raise UsageError(f"no backend is called `{name}`{hint}; there are: {', '.join(known)}")
    verdict = verdicts[name]
    others = (name, *(r for r in ranked if r != name))
    if isinstance(verdict, Accept):
        options = next(
            (dict(r.options) for r in RULES if r.backend == name and r.when(structure)), {}
        )
        why = ("asked for by name", verdict.reason) if verdict.reason else ("asked for by name",)
        return Decision(name, options, why, others, rejected, _warnings(structure, verdict))
    if not force:
        raise BackendError(_render(_refusal(structure, name, verdict, ranked), structure))
    warning = f"`{name}` was forced although it {verdict.reason}: its answer may be wrong"
    return Decision(
        name, {}, ("forced",), others, rejected, (warning, *_observed(structure)), forced=True
    )


def _reason(verdict: Reject) -> str:
    """The rejection with the fact that decides it."""
    return f"{verdict.reason} ({verdict.fact.reason})" if verdict.fact else verdict.reason


def _words(rule: Rule | None, structure: Structure) -> str:
    if rule is None:
        return ""
    return rule.why.format(m=structure.dim_y, n=structure.dim_x, kappa=structure.condition or 0.0)


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
    if convexity.value != "strongly convex" and structure.unique.evidence is Evidence.DECLARED:
        found.append("that the lower solution is unique is assumed, not proved")
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


def _nobody(structure: Structure, verdicts: dict[str, Accept | Reject]) -> Diagnostic:
    """BLV0601 at the fact that most backends name."""
    rejects = [(n, v) for n, v in verdicts.items() if isinstance(v, Reject)]
    facts = [v.fact for _, v in rejects if v.fact is not None]
    placed = [f for f in facts if f.span is not None]
    deciding = next(iter([*placed, *facts]), None)
    width = max((len(n) for n, _ in rejects), default=0)
    table = "\n".join(f"{n.ljust(width)}  {v.reason}" for n, v in rejects)
    notes = [table] if table else ["there is no backend"]
    if deciding is not None and deciding.span is None:
        notes.insert(0, deciding.reason)
    span = deciding.span if deciding is not None else None
    label = deciding.reason if deciding is not None else ""
    return diagnostic("BLV0601", span, label, notes=tuple(notes), hint=_hint(structure))


def _hint(structure: Structure) -> str | None:
    """What the modeller can do about the deciding fact."""
    keys = tuple(structure.unsupported)
    if keys:
        return _HINTS.get(keys[0])
    if structure.convexity.value == "convex":
        return (
            "add a term such as 1e-6*sumsq(y), or write `assume unique;` if the solution is unique"
        )
    if structure.convexity.value == "unknown":
        return "if you know better, write `assume strongly_convex(mu);` in the lower level"
    return None


_HINTS = {
    "single_level": "declare a `lower` level, or use a general optimiser for a model of one level",
    "upper_constraints": "write bounds of upper variables as domains: `var x in [lo, hi]`",
    "lower_constraints": "write bounds of lower variables as domains: `var y in [lo, hi]`",
    "pessimistic": "the stances agree where the lower level is strongly convex",
}


def _refusal(
    structure: Structure, name: str, verdict: Reject, ranked: tuple[str, ...]
) -> Diagnostic:
    """BLV0602 at the fact that the named backend rejects."""
    fact = verdict.fact
    span, label = (fact.span, fact.reason) if fact is not None else (None, "")
    notes = [f"`{name}` {verdict.reason}"]
    if fact is not None and fact.span is None:
        notes.append(fact.reason)
    hint = (
        f"`{ranked[0]}` accepts it" if ranked else "no other backend accepts it either"
    ) + "; `force` runs it all the same"
    return diagnostic("BLV0602", span, label, notes=tuple(notes), hint=hint, backend=name)


def _render(found: Diagnostic, structure: Structure) -> str:
    from bilevelpy.diagnostics.render import render_full

    return render_full(found, structure.sources)
