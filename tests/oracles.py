"""Oracles written by hand, with closed forms where there are any (section numbers of the design's
validation cases).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from bilevelpy.lowering.domains.product import Block, ProductSet
from bilevelpy.lowering.protocol import Counts

Vec = torch.Tensor


def free(dim: int) -> ProductSet:
    return ProductSet([Block("free", 0, 1, dim)], dim)


def box(dim: int, lower: float, upper: float) -> ProductSet:
    one = torch.ones(dim, dtype=torch.float64)
    return ProductSet([Block("box", 0, 1, dim, lower * one, upper * one)], dim)


def vec(*values: float) -> Vec:
    return torch.tensor(values, dtype=torch.float64)


class HandOracle:
    """Counts and combines the raw functions `_F`, `_f`, ... of a subclass."""

    F_sign = 1.0
    f_sign = 1.0

    def __init__(
        self,
        x0: Vec,
        y0: Vec,
        domain_x: ProductSet | None = None,
        domain_y: ProductSet | None = None,
    ) -> None:
        self.n, self.m = x0.numel(), y0.numel()
        self.x0, self.y0 = x0.to(torch.float64), y0.to(torch.float64)
        self.domain_x = domain_x or free(self.n)
        self.domain_y = domain_y or free(self.m)
        self.counts = Counts()

    def F(self, x: Vec, y: Vec) -> float:
        self.counts.F += 1
        return float(self._F(x, y))

    def f(self, x: Vec, y: Vec) -> float:
        self.counts.f += 1
        return float(self._f(x, y))

    def grad_F(self, x: Vec, y: Vec) -> tuple[Vec, Vec]:
        self.counts.grad_F += 1
        return self._gF(x, y)

    def grad_f(self, x: Vec, y: Vec) -> Vec:
        self.counts.grad_f += 1
        return self._gf(x, y)

    def grad_f_x(self, x: Vec, y: Vec) -> Vec:
        self.counts.grad_f += 1
        return self._gfx(x, y)

    def value_grad_f(self, x: Vec, y: Vec) -> tuple[float, Vec]:
        self.counts.f += 1
        self.counts.grad_f += 1
        return float(self._f(x, y)), self._gf(x, y)

    def value_grad_F(self, x: Vec, y: Vec) -> tuple[float, Vec, Vec]:
        self.counts.F += 1
        self.counts.grad_F += 1
        return (float(self._F(x, y)), *self._gF(x, y))

    def pullback(self, x: Vec, y: Vec) -> Callable[[Vec], tuple[Vec, Vec]]:
        hv, jv = self.hvp(x, y), self.cross(x, y)
        return lambda v: (hv(v), jv(v))

    def hvp(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return self._hv(x, y, v)

        return product

    def cross(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        def product(v: Vec) -> Vec:
            self.counts.jvp += 1
            return self._jv(x, y, v)

        return product

    def hessian(self, x: Vec, y: Vec) -> Vec:
        self.counts.hvp += self.m
        return self._H(x, y)

    def _H(self, x: Vec, y: Vec) -> Vec:
        eye = torch.eye(self.m, dtype=torch.float64)
        return torch.stack([self._hv(x, y, e) for e in eye])


class Quadratic(HandOracle):
    """6.2: f = s (y'Ay/2 + x'Cy + a'y), F = S (y'Ey/2 + x'Gx/2 + x'Ky + e'y + h'x)."""

    def __init__(
        self,
        A,
        C,
        a,
        E,
        G,
        K,
        e,
        h,
        x0,
        y0,
        *,
        s=1.0,
        S=1.0,
        offset=0.0,
        domain_x=None,
        domain_y=None,
    ):
        super().__init__(x0, y0, domain_x, domain_y)
        self.A, self.C, self.a, self.E, self.G, self.K, self.e, self.h = A, C, a, E, G, K, e, h
        self.s, self.S, self.offset = s, S, offset

    def _F(self, x, y):
        return (
            self.S
            * (
                0.5 * y @ self.E @ y
                + 0.5 * x @ self.G @ x
                + x @ self.K @ y
                + self.e @ y
                + self.h @ x
            )
            + self.offset
        )

    def _f(self, x, y):
        return self.s * (0.5 * y @ self.A @ y + x @ self.C @ y + self.a @ y)

    def _gF(self, x, y):
        return self.S * (self.G @ x + self.K @ y + self.h), self.S * (
            self.E @ y + self.K.T @ x + self.e
        )

    def _gf(self, x, y):
        return self.s * (self.A @ y + self.C.T @ x + self.a)

    def _gfx(self, x, y):
        return self.s * (self.C @ y)

    def _hv(self, x, y, v):
        return self.s * (self.A @ v)

    def _jv(self, x, y, v):
        return self.s * (self.C @ v)

    def _H(self, x, y):
        return self.s * self.A

    def solution(self) -> tuple[Vec, Vec]:
        R = -torch.linalg.solve(self.A, self.C.T)
        c = -torch.linalg.solve(self.A, self.a)
        M = self.G + self.K @ R + R.T @ self.K.T + R.T @ self.E @ R
        b = self.K @ c + self.h + R.T @ (self.E @ c + self.e)
        x = -torch.linalg.solve(M, b)
        return x, R @ x + c


def toy(
    kappa: float, n: int = 100, *, s: float = 1.0, S: float = 1.0, unit: float = 1.0
) -> Quadratic:
    """6.1 (c): A = Q diag(geomspace(1, kappa)) Q', B = D = I, z0 = 1, start 2."""
    rng = np.random.default_rng(0)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    A = torch.from_numpy((Q * np.geomspace(1, kappa, n)) @ Q.T)
    A = 0.5 * (A + A.T)
    eye, zero, one = (
        torch.eye(n, dtype=torch.float64),
        torch.zeros(n, dtype=torch.float64),
        torch.ones(n, dtype=torch.float64),
    )
    o = Quadratic(
        A,
        -eye * unit,
        zero,
        A,
        eye * unit**2,
        0 * eye,
        zero,
        -one * unit,
        2 * one / unit,
        2 * one,
        s=s,
        S=S,
        offset=S * 0.5 * n,
    )
    return o


