"""Norms of groups and absolute values below: the objective on the support of y.

``f = s + sum_g w_g |y_g| + sum_j l_j |y_j|`` is smooth in the entries that are not 0, and stays so
as long as none of them, and no group of them, becomes 0. The gradient here is the shortest
subgradient (J.-B. Hiriart-Urruty and C. Lemarechal, Convex Analysis and Minimization Algorithms I,
1993, ch. VI), which is 0 at a solution; in a group that is 0

    r_g = (1 - w_g / |S(s_g, l_g)|)_+ S(s_g, l_g),    S(a, l) = sign(a) (|a| - l)_+

and where only the entry is 0 ``r_j = S(s_j, l_j)``. Entries with ``y_j = r_j = 0`` are held: their
response to a move of x is 0 while the inequalities are strict, and that of the others is implicit
differentiation on the support [Bertrand2020]_ with the curvature of the norms
``w_g (I - u u') / |y_g|, u = y_g / |y_g|``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from bilevelpy.lowering.domains.product import WEAK, Face, ProductSet
from bilevelpy.lowering.group_norms import GroupParts, group_parts
from bilevelpy.lowering.protocol import Counts, Oracle
from bilevelpy.numerics.linear_solve import unit
from bilevelpy.numerics.lower.dense_curvature import DenseCurvature, invert
from bilevelpy.numerics.scaled import ScaledOracle, Units

Vec = torch.Tensor

# Groups that are released at a time: at least so many, and at most as many as the support has.
RELEASED = 10
# Entries just beside 0, in parts of the largest.
BESIDE = 1e-8


class SupportSet(ProductSet):
    """All of R^m, with the entries that are 0 and stay there as constraints of its faces."""

    __slots__ = ()

    def face(self, z: Vec, g: Vec, tol: float = WEAK) -> Face:
        """The support of z, and the zeros that minus the shortest subgradient g leaves."""
        free = (z != 0.0) | (g != 0.0)
        return Face(self.dim, None if bool(free.all()) else free)


class GroupedOracle:
    """An oracle whose lower objective has norms of groups, by its parts.

    Parameters
    ----------
    oracle
        The whole problem, perhaps in other units.
    parts
        What the program is made of, in the units of the model.
    smooth
        s, in the units of ``oracle``.
    """

    def __init__(
        self, oracle: Any, parts: GroupParts, smooth: Any, units: Units | None = None
    ) -> None:
        self.oracle, self.parts, self.smooth, self.units = oracle, parts, smooth, units
        self.n, self.m, self.x0, self.y0 = oracle.n, oracle.m, oracle.x0, oracle.y0
        self.domain_x: ProductSet = oracle.domain_x
        self.domain_y: ProductSet = SupportSet((), oracle.m)
        self.counts: Counts = oracle.counts
        self.F_sign, self.f_sign = oracle.F_sign, oracle.f_sign
        self.F, self.grad_F, self.value_grad_F = oracle.F, oracle.grad_F, oracle.value_grad_F
        self.group = parts.group
        # The number of the group of every entry; those in none have one of their own.
        own = parts.count + torch.arange(oracle.m)
        self.units_of_entries = torch.where(parts.group < parts.count, parts.group, own)
        self.support_only = True
        # s_yy is the same at all points.
        self.smooth_is_quadratic = bool(getattr(smooth, "hessian_is_constant", False))
        self.hessian_price = 4.0

    def check_deadline(self) -> None:
        """Raise where the time of the run is up: s is evaluated past the oracle that watches it."""
        o = self.oracle.oracle if isinstance(self.oracle, ScaledOracle) else self.oracle
        check = getattr(o, "check_deadline", None)
        if check is not None:
            check()

    def with_smooth(self, smooth: Any) -> GroupedOracle:
        """The same with another smooth part."""
        return GroupedOracle(self.oracle, self.parts, smooth, self.units)

    # --- weights ----------------------------------------------------------------------------------

    def weights(self, x: Vec) -> tuple[Vec, Vec]:
        """Those of the groups (count,) and of the entries (m,)."""
        u = self.units
        if u is None:
            return self.parts.weights(x)
        w, single = self.parts.weights(u.x * x)
        return w * self._group_units(u), single * u.y

    def _group_units(self, u: Units) -> Vec:
        """The unit that the entries of every group have in common."""
        out = torch.ones(self.parts.count + 1, dtype=torch.float64)
        out[self.group] = u.y
        return out[:-1]

    def _slope(self, x: Vec, a: Vec, b: Vec) -> Vec:
        """``d(w'a + l'b)/dx``."""
        u = self.units
        if u is None:
            return self.parts.slope_of_weights(x, a, b)
        return u.x * self.parts.slope_of_weights(u.x * x, self._group_units(u) * a, u.y * b)

    def kinked(self, x: Vec, y: Vec) -> float:
        """``sum w_g |y_g| + sum l_j |y_j|``."""
        w, single = self.weights(x)
        return float(w @ self.parts.norms(y) + single @ y.abs())

    def steepest(self, x: Vec, y: Vec, s_y: Vec) -> Vec:
        """The shortest subgradient of f at y, given the gradient of s."""
        w, single = self.weights(x)
        shrunk = torch.sign(s_y) * (s_y.abs() - single).clamp(min=0.0)
        norms, pull = self.parts.norms(y), self.parts.totals(shrunk * shrunk).sqrt()
        active = norms > 0.0
        left = torch.where(pull > w, 1.0 - w / pull.clamp(min=1e-300), 0.0)
        outward = torch.where(active, w / norms.clamp(min=1e-300), 0.0)
        along = s_y + self._rows(outward) * y
        inside = torch.where(
            y != 0.0,
            along + single * torch.sign(y),
            torch.sign(along) * (along.abs() - single).clamp(min=0.0),
        )
        free = torch.cat([active, active.new_ones(1)])[self.group]
        return torch.where(free, inside, self._rows(left) * shrunk)

    def _rows(self, a: Vec) -> Vec:
        return self.parts.spread(a)

    def weak(self, x: Vec, y: Vec, s_y: Vec) -> int:
        """How many zeros are held by less than ``WEAK`` of the slopes: kinks of the response."""
        groups, entries = self._weakly_held(x, y, s_y, WEAK)
        return int(groups.sum()) + int(entries.sum())

    def _weakly_held(self, x: Vec, y: Vec, s_y: Vec, tol: float) -> tuple[Vec, Vec]:
        """Which groups (count,), and which entries (m,) of other groups or none these are."""
        w, single = self.weights(x)
        slack = tol * float(torch.maximum(s_y.abs().max(), w.max() if w.numel() else s_y[:0].sum()))
        shrunk = (s_y.abs() - single).clamp(min=0.0)
        zero = self.parts.norms(y) == 0.0
        pull = self.parts.totals(shrunk * shrunk).sqrt()
        beside = torch.cat([~zero, zero.new_ones(1)])[self.group] & (single > 0.0)
        entries = beside & (y == 0.0) & ((s_y.abs() - single).abs() <= slack)
        return zero & ((pull - w).abs() <= slack), entries

    def released(self, x: Vec, y: Vec, tol: float) -> tuple[Vec, Face]:
        """A point beside y where the zeros held by less than ``tol`` of the slopes have left to
        the side that s falls to, and its face: what the response is behind the kink.
        """
        s_y = self.smooth.value_grad_f(x, y)[1]
        groups, entries = self._weakly_held(x, y, s_y, tol)
        single = self.weights(x)[1]
        away = torch.sign(s_y) * (s_y.abs() - single).clamp(min=0.0)
        leaving = torch.where(entries, torch.sign(s_y), self._rows(groups.to(y.dtype)) * away)
        top = leaving.abs().max()
        size = BESIDE * (float(y.abs().max()) or 1.0)
        z = y - (size / float(top)) * leaving if top > 0.0 else y
        return z, self.domain_y.face(z, torch.zeros_like(z))

    # --- the protocol -----------------------------------------------------------------------------

    def f(self, x: Vec, y: Vec) -> float:
        """The lower objective."""
        value: float = self.smooth.f(x, y)
        return value + self.kinked(x, y)

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        """f and its shortest subgradient."""
        s, s_y = self.smooth.value_grad_f(x, y)
        return s + self.kinked(x, y), self.steepest(x, y, s_y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        """The shortest subgradient."""
        return self.value_grad_f(x, y)[1]

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        """df/dx."""
        at_y: Vec = self.smooth.grad_f_x(x, y)
        return at_y + self._slope(x, self.parts.norms(y), y.abs())

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_yy v`` on the support."""
        product, bend = self.smooth.hvp(x, y), self._bend(x, y)
        return lambda v: product(v) + bend(v)

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """``v -> f_xy v`` for v on the support."""
        product, beside = self.smooth.cross(x, y), self._beside(x, y)
        return lambda v: product(v) + beside(v)

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        """``v -> (f_yy v, f_xy v)``."""
        product, bend, beside = self.smooth.pullback(x, y), self._bend(x, y), self._beside(x, y)

        def both(v: Vec) -> tuple[Vec, Vec]:
            Hv, Jv = product(v)
            return Hv + bend(v), Jv + beside(v)

        return both

    def hessian(self, x: Vec, y: Vec) -> Vec:
        """f_yy on the support, dense."""
        index = torch.arange(self.m)
        return self.smooth_hessian(x, y, index) + self.curvature(x, y, index)

    def smooth_hessian(self, x: Vec, y: Vec, index: Vec) -> Vec:
        """Rows and columns ``index`` of s_yy."""
        s, size = self.smooth, None
        if isinstance(s, ScaledOracle):
            size = s.units.y[index]
            x, y, s = s.units.x * x, s.units.y * y, s.oracle
        H: Vec | None = None
        predicted = getattr(s, "predicted", None)
        if predicted is not None:
            H = predicted.restricted(x, y, index)
        if H is None and 2 * index.numel() < self.m and getattr(s, "quadratic", None) is None:
            product = s.hvp(x, y)
            H = torch.stack([product(unit(self.m, int(k)))[index] for k in index], 1)
        if H is None:
            H = s.hessian(x, y)[index][:, index]
        return H if size is None else size[:, None] * H * size

    def curvature(self, x: Vec, y: Vec, index: Vec) -> Vec:
        """Rows and columns ``index`` of the curvature of the norms."""
        ratio, unit = self._ratio(x, y)
        g, u = self.group[index], unit[index]
        same = g[:, None] == g
        return torch.diag(ratio[index]) - torch.where(
            same, ratio[index][:, None] * u[:, None] * u, 0.0
        )

    def _ratio(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        """``w_g / |y_g|`` and ``y / |y_g|`` by entry, 0 outside the support."""
        norms = self.parts.norms(y)
        inverse = torch.where(norms > 0.0, 1.0 / norms.clamp(min=1e-300), 0.0)
        return self._rows(self.weights(x)[0] * inverse), self._rows(inverse) * y

    def _bend(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        ratio, unit = self._ratio(x, y)
        return lambda v: ratio * (v - unit * self._rows(self.parts.totals(unit * v)))

    def _beside(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        """What the weights add to ``f_xy v``."""
        unit, sign = self._ratio(x, y)[1], torch.sign(y)
        return lambda v: self._slope(x, self.parts.totals(unit * v), sign * v)


class SupportCurvature(DenseCurvature):
    """f_yy on the support alone, taken at the point of the last refresh; ``part`` may hold s_yy
    there for the entries ``whose``.
    """

    __slots__ = ("_part", "_point", "_whose")

    def __init__(self, *, constant: bool = False) -> None:
        super().__init__(constant=constant)
        self._part: Vec | None = None
        self._whose: Vec | None = None

    def refresh(self, oracle: Any, x: Vec, y: Vec) -> None:
        """Take the Hessian from (x, y) on."""
        self._point = (oracle, x.clone(), y.clone())
        self.H, self.face, self.rent = y.new_zeros(0, 0), None, 0.0
        if not oracle.smooth_is_quadratic:
            self._part = self._whose = None

    def move(self, y: Vec) -> None:
        """Take the curvature of the norms from y on, and keep that of s."""
        self._point, self.face = (*self._point[:2], y.clone()), None

    def carried(self) -> dict[str, Any]:
        """Where the matrices were evaluated, and that of s."""
        at = None if self.H is None else self._point[1:]
        known = {"at": at, "part": self._part, "whose": self._whose}
        return {**known, "face": self.face, "rent": self.rent}

    def restore(self, known: Mapping[str, Any], oracle: Any) -> None:
        """The same curvature with its factor on the same face."""
        self.H = self.face = None
        if known["at"] is not None:
            self.refresh(oracle, *known["at"])
            self._part, self._whose = known["part"], known["whose"]
            if known["face"] is not None:
                self.settle(known["face"])
        self.rent = float(known["rent"])

    def smooth(self, index: Vec) -> Vec:
        """s_yy at the point, for the entries ``index``; kept."""
        oracle, x, y = self._point
        if self._part is not None and self._whose is not None:
            place = torch.full((oracle.m,), -1)
            place[self._whose] = torch.arange(self._whose.numel())
            where = place[index]
            if bool((where >= 0).all()):
                return self._part[where][:, where]
        self._part, self._whose = oracle.smooth_hessian(x, y, index), index
        return self._part

    def settle(self, face: Face) -> bool:
        """Factorise on ``face`` unless that is done; False where the Hessian is not finite."""
        if self.face is not None and self.face.same_as(face):
            return self.factor is not None
        oracle, x, y = self._point
        free = torch.ones(face.dim, dtype=torch.bool) if face.free is None else face.free
        self.face, self.index = face, free.nonzero().squeeze(1)
        H = self.smooth(self.index)
        self.factor = invert(H + oracle.curvature(x, y, self.index))
        return self.factor is not None


def grouped_noise(oracle: Any, noise: Vec, y: Vec, rng: torch.Generator) -> Vec:
    """The noise on as many groups and single entries as y has, at least :data:`RELEASED`."""
    unit = oracle.units_of_entries
    count = int(unit.max()) + 1
    few = max(RELEASED, torch.unique(unit[y != 0.0]).numel())
    chosen = torch.zeros(count, dtype=torch.bool)
    chosen[torch.randperm(count, generator=rng)[:few]] = True
    return torch.where(chosen[unit], noise, 0.0)


def is_grouped(oracle: Any) -> bool:
    """Whether an oracle is one by support; wrappers answer for what they wrap."""
    return getattr(oracle, "steepest", None) is not None


def grouped_oracle(oracle: Any) -> Oracle | None:
    """The problem by its support; None where the lower objective has no norms with kinks.

    Raises
    ------
    BackendError
        Where there are norms that are not those of groups.
    """
    if not isinstance(oracle, ScaledOracle):
        parts = group_parts(oracle)
        return None if parts is None else GroupedOracle(oracle, parts, parts.smooth)
    parts = group_parts(oracle.oracle)
    if parts is None:
        return None
    return GroupedOracle(oracle, parts, ScaledOracle(parts.smooth, oracle.units), oracle.units)
