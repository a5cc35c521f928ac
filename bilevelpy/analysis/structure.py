"""The facts about a model that decide how it is solved, each with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Generic, TypeVar

from bilevelpy.diagnostics import Source, Span

T = TypeVar("T")


class Evidence(StrEnum):
    """How sure a fact is: derived from the text, said by the user, or seen at sampled points."""

    PROVED = "proved"
    DECLARED = "declared"
    OBSERVED = "observed"


@dataclass(frozen=True, slots=True)
class Fact(Generic[T]):
    """A value, how it is known, one sentence why, and the place in the model that makes it so."""

    value: T
    evidence: Evidence
    reason: str
    span: Span | None = None


@dataclass(frozen=True, slots=True)
class LevelFacts:
    """What is known of one level (for the lower: of all followers together, in their variables y).

    ``form`` is "linear", "quadratic", "polynomial", "nonlinear" or "unknown" in the level's own
    variables; ``domains`` the kinds of variable domains present (subset of free, box, simplex,
    ball, psd, discrete); ``constraints`` "none", "bounds" (every domain with a cheap projection),
    "linear", "convex", "nonconvex".
    """

    form: Fact[str]
    domains: Fact[frozenset[str]]
    constraints: Fact[str]
    smooth: Fact[bool]
    discrete: Fact[bool]

    @property
    def is_flat(self) -> bool:
        """Whether the faces of the variables' set are flat: it has free, box and simplex parts."""
        return self.domains.value <= {"free", "box", "simplex"}