class AutoOracle(HandOracle):
    """Functions given as torch expressions `F(x, y)`, `f(x, y)`; derivatives by reverse mode."""

    def __init__(self, F, f, x0, y0, domain_x=None, domain_y=None):
        super().__init__(x0, y0, domain_x, domain_y)
        self.F_expr, self.f_expr = F, f

    def _F(self, x, y):
        return self.F_expr(x, y)

    def _f(self, x, y):
        return self.f_expr(x, y)

    def _grads(self, expr, x, y):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        gx, gy = torch.autograd.grad(expr(x, y), (x, y), allow_unused=True)
        return torch.zeros_like(x) if gx is None else gx.detach(), torch.zeros_like(
            y
        ) if gy is None else gy.detach()

    def _gF(self, x, y):
        return self._grads(self.F_expr, x, y)

    def _gf(self, x, y):
        return self._grads(self.f_expr, x, y)[1]

    def _gfx(self, x, y):
        return self._grads(self.f_expr, x, y)[0]

    def _products(self, x, y, v):
        x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
        (g,) = torch.autograd.grad(self.f_expr(x, y), (y,), create_graph=True)
        if not g.requires_grad:
            return torch.zeros_like(y), torch.zeros_like(x)
        hx, hy = torch.autograd.grad(g, (x, y), v, allow_unused=True)
        return (
            torch.zeros_like(y) if hy is None else hy.detach(),
            torch.zeros_like(x) if hx is None else hx.detach(),
        )

    def _hv(self, x, y, v):
        return self._products(x, y, v)[0]

    def _jv(self, x, y, v):
        return self._products(x, y, v)[1]


