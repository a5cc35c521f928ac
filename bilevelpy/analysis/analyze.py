"""From a bound program to its :class:`~bilevelpy.analysis.structure.Structure`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.analysis.bounds.signs import Signs
from bilevelpy.analysis.convexity.corner import is_least
from bilevelpy.analysis.convexity.judge import Judge
from bilevelpy.analysis.curvature import STRONGLY, LevelVerdict, combine, judge_level
from bilevelpy.analysis.declared import declared_facts, negative, refute
from bilevelpy.analysis.feasible import (
    coupling_fact,
    discrete_fact,
    domain_word,
    domains_fact,
    nonaffine,
    parts,
    row_count,
)
from bilevelpy.analysis.forms.epigraphs import epigraphs_fact
from bilevelpy.analysis.forms.form import Forms, form_fact, hessian_fact
from bilevelpy.analysis.forms.predictors import hessian_passes
from bilevelpy.analysis.forms.scope import make_scope, names_of
from bilevelpy.analysis.forms.separable import block_axes, block_count, finite_sums, longest_sum
from bilevelpy.analysis.forms.smooth import is_analytic, pieces_fact, smooth_fact
from bilevelpy.analysis.forms.terms import split
from bilevelpy.analysis.messages import curvature_warnings
from bilevelpy.analysis.probing.adapt import as_probe
from bilevelpy.analysis.probing.probe import DENSE, Probe, ProbeOracle, probe
from bilevelpy.analysis.steps import steps_fact
from bilevelpy.analysis.structure import Evidence, Fact, LevelFacts, Structure
from bilevelpy.analysis.unsupported import unsupported_facts, unsupported_tags
from bilevelpy.errors import ModelError
from bilevelpy.ir.expr import Expr, ExternCall
from bilevelpy.ir.mapped import budget, streamed_bytes
from bilevelpy.ir.walk import place, postorder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bilevelpy.ir.program import BoundProgram, Level
    from bilevelpy.ir.types import Axis


# Models that have no smooth functions on sets with a projection are judged by their text alone.
UNPROBED = frozenset({"single_level", "nash", "duals", "discrete", "psd", "moving_bounds"})
# Of these, what the upper level may ask for where a constant Hessian below still says everything.
ABOVE = frozenset({"duals", "discrete"})
MATRICES = frozenset({"psd"})


def analyze(
    bound: BoundProgram,
    oracle: ProbeOracle | Callable[[], Any] | Any | None = None,
    *,
    lower: Any | None = None,
    seed: int = 0,
) -> Structure:
    """Find the facts that decide how a model is solved.

    Parameters
    ----------
    bound
        The program with its data.
    oracle
        The bound model as functions, for facts that need numbers: of NumPy vectors, an oracle of
        tensors, or a function that makes one and is called only where points can be probed. Without
        it only what the text (and the signs of the data) shows is found.
    lower
        The same of the lower level alone, for models whose upper level reads multipliers or decides
        whole numbers: a constant Hessian shows everything at one point.
    seed
        Seed of the points that are probed.

    Raises
    ------
    ModelError
        Where a probed point contradicts an assumption of the model (BLV0504).

    """
    program = bound.program
    upper, lowers = program.upper, program.lowers
    signs = Signs(bound)
    low = lower_forms(bound)
    high = _forms(bound, (upper,), below=False)
    objectives = [level.objective for level in lowers]
    hessian = hessian_fact(low, objectives)
    smooth = smooth_fact(low, signs.measured, objectives, "lower")
    levels = [
        judge_level(low, signs, level, declared_facts(signs.measured, level)) for level in lowers
    ]
    wrong = negative(fact for v in levels for fact in v.declared.values())
    if wrong:
        raise ModelError(wrong, program.sources)
    constant = hessian.value == "constant"
    coupling = coupling_fact(upper, lowers)
    quadratic = hessian.value in ("constant", "depends on x")
    seen: Probe | None = None
    bands: Fact[tuple[int, int]] | None = None
    tags = UNPROBED & unsupported_tags(program)
    if tags == MATRICES and constant and smooth.value:
        # Its Hessian on symmetric matrices says what no term alone says.
        oracle = oracle if _dimension(bound, lowers) <= DENSE else None
    elif tags:
        oracle = lower if tags <= ABOVE and constant and smooth.value else None
    if oracle is not None:
        made = oracle() if callable(oracle) else oracle
        bands = None if tags else _bands_fact(made)
        seen = _probed(made, seed, low, signs, levels, hessian, smooth)
        _refute(bound, levels, seen, constant)
    curvature = combine(levels, seen, constant, quadratic, is_analytic(smooth))
    below = LevelFacts(
        form=form_fact(low, objectives, "lower"),
        domains=domains_fact(lowers),
        constraints=_constraints_fact(low, signs, lowers),
        smooth=smooth,
        discrete=discrete_fact(lowers, "lower"),
    )
    unique = _on_its_set(curvature.unique, below)
    sums = (low.scope, objectives, _own_axes(lowers), _own_axes((program.upper,)))
    warnings = curvature_warnings(program, levels, curvature.convexity)
    steps = steps_fact(bound, signs.measured)
    return Structure(
        model=program.name,
        dim_x=_dimension(bound, (upper,)),
        dim_y=_dimension(bound, lowers),
        upper_constraints=row_count(high.scope, (upper,)),
        lower_constraints=row_count(low.scope, lowers),
        followers=sum(low.scope.count(level.family) for level in lowers),
        upper=LevelFacts(
            form=form_fact(high, [upper.objective], "upper and lower"),
            domains=domains_fact((upper,)),
            constraints=_constraints_fact(high, signs, (upper,)),
            smooth=smooth_fact(high, signs.measured, [upper.objective], "upper and lower"),
            discrete=discrete_fact((upper,), "upper"),
        ),
        lower=below,
        convexity=curvature.convexity,
        modulus=curvature.modulus,
        lipschitz=curvature.lipschitz,
        unique=unique,
        lower_hessian=hessian,
        block_separable=block_axes(bound, lowers),
        finite_sum_lower=finite_sums(*sums),
        finite_sum_upper=finite_sums(high.scope, [upper.objective], _own_axes(program.levels)),
        coupling=coupling,
        externs=_externs_fact(bound),
        stance=str(program.stance),
        unsupported=unsupported_facts(program, coupling, unique, steps),
        warnings=warnings,
        spectrum=curvature.spectrum,
        by_text=curvature.by_text,
        hessian_passes=hessian_passes(bound),
        streamed=_streamed_fact(bound, oracle),
        statistics=_statistics_fact(oracle),
        steps=steps,
        bands=bands,
        pieces=pieces_fact(low, signs.measured, objectives),
        epigraphs=None if smooth.value else epigraphs_fact(low, signs, program),
        longest_sum=longest_sum(*sums),
        sources=program.sources,
        blocks=block_count(bound, lowers),
    )


def lower_forms(bound: BoundProgram) -> Forms:
    """Profiles of the followers' expressions in y, for fixed x."""
    return _forms(bound, bound.program.lowers, below=True)