@dataclass(frozen=True, slots=True)
class Epigraphs:
    """What takes the place of kinks: further lower variables and rows; ``form`` is the class of the
    objective that they leave, as in :class:`LevelFacts`.
    """

    variables: int
    rows: int
    form: str

    def __str__(self) -> str:
        return f"{self.variables:,} variables, {self.rows:,} rows"


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything the dispatcher may look at. Dimensions count every scalar of a family.

    ``convexity`` is "strongly convex", "convex", "nonconvex" or "unknown" (of the minimisation that
    the lower stands for, in y for fixed x), ``by_text`` what was known of it before curvatures at
    points were seen; ``modulus`` the strong-convexity modulus mu over the
    upper domain (or at the sampled points), ``lipschitz`` the gradient's constant L there;
    ``lower_hessian`` says how f_yy moves: "constant", "depends on x", "depends on y" or "depends on
    both"; ``block_separable`` names the axes over which f falls into independent blocks;
    ``finite_sum_lower`` / ``_upper`` the data axes that objectives average over, ``longest_sum``
    the number of terms along the longest of the lower ones. ``unsupported``
    holds, for what cannot be solved yet (constraints, duals in the upper level, Nash followers,
    integers, pessimistic stance, ...), one fact each with a sentence and a span; keys are short
    tags such as "lower_constraints", "upper_constraints", "coupling", "duals",
    "reported_duals" (read by reports alone), "nash", "discrete",
    "psd", "pessimistic", "single_level", "moving_bounds", "steps". ``steps`` holds the number and
    the length of the lower gradient steps whose end is declared to be the answer; ``bands`` the
    products that a sparse f_yy takes and the diagonals below its main one in a good order.
    ``spectrum`` holds the least and the greatest curvature of f seen at the start (``modulus``
    covers the whole upper domain and can be far smaller); ``hessian_passes`` the passes that a
    dense f_yy takes where f is a function of affine predictors; ``streamed`` the bytes of data that
    stay in files because memory does not hold them and that evaluations read (None: none do);
    ``statistics`` the numbers that stand for the rows of files where objectives are quadratic in
    them (:mod:`bilevelpy.lowering.sums.statistics`); ``pieces`` counts the
    kinks of f where all are those of ``abs``, ``max`` and the like of affine expressions;
    ``epigraphs`` says what rows in their place take, where that leaves f as it is;
    ``sources`` are the texts that spans point at.
    """

    model: str
    dim_x: int
    dim_y: int
    upper_constraints: int
    lower_constraints: int
    followers: int
    upper: LevelFacts
    lower: LevelFacts
    convexity: Fact[str]
    modulus: Fact[float | None]
    lipschitz: Fact[float | None]
    unique: Fact[bool | None]
    lower_hessian: Fact[str]
    block_separable: Fact[tuple[str, ...]]
    finite_sum_lower: Fact[tuple[str, ...]]
    finite_sum_upper: Fact[tuple[str, ...]]
    coupling: Fact[bool]
    externs: Fact[tuple[str, ...]]
    stance: str
    unsupported: Mapping[str, Fact[str]] = field(default_factory=dict)
    warnings: tuple[Any, ...] = ()
    spectrum: Fact[tuple[float, float] | None] | None = None
    hessian_passes: Fact[int | None] | None = None
    streamed: Fact[int] | None = None
    statistics: Fact[int] | None = None
    steps: Fact[tuple[int, float]] | None = None
    bands: Fact[tuple[int, int]] | None = None
    pieces: Fact[int] | None = None
    epigraphs: Fact[Epigraphs] | None = None
    longest_sum: int = 0
    sources: Mapping[str, Source] = field(default_factory=dict, repr=False)
    blocks: int = 1
    by_text: Fact[str] | None = None

    def __str__(self) -> str:
        from bilevelpy.markup import plain

        return plain.structure(rows_of(self))

    def _repr_html_(self) -> str:
        from bilevelpy.markup import fragments

        return fragments.structure(rows_of(self))

    @property
    def is_convex(self) -> bool:
        """Whether the lower level is convex, if only at the points that were seen."""
        return self.convexity.value in ("convex", "strongly convex")

    @property
    def has_one_response(self) -> bool:
        """Whether the response to each x is taken for the only one."""
        return self.convexity.value == "strongly convex" or bool(self.unique.value)

    @property
    def is_known_convex(self) -> bool:
        """Whether the lower level is proved or declared convex: more than points have shown."""
        return any(
            shape is not None
            and shape.value in ("convex", "strongly convex")
            and shape.evidence is not Evidence.OBSERVED
            for shape in (self.convexity, self.by_text)
        )

    @property
    def condition(self) -> float | None:
        """The condition number of f_yy: at the start where that was seen, else ``L / mu`` where
        both are known.
        """
        if (
            self.spectrum is not None
            and self.spectrum.value is not None
            and self.spectrum.value[0] > 0
        ):
            low, high = self.spectrum.value
            return high / low
        mu, top = self.modulus.value, self.lipschitz.value
        return top / mu if mu and top else None

    @property
    def likely_condition(self) -> float:
        """The condition number that costs are reckoned with: 100 where none is known, and no more
        than 1e8, where all methods end.
        """
        return min(self.condition or 100.0, 1e8)


def facts_of(structure: Structure) -> list[tuple[str, Fact[Any]]]:
    """Every fact with its label, in reading order."""
    s = structure
    rows: list[tuple[str, Fact[Any] | None]] = [
        ("lower class", s.lower.form),
        ("lower convexity", _convexity(s)),
        ("lower modulus", s.modulus),
        ("lower Lipschitz constant", s.lipschitz),
        ("lower curvature at the start", s.spectrum),
        ("lower smooth", s.lower.smooth),
        ("lower kinks as rows", s.epigraphs),
        ("lower unique", s.unique),
        ("lower Hessian", s.lower_hessian),
        ("lower Hessian passes", s.hessian_passes),
        ("lower Hessian bands", s.bands),
        ("lower constraints", s.lower.constraints),
        ("lower blocks", s.block_separable),
        ("lower sum over", s.finite_sum_lower),
        ("upper class", s.upper.form),
        ("upper smooth", s.upper.smooth),
        ("upper constraints", s.upper.constraints),
        ("upper sum over", s.finite_sum_upper),
        ("coupling constraints", s.coupling),
        ("externs", s.externs),
        ("bytes in files", s.streamed),
        ("numbers for rows of files", s.statistics),
    ]
    rows += [(f"needs: {key.replace('_', ' ')}", fact) for key, fact in s.unsupported.items()]
    return [(label, fact) for label, fact in rows if fact is not None]


def _convexity(s: Structure) -> Fact[str]:
    """A follower with whole numbers is not convex: what the analysis says is about its relaxation,
    in which they are real.
    """
    if not s.lower.discrete.value:
        return s.convexity
    reason = f"{s.lower.discrete.reason}; without that: {s.convexity.reason}"
    return replace(
        s.convexity, value=f"mixed-integer; relaxation {s.convexity.value}", reason=reason
    )


def place_words(span: Span | None, sources: Mapping[str, Source]) -> str:
    """``file:line``, or an empty string."""
    if span is None or span.file not in sources:
        return ""
    line, _ = sources[span.file].position(span.start)
    return f"{sources[span.file].name}:{line}"


def value_words(value: object) -> str:
    """A fact's value in words."""
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, tuple):
        if value and all(isinstance(v, float) for v in value):
            return " to ".join(f"{v:.4g}" for v in value)
        return ", ".join(str(v) for v in value) or "none"
    return str(value)


def rows_of(structure: Structure) -> list[tuple[str, str, str, str, str]]:
    """Name, value, evidence, reason and place of every fact that says something."""
    return [
        (name, value_words(f.value), str(f.evidence), f.reason, place)
        for name, f in facts_of(structure)
        if value_words(f.value) != "none" or name.endswith("constraints")
        for place in [place_words(f.span, structure.sources)]
    ]
