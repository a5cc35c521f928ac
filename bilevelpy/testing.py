"""The conformance suite for backends: problems with known answers, and the promises of the
protocol.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from bilevelpy import api, solving
from bilevelpy.analysis.structure import Structure
from bilevelpy.backends.base import Accept, Backend, Reject
from bilevelpy.errors import UsageError
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.certificate import certify, settle
from bilevelpy.numerics.conic_certificate import ConicCheck
from bilevelpy.numerics.coupled_certificate import examine_rows
from bilevelpy.numerics.driver import IterationState, RunResult
from bilevelpy.numerics.driver import run as drive
from bilevelpy.numerics.resolve import Resolver
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status

__all__ = ["CASES", "Case", "Outcome", "Report", "check_backend"]


@dataclass(frozen=True, slots=True)
class Case:
    """A model with its known solution. ``within`` bounds errors of x and F, relative to ``1 +
    |value|``.

    ``optimistic`` cases have several lower solutions: the known one is the best for F.
    """

    name: str
    text: str
    x: Any
    F: float
    data: Mapping[str, Any] = field(default_factory=dict)
    within: float = 1e-3
    optimistic: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check on one model; ``detail`` says what was found where it failed."""

    check: str
    model: str
    passed: bool
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What was checked."""

    backend: str
    outcomes: tuple[Outcome, ...]
    rejected: Mapping[str, str]
    solved: tuple[str, ...]

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The checks that failed."""
        return tuple(o for o in self.outcomes if not o.passed)


_QUADRATIC = """\
model quadratic;
dim n;
param A[n, n], z[n];
upper {
  var x[n] start 2;
  minimize sum((x - z)^2) / 2 + sum(y * (A @ y)) / 2;
}
lower follower {
  var y[n] start 2;
  minimize sum(y * (A @ y)) / 2 - sum(x * y);
}
"""
_RIDGE = """\
model ridge;
dim n;
param c[n], b[n];
upper {
  var x in [-10, 10] start 0;
  minimize sum((y - b)^2) / 2;
}
lower fit {
  var y[n];
  minimize sum((y - c)^2) / 2 + exp(x) * sum(y^2) / 2;
}
"""
_KINK = """\
model kink;
upper {
  var x start 0.3;
  minimize (y - 2)^2 / 2 + 0.05 * x^2;
}
lower follower {
  var y in [0, 1];
  minimize (y - x)^2 / 2;
}
"""
_SIMPLEX = """\
model simplex_response;
dim n;
param t[n];
upper {
  var x[n] start 0;
  minimize sum((y - t)^2) / 2 + 0.05 * sum(x^2);
}
lower follower {
  var y[n] in simplex;
  minimize sum(y^2) / 2 - sum(x * y);
}
"""
_CONVEX = """\
model merely_convex;
dim n = 2;
upper {
  var x[n] start 0;
  minimize sum((x - b)^2) / 2 + sum((a - 1)^2) / 2;
}
lower follower {
  var a[n] start 0;
  var b[n] start 3;
  minimize sum(a^2) / 2 - sum(x * a);
}
"""
_QUADRATIC_SUM = """\
model quadratic_sum;
dim k, n;
param A[k, n], z[n];
upper {
  var x[n] start 2;
  minimize sum((x - z)^2) / 2 + sum((A @ y)^2) / 2;
}
lower follower {
  var y[n] start 2;
  minimize sum((A @ y)^2) / 2 - sum(x * y);
}
"""
_RIDGE_SUM = """\
model ridge_sum;
dim k, l, n;
param X[k, n], c[k], V[l, n], b[l];
upper {
  var x in [-10, 10] start 0;
  minimize sum((sum(V[i, j] * y[j] for j in n) - b[i])^2 for i in l) / 2;
}
lower fit {
  var y[n];
  minimize sum((X @ y - c)^2) / 2 + exp(x) * sum(y^2) / 2;
}
"""
_COUPLED = """\
model coupled_inequality;
upper {
  var x in [0, 3] start 1;
  minimize exp(2 - y) / (2 + cos(6 * x)) + log((4 * x - 2)^2 + 1) / 2;
}
lower follower {
  var y start 0;
  minimize (y - 2 * x)^2;
  subject to cap: y <= x;
}
"""
_BALANCE = """\
model coupled_equation;
dim n = 2;
upper {
  var x[n] start 1;
  minimize sum((x - b)^2) / 2 + sum((a - 1)^2) / 2;
}
lower follower {
  var a[n] start 0;
  var b[n] start 0;
  minimize sum(a^2) / 2 - sum(x * a) + sum(b);
  subject to balance: sum(x) + sum(a) + sum(b) == 0;
}
"""
_CONE = """\
model semidefinite;
dim n;
param A[n, n], B[n, n];
upper { var x[1] in [-5, 5] start 0.3; minimize (sum((Y - 2 * A)^2) + x[1]^2) / 2; }
lower fit { var Y[n, n] in psd; minimize sum((Y - x[1] * A + B)^2) / 2; }
"""
_TRACE = """\
model semidefinite_trace;
dim n;
param A[n, n], B[n, n];
upper { var x[1] in [-5, 5] start 0.1; minimize sum((Y - 0.8 * A - 0.2 * B)^2) + x[1]^2 / 20; }
lower fit {
  var Y[n, n] in psd;
  minimize sum((Y - x[1] * A)^2) / 2;
  subject to unit: trace(Y) == 1;
}
"""


