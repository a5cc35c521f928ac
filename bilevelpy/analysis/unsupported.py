"""What a model asks for beyond smooth bilevel problems over simple sets, one fact each."""

from __future__ import annotations

from collections.abc import Sequence

from bilevelpy.analysis.feasible import domain_word
from bilevelpy.analysis.structure import Evidence, Fact
from bilevelpy.diagnostics import Span
from bilevelpy.ir.expr import DualRef, Expr
from bilevelpy.ir.program import Level, Program
from bilevelpy.ir.types import Stance
from bilevelpy.ir.walk import place, postorder


def unsupported_facts(
    program: Program,
    coupling: Fact[bool],
    unique: Fact[bool | None],
    steps: Fact[tuple[int, float]] | None = None,
) -> dict[str, Fact[str]]:
    """The facts by tag, in the order in which a refusal names them: what shapes the model most
    comes first.
    """
    found: dict[str, Fact[str]] = {}
    upper, lowers = program.upper, program.lowers
    if not lowers:
        found["single_level"] = _fact(
            "there is no lower level: the model has one level only", upper.span
        )
    for level in lowers:
        if level.nash:
            found["nash"] = _fact(f"the followers of `{level.name}` play a Nash game", level.span)
            break
    if steps is not None:
        found["steps"] = Fact(steps.reason, steps.evidence, steps.reason, steps.span)
    read, told = _first_dual(_above(program)), _first_dual(_reported(program))
    dual = read or told
    if dual is not None:
        # A leader who reacts to prices is another matter than one who is told of them.
        found["duals" if read is not None else "reported_duals"] = _fact(
            f"the shadow price of `{dual.level}.{dual.constraint}` is read", place(dual)
        )
    _domains(found, (upper, *lowers))
    _moving_bounds(found, program)
    if coupling.value:
        found["coupling"] = Fact("coupling", coupling.evidence, coupling.reason, coupling.span)
    elif upper.constraints:
        first = upper.constraints[0]
        found["upper_constraints"] = _fact(
            f"the upper level has the constraint `{first.name}`", first.span
        )
    for level in lowers:
        if level.constraints:
            first = level.constraints[0]
            found["lower_constraints"] = _fact(
                f"the lower level `{level.name}` has the constraint `{first.name}`", first.span
            )
            break
    if program.stance is Stance.PESSIMISTIC and not unique.value:
        found["pessimistic"] = _fact(
            "the leader is pessimistic and lower solutions may not be unique", upper.span
        )
    return found


def unsupported_tags(program: Program) -> frozenset[str]:
    """The tags that the text alone decides."""
    nothing: Fact[bool] = Fact(False, Evidence.PROVED, "")
    return frozenset(unsupported_facts(program, nothing, Fact(True, Evidence.PROVED, "")))


def _fact(reason: str, span: Span | None) -> Fact[str]:
    return Fact(reason, Evidence.PROVED, reason, span)


def _above(program: Program) -> list[Expr]:
    """What the leader reads."""
    rows = (t for c in program.upper.constraints for t in c.terms)
    return [program.upper.objective, *rows]


def _reported(program: Program) -> list[Expr]:
    return [r.value for r in program.reports.values()]


def _first_dual(roots: list[Expr]) -> DualRef | None:
    return next((n for n in postorder(roots) if isinstance(n, DualRef)), None)


def _domains(found: dict[str, Fact[str]], levels: Sequence[Level]) -> None:
    for level in levels:
        side = "upper" if level.name == "upper" else "lower"
        for v in level.variables:
            word = domain_word(v.domain)
            span = v.domain.span or v.span
            if word == "discrete":
                found.setdefault("discrete", _fact(f"discrete {side} variable `{v.name}`", span))
            elif word == "psd":
                found.setdefault(
                    "psd",
                    _fact(f"{side} variable `{v.name}` is a positive semidefinite matrix", span),
                )


def _moving_bounds(found: dict[str, Fact[str]], program: Program) -> None:
    for level in program.levels:
        for v in level.variables:
            ends = (v.domain.lower, v.domain.upper, v.domain.radius)
            if any(e is not None and not program.builder.is_data(e) for e in ends):
                reason = f"a bound of `{v.name}` depends on variables"
                found.setdefault("moving_bounds", _fact(reason, v.domain.span or v.span))
