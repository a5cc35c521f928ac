"""Sparse Hessians: patterns against dense Hessians, and the band that they are kept in."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import scipy.sparse as sp
import torch

import bilevelpy as bl
from bilevelpy.lowering.domains.product import Face
from bilevelpy.lowering.hessians.bands import Bands, bands
from bilevelpy.lowering.hessians.sparsity import linear_map
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.lower.banded_curvature import BandedCurvature
from bilevelpy.numerics.lower.newton import newton

HEAD = "model t; DIMS upper { var x[n] start 0.1; minimize sumsq(x) + sumsq(y); } "
CHAIN = HEAD.replace("DIMS", "dim n; param a[n];") + (
    "lower f { var y[n]; minimize sum(a[i]*(y[i]-x[i])^2 for i in n)"
    " + sum(LINK for i in 1..card(n)-1); }"
)
GRID = """
model t; dim r, c;
upper { var x[r, c] start 0.2; minimize sumsq(x) + sumsq(y); }
lower f {
  var y[r, c], b;
  minimize sum((y[i,j] + b - x[i,j])^2 for i in r, j in c) + b^4
    + sum(sqrt(1 + (y[i+1,j] - y[i,j])^2) for i in 1..card(r)-1, j in c)
    + sum(exp(y[i,j+1] - y[i,j]) for i in r, j in 1..card(c)-1);
}
"""
NETWORK = """
model t;
set NODE = {"A", "B", "C", "D", "E"};
set ARC within NODE * NODE = {("A","B"), ("B","C"), ("C","D"), ("D","E"), ("E","A")};
param w[ARC];
upper { var x[NODE]; minimize sumsq(x) + sumsq(y); }
lower f {
  var y[NODE], z[ARC];
  minimize sum((y[i] - x[i])^2 for i in NODE) + sum(w[i,j]*(y[i] - y[j])^2 for (i,j) in ARC)
    + sum(z[i,j]^2 + z[i,j]*y[j] for (i,j) in ARC);
}
"""
Make = Callable[[], TorchOracle]


def oracle(text: str, data: dict[str, object]) -> TorchOracle:
    return TorchOracle(bl.parse(text, data=data).bound)


def seen(functions: TorchOracle) -> sp.csr_array | None:
    second = functions._df.product(by_x=False, by_y=True)
    assert second is not None
    builder, data = functions.bound.program.builder, functions.bound.data
    return linear_map(builder, data, second.roots, second.along, values=False)


def band(functions: TorchOracle) -> Bands | None:
    found = seen(functions)
    assert found is not None
    return bands(found)


def point(functions: TorchOracle) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(functions.n, generator=draw, dtype=torch.float64)
    return x, torch.randn(functions.m, generator=draw, dtype=torch.float64)


def chain(link: str, n: int = 24) -> TorchOracle:
    return oracle(CHAIN.replace("LINK", link), {"a": 1.0 + np.arange(n) / n})


def matrix(objective: str, A: object) -> TorchOracle:
    dims = "dim n, k; param A[k, n];" if "A @" in objective else "dim n; param A[n, n];"
    text = HEAD.replace("DIMS", dims) + f"lower f {{ var y[n]; minimize {objective}; }}"
    return oracle(text, {"A": A})


CASES: dict[str, Make] = {
    "squares": lambda: chain("(y[i+1] - y[i])^2"),
    "products": lambda: chain("y[i+1]*y[i]*x[i]"),
    "nested": lambda: chain("exp(y[i]*y[i+1] - y[i+1])"),
    "powers": lambda: chain("(y[i+1] - 2*y[i])^4"),
    "grid with an intercept": lambda: oracle(GRID, {"r": 15, "c": 8}),
    "network": lambda: oracle(NETWORK, {"w": np.arange(1.0, 6.0)}),
    "matrix with zeros": lambda: matrix(
        "quad(y, A)/2 + sum(exp(y)) - dot(x, y)",
        np.diag(np.full(30, 3.0)) + np.diag(np.ones(28), 2) + np.diag(np.ones(28), -2),
    ),
    "sparse matrix": lambda: matrix(
        "sum(softplus(A @ y)) + sumsq(y - x)", sp.csr_array(np.eye(30)[:27] - np.eye(30, k=2)[:27])
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_pattern_holds_the_hessian(name: str) -> None:
    functions = CASES[name]()
    found = seen(functions)
    assert found is not None
    H = functions.hessian(*point(functions)).numpy()
    assert not ((H != 0) & (found.toarray() == 0)).any()
    assert found.nnz < H.size


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("name", [n for n in CASES if n != "network"])
def test_solves_in_the_band_are_those_of_the_dense_matrix(name: str, held: bool) -> None:
    functions = CASES[name]()
    known = band(functions)
    assert known is not None
    x, y = point(functions)
    H = functions.hessian(x, y).numpy()
    H = H + np.eye(functions.m) * max(0.0, 1.0 - 2.0 * float(np.linalg.eigvalsh(H)[0]))
    free = np.ones(functions.m, dtype=bool)
    free[:: 3 if held else functions.m] = not held

    class Fixed:
        """The products of a given matrix."""

        def hvp(self, x: torch.Tensor, y: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
            return lambda v: torch.from_numpy(H) @ v

    curvature = BandedCurvature(known)
    curvature.refresh(Fixed(), x, y)  # type: ignore[arg-type]
    assert curvature.settle(Face(functions.m, torch.from_numpy(free), ()))
    assert not curvature.negative
    v = np.linspace(-1, 1, functions.m)
    exact = np.zeros(functions.m)
    exact[free] = np.linalg.solve(H[np.ix_(free, free)], v[free])
    np.testing.assert_allclose(curvature.solve(torch.from_numpy(v)).numpy(), exact, atol=1e-10)


def test_an_indefinite_matrix_is_said_to_be_one() -> None:
    functions = chain("0 - 5*(y[i+1] - y[i])^2", 40)
    known = band(functions)
    assert known is not None
    curvature = BandedCurvature(known)
    x, y = point(functions)
    curvature.refresh(functions, x, y)
    assert curvature.settle(functions.domain_y.face(y, 0 * y))
    assert curvature.negative


def test_products_do_not_grow_with_the_chain() -> None:
    known = [band(chain("(y[i+1] - y[i])^2", n)) for n in (100, 1000)]
    assert all(k is not None and k.products <= 6 and k.width == 1 for k in known)


def test_dense_data_have_no_band() -> None:
    A = np.random.default_rng(0).standard_normal((400, 300))
    assert matrix("sumsq(A @ y - 1) + sumsq(y - x)", A).bands is None


def test_newton_on_a_long_chain_of_a_large_condition_number() -> None:
    n = 5000
    functions = chain("1e5*(y[i+1] - y[i])^2", n)
    assert functions.bands is not None
    x = torch.sin(torch.arange(n, dtype=torch.float64))
    found = newton(functions, x, functions.y0, BandedCurvature(functions.bands), tol=1e-10)
    assert found.usable
    a = 1.0 + np.arange(n) / n
    D = sp.diags_array([-np.ones(n - 1), np.ones(n - 1)], offsets=[0, 1], shape=(n - 1, n))
    H = sp.csc_array(sp.diags_array(2 * a) + 2e5 * D.T @ D)
    exact = sp.linalg.spsolve(H, 2 * a * x.numpy())
    np.testing.assert_allclose(found.y.numpy(), exact, rtol=1e-7, atol=1e-9)


def test_a_smoothing_weight_is_found_where_gradients_alone_would_crawl() -> None:
    n = 3000
    target = np.sin(np.arange(n) / 100)
    noisy = target + 0.3 * np.random.default_rng(0).standard_normal(n)
    text = """
    model smooth; dim n; param t[n], z[n];
    upper { var s in [-5, 20]; minimize sum((y[i] - t[i])^2 for i in n) / card(n); }
    lower f { var y[n]; minimize sum((y[i] - z[i])^2 for i in n)
      + exp(s) * sum((y[i] - 2*y[i+1] + y[i+2])^2 for i in 1..card(n)-2); }
    """
    model = bl.parse(text, data={"t": target, "z": noisy})
    facts = bl.analyze(model)
    assert facts.bands is not None
    assert facts.bands.value[1] == 2
    result = bl.solve(model, progress=False)
    assert (result.backend, result.status) == ("direct", "converged")
    # Against sparse solves over a grid of weights.
    parts = [np.ones(n - 2), -2 * np.ones(n - 2), np.ones(n - 2)]
    D = sp.diags_array(parts, offsets=[0, 1, 2], shape=(n - 2, n))
    P = sp.csc_array(D.T @ D)

    def loss(s: float) -> float:
        y = sp.linalg.spsolve(sp.csc_array(sp.eye_array(n) + np.exp(s) * P), noisy)
        return float(np.mean((y - target) ** 2))

    best = min(loss(s) for s in np.linspace(-5, 20, 26))
    assert result.F - best <= 1e-6 * best