def _projectors() -> dict[str, np.ndarray]:
    """Orthogonal projectors A and B of rank one: Y has their eigenvectors."""
    q = np.array([0.6, 0.8])
    A = np.outer(q, q)
    return {"A": A, "B": np.eye(2) - A}


def _quadratic(kappa: float, n: int = 6) -> Case:
    """Validation case 6.1 (c): A = Q diag(geomspace(1, kappa)) Q'."""
    Q, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((n, n)))
    A = (Q * np.geomspace(1.0, kappa, n)) @ Q.T
    A = (A + A.T) / 2
    z = np.ones(n)
    x = np.linalg.solve(np.eye(n) + np.linalg.inv(A), z)
    return Case(
        f"quadratic, kappa = {kappa:g}", _QUADRATIC, x, float(z @ (z - x) / 2), {"A": A, "z": z}
    )


def _orthonormal(rows: int, columns: int, seed: int) -> np.ndarray:
    """A matrix with orthonormal columns."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((rows, columns)))
    return q


def _quadratic_sum(kappa: float, n: int = 4, rows: int = 256) -> Case:
    """Validation case 6.1 (c) as a sum over the rows of ``A = W D^(1/2) Q'``: A'A = Q D Q'."""
    Q, d = _orthonormal(n, n, 0), np.geomspace(1.0, kappa, n)
    A, z = (_orthonormal(rows, n, 1) * np.sqrt(d)) @ Q.T, np.ones(n)
    x = np.linalg.solve(np.eye(n) + (Q / d) @ Q.T, z)
    return Case(
        f"quadratic as a finite sum, kappa = {kappa:g}",
        _QUADRATIC_SUM,
        x,
        float(z @ (z - x) / 2),
        {"A": A, "z": z},
    )