def _forms(bound: BoundProgram, levels: tuple[Level, ...], below: bool) -> Forms:
    """Profiles of a level's expressions: the lower one in y for fixed x, the upper one in both."""
    program = bound.program
    roots: list[Expr] = [level.objective for level in levels]
    roots += [t for level in levels for c in level.constraints for t in c.terms]
    x, y = names_of((program.upper,)), names_of(program.lowers)
    return Forms(make_scope(bound, roots, y if below else x | y, x if below else frozenset()))


def _own_axes(levels: tuple[Level, ...]) -> frozenset[Axis]:
    return frozenset(axis for level in levels for v in level.variables for axis in v.axes)


def _dimension(bound: BoundProgram, levels: tuple[Level, ...]) -> int:
    sizes = bound.data.sizes
    return sum(math.prod(sizes[a] for a in v.axes) for level in levels for v in level.variables)


def _constraints_fact(forms: Forms, signs: Signs, levels: tuple[Level, ...]) -> Fact[str]:
    """none, bounds, linear, convex or nonconvex."""
    rows = [c for level in levels for c in level.constraints]
    if not rows:
        domains = domains_fact(levels)
        if domains.value <= {"free"}:
            return Fact("none", Evidence.PROVED, "no constraints, every variable is free")
        return Fact("bounds", Evidence.PROVED, f"no constraints, {domains.reason}", domains.span)
    curved = nonaffine(forms, levels)
    if not curved:
        reason = f"every constraint is affine, first `{rows[0].name}`"
        return Fact("linear", Evidence.PROVED, reason, rows[0].span)
    judge = Judge(forms, signs)
    for c in curved:
        for left, right, equal in parts(c):
            terms = [*split(forms.scope, left), *split(forms.scope, right, -1.0)]
            bad = [v for v in map(judge.judge, terms) if not v.convex]
            if bad or (equal and not (forms.is_affine(left) and forms.is_affine(right))):
                why = bad[0].why if bad else "an equation that is not affine"
                reason = f"`{c.name}` is not known to describe a convex set: {why}"
                return Fact("nonconvex", Evidence.PROVED, reason, c.span or place(left))
    return Fact("convex", Evidence.PROVED, f"`{curved[0].name}` is convex", curved[0].span)


