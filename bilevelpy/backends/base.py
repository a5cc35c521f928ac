"""What a backend is: acceptance, cost, and three functions that the driver calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeVar

import torch

from bilevelpy.analysis.structure import Fact, Structure
from bilevelpy.lowering.protocol import Oracle
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.options import BackendOptions

Vec = torch.Tensor
State = TypeVar("State")


@dataclass(frozen=True, slots=True)
class Accept:
    """The backend can solve the model; ``warnings`` say what its theory does not cover, ``options``
    what the model prescribes.
    """

    reason: str = ""
    warnings: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Reject:
    """The backend must not be used: one sentence, and the fact that decides."""

    reason: str
    fact: Fact[Any] | None = None

    def __bool__(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Cost:
    """Rough work of one upper iteration: lower gradients, Hessian products, dense flops, and
    memory in bytes.
    """

    gradients: float
    products: float
    flops: float = 0.0
    memory: float = 0.0


class Backend(Protocol[State]):
    """An algorithm. ``init`` makes a state, ``step`` returns the next one, ``measure`` reads it;
    no loop inside.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reference: ClassVar[str]
    options: ClassVar[type[BackendOptions]]

    def accepts(self, structure: Structure) -> Accept | Reject:
        """Whether the theory of the method covers a model with these facts."""
        ...

    def cost(self, structure: Structure) -> Cost:
        """Rough work of one upper iteration."""
        ...

    def init(self, oracle: Oracle, x: Vec, y: Vec, options: Any, rng: torch.Generator) -> State:
        """The state at the start."""
        ...

    def step(self, oracle: Oracle, state: State, options: Any) -> State:
        """The state after one upper iteration; it may be the same object."""
        ...

    def measure(self, oracle: Oracle, state: State) -> Measure:
        """The state in numbers."""
        ...


# What no gradient backend can take, in the words of its refusal.
_REFUSALS = {
    "single_level": "needs a lower level",
    "lower_constraints": "does not take constraints in the lower level",
    "upper_constraints": "does not take constraints in the upper level",
    "coupling": "does not take constraints that couple both levels",
    "duals": "does not compute multipliers of the lower level",
    "reported_duals": "does not compute multipliers of the lower level",
    "nash": "does not solve games between followers",
    "steps": "solves the lower level, whose answer is declared to be the end of some steps",
    "discrete": "needs continuous variables",
    "psd": "does not take positive semidefinite domains",
    "pessimistic": "takes the lower solution as it is, not the worst one",
}


def refuse_common(structure: Structure, *, matrices: bool = False) -> Reject | None:
    """Reject what every smooth implicit backend must: constraints, integers, nonsmooth or
    nonconvex lower levels; semidefinite variables unless ``matrices``.

    Implicit differentiation needs a unique, smooth response; with a merely convex lower level it
    converges to a point that is not a solution.
    """
    s = structure
    for key, fact in s.unsupported.items():
        if key == "psd" and matrices:
            continue
        return Reject(_REFUSALS.get(key, "does not take this kind of model"), fact)
    if s.lower.discrete.value or s.upper.discrete.value:
        return Reject(
            _REFUSALS["discrete"], s.lower.discrete if s.lower.discrete.value else s.upper.discrete
        )
    if s.coupling.value:
        return Reject(_REFUSALS["coupling"], s.coupling)
    for level, count, key in (
        (s.upper, s.upper_constraints, "upper"),
        (s.lower, s.lower_constraints, "lower"),
    ):
        if count or level.constraints.value not in ("none", "bounds"):
            return Reject(_REFUSALS[f"{key}_constraints"], level.constraints)
        if "psd" in level.domains.value and not matrices:
            return Reject(_REFUSALS["psd"], level.domains)
    if s.stance == "pessimistic" and not s.unique.value:
        return Reject(_REFUSALS["pessimistic"], s.unique)
    if not s.lower.smooth.value:
        return Reject("needs a lower objective with two derivatives", s.lower.smooth)
    if s.convexity.value == "nonconvex":
        return Reject("needs a strongly convex lower level", s.convexity)
    if s.convexity.value != "strongly convex" and not s.unique.value:
        return Reject(
            "needs a unique lower solution (strongly convex, or `assume unique`)", s.convexity
        )
    return None