def _ridge_sum(rows: int = 256) -> Case:
    """Validation case 6.9 with matrices of orthonormal columns: with ``c = X c'`` and ``b = V b'``
    the sums are those of the case without data.
    """
    c, b = np.array([2.0, -1.0, 1.0]), np.array([1.0, -1.0, 0.5])
    X, V = _orthonormal(rows, 3, 2), _orthonormal(rows // 2, 3, 3)
    cc, cb = float(c @ c), float(c @ b)
    x, F = [math.log(cc / cb - 1)], float(b @ b - cb**2 / cc) / 2
    return Case("ridge as a finite sum", _RIDGE_SUM, x, F, {"X": X, "c": X @ c, "V": V, "b": V @ b})


def _ridge() -> Case:
    """Validation case 6.9: ``e^x = |c|^2 / (c'b) - 1``."""
    c, b = np.array([2.0, -1.0, 1.0]), np.array([1.0, -1.0, 0.5])
    cc, cb = float(c @ c), float(c @ b)
    return Case(
        "ridge", _RIDGE, [math.log(cc / cb - 1)], float(b @ b - cb**2 / cc) / 2, {"c": c, "b": b}
    )


def _simplex() -> Case:
    """Validation case 6.11: ``x = (t - 1/n) / (1 + rho)`` with rho = 0.1."""
    t = np.array([0.3, 0.25, 0.2, 0.15, 0.1])
    x = (t - 0.2) / 1.1
    return Case("simplex", _SIMPLEX, x, float(((t - 0.2) ** 2).sum()) * 0.1 / 1.1 / 2, {"t": t})


CASES: tuple[Case, ...] = (
    _quadratic(1.0),
    _quadratic(10.0),
    _ridge(),
    Case("kink", _KINK, [1.0], 0.55),
    _simplex(),
    Case("merely convex", _CONVEX, [1.0, 1.0], 0.0, optimistic=True),
    Case("coupled inequality", _COUPLED, [0.986225], 1.721879),  # validation case 6.6
    Case("coupled equation", _BALANCE, [-0.3, -0.3], 0.1),  # validation case 6.4
    _quadratic_sum(4.0),
    _ridge_sum(),
    # Y = max(x, 0) A, and (1 + x) / 2 A + (1 - x) / 2 B for -1 < x < 1.
    Case("semidefinite", _CONE, [1.0], 1.0, _projectors()),
    Case("semidefinite with a row", _TRACE, [6 / 11], 0.9 / 55, _projectors()),
)


def check_backend(
    backend: Backend[Any],
    *,
    models: Sequence[Case] | None = None,
    options: Mapping[str, Any] | None = None,
    max_iter: int = 500,
    time_limit: float = 60.0,
    noise: float = 0.0,
) -> Report:
    """Check a backend against the promises of the protocol.

    Every model that it accepts is solved; ``converged`` must then mean the known optimum, and at
    least one model must be solved. Further: hypergradients at the start (of backends whose state
    exposes them as ``state.point.gradient``; continuation methods, which begin with a perturbed
    problem, say so by ``perturbed_start = True``), the same run under the same seed, iteration and
    time limits, callbacks, refusals with reasons, and unknown options. Backends that solve whole
    programs outside the driver are checked for their verdicts and options only.

    Parameters
    ----------
    backend
        An instance.
    models
        Cases with known solutions; :data:`CASES` by default.
    options
        Options of the backend in all runs.
    max_iter, time_limit
        Limits of each solve.
    noise
        Error of a point that still counts as solved, for stochastic methods that reach no more in
        these limits; what claims to be converged is held to the case's own accuracy.

    Returns
    -------
    Report
        What was checked.

    Raises
    ------
    AssertionError
        Where a check fails; the message lists all that did.
    """
    suite = _Suite(backend, dict(options or {}), max_iter, time_limit, noise)
    for case in CASES if models is None else models:
        suite.model(case)
    suite.conclude()
    report = Report(backend.name, tuple(suite.outcomes), suite.rejected, tuple(suite.solved))
    if report.failures:
        lines = "\n".join(f"  {o.check} ({o.model}): {o.detail}" for o in report.failures)
        raise AssertionError(f"backend `{backend.name}` fails:\n{lines}")
    return report


# Seconds for a few iterations, on a busy machine.
PATIENCE = 120.0


@dataclass(slots=True)
class _Suite:
    """The checks of one backend."""

    backend: Backend[Any]
    options: dict[str, Any]
    max_iter: int
    time_limit: float
    noise: float = 0.0
    outcomes: list[Outcome] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    solved: list[str] = field(default_factory=list)
    tried: bool = False

    def note(self, check: str, model: str, passed: bool, detail: str = "") -> None:
        self.outcomes.append(Outcome(check, model, passed, "" if passed else detail))

    def model(self, case: Case) -> None:
        """All checks of one model."""
        model = api.parse(case.text, data=dict(case.data))
        facts = solving.structure(model, 0)
        verdict = self.backend.accepts(facts)
        reasoned = isinstance(verdict, (Accept, Reject)) and (bool(verdict) or bool(verdict.reason))
        self.note("a verdict with a reason", case.name, reasoned, f"accepts() gave {verdict!r}")
        if isinstance(verdict, Reject):
            self.rejected[case.name] = verdict.reason
            return
        cost = self.backend.cost(facts)
        known = all(
            math.isfinite(v) and v >= 0 for v in (cost.gradients, cost.products, cost.memory)
        )
        self.note("a finite cost", case.name, known, repr(cost))
        if not hasattr(self.backend, "init"):  # solves whole programs, outside the driver
            return
        functions = solving.oracle(model)
        self._solves(case, functions, facts)
        self._hypergradient(case, functions)
        if not self.tried:
            self.tried = True
            self._repeats(case, functions, facts)
            self._limits(case, functions, facts)
            self._callbacks(case, functions, facts)

    def conclude(self) -> None:
        """What concerns the backend as a whole."""
        if self.tried:
            solved = bool(self.solved)
            self.note("solves a model that it accepts", "all", solved, "none was solved")
        try:
            self.backend.options.from_mapping({"no_such_option": 1}, self.backend.name)
            refused = False
        except UsageError:
            refused = True
        self.note("refuses unknown options", "all", refused, "`no_such_option` was taken")

    def _run(
        self, functions: TorchOracle, facts: Structure, *, callback: Any = None, **limits: Any
    ) -> RunResult:
        """A run of the backend."""
        given = {"max_iter": self.max_iter, "time_limit": self.time_limit, **limits}
        settings = SolveOptions(backend_options=self.options, **given)
        return drive(functions, self.backend, facts, settings, callback=callback)

    def _solves(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        """``converged`` is right, and the answer too; optimistic answers are judged by the point
        alone.
        """
        raw = self._run(functions, facts)
        rng = torch.Generator().manual_seed(0)
        if functions.g.size and functions.domain_y.matrices:
            given = functions, raw.x, raw.y, facts, SolveOptions(), rng
            judged = ConicCheck(*given, seconds=math.inf).run()[0]
        elif functions.g.size:
            judged = examine_rows(functions, raw.x, raw.y, facts, SolveOptions(), rng)[0]
        else:
            judged = certify(functions, raw.x, raw.y, facts, SolveOptions(), rng)
        found = settle(raw, judged)
        exact = torch.tensor(np.asarray(case.x), dtype=torch.float64)
        error = float((found.x - exact).abs().max()) / (1.0 + float(exact.abs().max()))
        gap = abs(found.F - case.F) / (1.0 + abs(case.F))
        right = error <= case.within and gap <= case.within
        claimed = found.status is Status.CONVERGED
        detail = f"claims {found.F:.6g}, but the optimum is {case.F:.6g} (x is off by {error:.1e})"
        self.note("`converged` means the known optimum", case.name, right or not claimed, detail)
        self.note("a message", case.name, bool(found.message), "the message is empty")
        if right or max(error, gap) <= self.noise:
            self.solved.append(case.name)

    def _hypergradient(self, case: Case, functions: TorchOracle) -> None:
        """Where the state shows dPhi/dx at the start, it is the one of an independent solve, or the
        result is warned of.
        """
        if getattr(self.backend, "perturbed_start", False):
            return
        settings = self.backend.options.from_mapping(self.options, self.backend.name)
        x, y = functions.domain_x.project(functions.x0), functions.domain_y.project(functions.y0)
        state = self.backend.init(functions, x, y, settings, torch.Generator().manual_seed(0))
        shown = getattr(getattr(state, "point", None), "gradient", None)
        if shown is None or case.optimistic or self.backend.measure(functions, state).warnings:
            return
        if functions.g.size:  # the independent solve here knows no rows
            return
        rng = torch.Generator().manual_seed(0)
        exact = Resolver(functions, x, y, rng).answer(x, y)
        if exact is None or exact.lower.face.weak:
            return
        error = float((shown - exact.gradient).norm()) / max(exact.size, 1e-300)
        self.note(
            "the hypergradient at the start",
            case.name,
            error <= 3e-2,
            f"relative error {error:.1e}",
        )

    def _repeats(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        # Where the limit of time cuts a run off is nobody's choice.
        given = {"max_iter": 3, "seed": 7, "time_limit": max(self.time_limit, PATIENCE)}
        one, two = (self._run(functions, facts, **given) for _ in range(2))
        same = torch.equal(one.x, two.x) and torch.equal(one.y, two.y) and one.counts == two.counts
        self.note("the same run under the same seed", case.name, same, "two runs differ")

    def _limits(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        none = self._run(functions, facts, max_iter=0, tol=1e-13)
        self.note(
            "no iteration for max_iter = 0",
            case.name,
            none.iterations == 0,
            f"made {none.iterations}",
        )
        one = self._run(functions, facts, max_iter=1, tol=1e-13)
        self.note(
            "one iteration for max_iter = 1",
            case.name,
            one.iterations <= 1,
            f"made {one.iterations}",
        )
        late = self._run(functions, facts, time_limit=1e-9)
        stopped = late.status is Status.TIME_LIMIT
        self.note("the time limit", case.name, stopped, f"ended as {late.status}")

    def _callbacks(self, case: Case, functions: TorchOracle, facts: Structure) -> None:
        seen: list[int] = []
        stop = _stopping(seen)
        patience = max(self.time_limit, PATIENCE)
        halted = self._run(functions, facts, tol=1e-13, callback=stop, time_limit=patience)
        self.note(
            "a callback stops the run",
            case.name,
            halted.status is Status.INTERRUPTED,
            f"{halted.status}",
        )
        self.note(
            "a callback sees every iteration",
            case.name,
            seen == list(range(len(seen))),
            f"saw {seen}",
        )
        finite = all(math.isfinite(r.F) and math.isfinite(r.f) for r in halted.history)
        self.note("finite objectives in the history", case.name, finite, "F or f is not finite")


def _stopping(seen: list[int]) -> Callable[[IterationState], bool]:
    """A callback that stops at once after noting the iteration."""

    def callback(state: IterationState) -> bool:
        seen.append(state.iteration)
        return True

    return callback