def ridge(n: int = 60, d: int = 30, seed: int = 0) -> AutoOracle:
    """6.9: a penalty exp(x_j) per coordinate, validation loss above."""
    g = torch.Generator().manual_seed(seed)
    X, Xv = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    w = torch.randn(d, generator=g, dtype=torch.float64) * (torch.arange(d) < d // 3)
    b, bv = (A @ w + 0.5 * torch.randn(n, generator=g, dtype=torch.float64) for A in (X, Xv))
    zeros = torch.zeros(d, dtype=torch.float64)
    o = AutoOracle(
        lambda x, y: 0.5 * ((Xv @ y - bv) ** 2).sum(),
        lambda x, y: 0.5 * ((X @ y - b) ** 2).sum() + 0.5 * (torch.exp(x) * y * y).sum(),
        zeros,
        zeros,
        box(d, -8.0, 8.0),
    )
    o.data = (X, Xv, b, bv)
    o._H = lambda x, y: X.T @ X + torch.diag(torch.exp(x))
    return o


def logistic(n: int = 200, d: int = 20, seed: int = 0, lower: float = -8.0) -> AutoOracle:
    """l2-logistic regression with a penalty exp(x_j) per feature, held-out loss above."""
    g = torch.Generator().manual_seed(seed)
    X, Xv = (torch.randn(n, d, generator=g, dtype=torch.float64) for _ in range(2))
    w = torch.randn(d, generator=g, dtype=torch.float64)
    b, bv = (torch.sign(A @ w + torch.randn(n, generator=g, dtype=torch.float64)) for A in (X, Xv))
    zeros = torch.zeros(d, dtype=torch.float64)
    softplus = torch.nn.functional.softplus
    return AutoOracle(
        lambda x, y: softplus(-bv * (Xv @ y)).mean(),
        lambda x, y: softplus(-b * (X @ y)).mean() + 0.5 * (torch.exp(x) * y * y).sum() / n,
        zeros,
        zeros,
        box(d, lower, 8.0),
    )


class Cleaning(HandOracle):
    """Data hyper-cleaning: a weight sigmoid(x_i) per sample of a softmax regression, clean
    validation loss above.
    """

    def __init__(
        self,
        n: int,
        d: int,
        classes: int,
        *,
        ridge: float = 1e-4,
        corrupt: float = 0.5,
        seed: int = 0,
    ) -> None:
        rng = np.random.default_rng(seed)
        spectrum = np.arange(1, d + 1) ** -1.0  # pixels: a few strong directions, many weak ones
        mix = np.linalg.qr(rng.standard_normal((d, d)))[0]
        centres = rng.standard_normal((classes, d)) * spectrum * 0.7

        def draw() -> tuple[Vec, np.ndarray]:
            label = rng.integers(0, classes, n)
            Z = (centres[label] + rng.standard_normal((n, d)) * spectrum) @ mix
            return torch.from_numpy(Z), label

        (self.X, label), (self.V, clean) = draw(), draw()
        self.wrong = rng.random(n) < corrupt
        label = np.where(self.wrong, rng.integers(0, classes, n), label)
        eye = torch.eye(classes, dtype=torch.float64)
        self.T, self.U = eye[torch.from_numpy(label)], eye[torch.from_numpy(clean)]
        self.ridge, self.shape = ridge, (d, classes)
        super().__init__(
            torch.zeros(n, dtype=torch.float64), torch.zeros(d * classes, dtype=torch.float64)
        )

    def _logits(self, X: Vec, y: Vec) -> Vec:
        return X @ y.reshape(self.shape)

    def _F(self, x, y):
        Z = self._logits(self.V, y)
        return (torch.logsumexp(Z, 1) - (Z * self.U).sum(1)).mean()

    def _f(self, x, y):
        Z = self._logits(self.X, y)
        loss = torch.logsumexp(Z, 1) - (Z * self.T).sum(1)
        return (torch.sigmoid(x) * loss).mean() + 0.5 * self.ridge * (y @ y)

    def value_grad_f(self, x, y):
        self.counts.f += 1
        self.counts.grad_f += 1
        Z = self._logits(self.X, y)
        top = torch.logsumexp(Z, 1)
        w = torch.sigmoid(x) / x.numel()
        value = w @ (top - (Z * self.T).sum(1)) + 0.5 * self.ridge * (y @ y)
        R = (torch.exp(Z - top[:, None]) - self.T) * w[:, None]
        return float(value), (self.X.T @ R).flatten() + self.ridge * y

    def _gf(self, x, y):
        R = (torch.softmax(self._logits(self.X, y), 1) - self.T) * (torch.sigmoid(x) / x.numel())[
            :, None
        ]
        return (self.X.T @ R).flatten() + self.ridge * y

    def _gF(self, x, y):
        R = (torch.softmax(self._logits(self.V, y), 1) - self.U) / self.V.shape[0]
        return torch.zeros_like(x), (self.V.T @ R).flatten()

    def hvp(self, x, y):
        multiply = self._products(x, y)

        def product(v: Vec) -> Vec:
            self.counts.hvp += 1
            return multiply(v)

        return product

    def _hv(self, x, y, v):
        return self._products(x, y)(v)

    def _products(self, x: Vec, y: Vec) -> Callable[[Vec], Vec]:
        P = torch.softmax(self._logits(self.X, y), 1)
        w = (torch.sigmoid(x) / x.numel())[:, None]

        def multiply(v: Vec) -> Vec:
            PA = P * self._logits(self.X, v)
            return (self.X.T @ (w * (PA - P * PA.sum(1, keepdim=True)))).flatten() + self.ridge * v

        return multiply

    def _jv(self, x, y, v):
        s = torch.sigmoid(x)
        R = torch.softmax(self._logits(self.X, y), 1) - self.T
        return s * (1 - s) / x.numel() * (R * self._logits(self.X, v)).sum(1)


def merely_convex(n: int = 3, y2: float = 5.0) -> AutoOracle:
    """6.3: the lower level leaves y2 free; implicit differentiation converges to the wrong
    point.
    """
    start = torch.cat([torch.zeros(n), torch.full((n,), y2)]).to(torch.float64)
    return AutoOracle(
        lambda x, y: 0.5 * ((x - y[n:]) ** 2).sum() + 0.5 * ((y[:n] - 1) ** 2).sum(),
        lambda x, y: 0.5 * (y[:n] ** 2).sum() - x @ y[:n],
        torch.zeros(n, dtype=torch.float64),
        start,
    )


def box_kink(x0: float = 0.3) -> AutoOracle:
    """6.10: x* = y* = 1, F* = 0.55 at a kink of slopes -0.9 and 0.1."""
    return AutoOracle(
        lambda x, y: (0.5 * (y - 2) ** 2 + 0.05 * x * x).sum(),
        lambda x, y: (0.5 * (y - x) ** 2).sum(),
        vec(x0),
        vec(0.0),
        domain_y=box(1, 0.0, 1.0),
    )


def simplex_case(x0: Vec) -> AutoOracle:
    """6.11: y(x) = projection of x onto the simplex; F* = 0.00113636..."""
    t = vec(0.3, 0.25, 0.2, 0.15, 0.1)
    return AutoOracle(
        lambda x, y: 0.5 * ((y - t) ** 2).sum() + 0.05 * (x * x).sum(),
        lambda x, y: 0.5 * (y * y).sum() - x @ y,
        x0,
        torch.full((5,), 0.2, dtype=torch.float64),
        domain_y=ProductSet([Block("simplex", 0, 1, 5)], 5),
    )