def _on_its_set(unique: Fact[bool | None], lower: LevelFacts) -> Fact[bool | None]:
    """What curvature says of uniqueness, where the set is convex: others leave minimisers apart."""
    if not unique.value or unique.evidence is Evidence.DECLARED:
        return unique
    if lower.discrete.value:
        reason = "several whole numbers may be equally near to the minimiser in real numbers"
        return Fact(None, Evidence.PROVED, reason, lower.discrete.span)
    if lower.constraints.value == "nonconvex":
        return Fact(None, Evidence.PROVED, lower.constraints.reason, lower.constraints.span)
    return unique


def _externs_fact(bound: BoundProgram) -> Fact[tuple[str, ...]]:
    roots = [
        e
        for level in bound.program.levels
        for e in (level.objective, *(t for c in level.constraints for t in c.terms))
    ]
    calls = [n for n in postorder(roots) if isinstance(n, ExternCall)]
    names = tuple(sorted({c.name for c in calls}))
    if not names:
        return Fact((), Evidence.PROVED, "no extern function is used")
    return Fact(names, Evidence.PROVED, f"uses {', '.join(names)}", place(calls[0]))


def _bands_fact(oracle: Any) -> Fact[tuple[int, int]] | None:
    """The band that f_yy lies in, where it is narrow."""
    found = getattr(oracle, "bands", None)
    if found is None:
        return None
    border = found.border.size
    beside = f" beside a border of {border}" if border else ""
    return Fact(
        (found.products, found.width),
        Evidence.PROVED,
        f"f_yy is a band of {found.width:,} diagonals below the main one{beside}, read off "
        f"{found.products} products",
    )


def _streamed_fact(bound: BoundProgram, oracle: Any) -> Fact[int] | None:
    """Bytes of data that memory does not hold and that evaluations read."""
    if getattr(oracle, "summary", None) is not None:
        bound = oracle.bound
    size = streamed_bytes(bound.data.arrays.values())
    if not size:
        return None
    reason = f"{size / 1e9:.3g} GB of data stay in files: memory may take {budget() / 1e9:.3g} GB"
    return Fact(size, Evidence.PROVED, reason)


def _statistics_fact(oracle: Any) -> Fact[int] | None:
    """Numbers that stand for the rows of files."""
    summary = getattr(oracle, "summary", None)
    if summary is None:
        return None
    names = ", ".join(f"`{name}`" for name in summary.names)
    reason = (
        f"sums of squares over the rows of {names} are {summary.numbers:,} numbers from two "
        f"passes; the rows at two points differ from them by {summary.error:.0e}"
    )
    return Fact(summary.numbers, Evidence.OBSERVED, reason)


def _probed(
    oracle: Any,
    seed: int,
    forms: Forms,
    signs: Signs,
    levels: Sequence[LevelVerdict],
    hessian: Fact[str],
    smooth: Fact[bool],
) -> Probe:
    """What the functions show at points, as far as the text has not settled it."""
    constant, quadratic = hessian.value == "constant", hessian.value in ("constant", "depends on x")
    settled = all(
        v.kind == STRONGLY and v.evidence is Evidence.PROVED and not v.declared for v in levels
    )
    with as_probe(oracle) as functions:
        wanted = quadratic and smooth.value and not constant and not settled
        return probe(
            functions,
            np.random.default_rng(seed),
            constant=constant and smooth.value,
            curvature=smooth.value,
            settled=settled,
            quadratic=quadratic,
            corner=_corner(functions, forms, signs, levels) if wanted else None,
        )


def _corner(
    functions: Any, forms: Forms, signs: Signs, levels: Sequence[LevelVerdict]
) -> np.ndarray | None:
    """The upper variables where f_yy is least, if that is at their lower bounds; assumptions are
    to be tried at points.
    """
    if len(levels) != 1 or levels[0].declared or not hasattr(functions, "lowest_x"):
        return None
    found = functions.lowest_x()
    if found is None or not is_least(forms.scope, signs.measured, levels[0].verdicts, found[1]):
        return None
    return np.asarray(found[0])


def _refute(bound: BoundProgram, levels: list[LevelVerdict], seen: Probe, constant: bool) -> None:
    """Raise where a probed point contradicts an assumption; followers are probed together, so all
    must declare it.
    """
    exact = constant and bool(seen.spectra) and seen.spectra[0].exact
    names = set.intersection(*(set(v.declared) for v in levels)) if levels else set()
    facts = [v.declared[name] for v in levels[:1] for name in sorted(names)]
    if len(levels) > 1:
        # Which follower is to blame is not known from the sum: blame the weakest statement.
        facts = [
            min((v.declared[name] for v in levels), key=lambda d: d.value or 0.0)
            for name in sorted(names)
        ]
    free = all(
        not v.level.constraints and all(domain_word(y.domain) == "free" for y in v.level.variables)
        for v in levels
    )
    errors = refute(facts, seen, exact, free)
    if errors:
        raise ModelError(errors, bound.program.sources)
