"""The Python interface on small problems with known answers."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl

# y(x) = 2 x / 1.1, F = (y - 3)^2 + weight x^2: x = 3 a / (a^2 + weight), a = 2 / 1.1.
TOY = """\
model toy "A toy";
param weight in [0, inf];
upper {
  var x in [-10, 10] start 0;
  minimize (y - 3)^2 + weight * x^2;
}
lower follower {
  var y;
  minimize (y - 2 * x)^2 / 2 + 0.05 * y^2;
}
report distance = abs(y - 3);
"""
A = 2 / 1.1
RIDGE = """\
dim n, m, p;
param X[n, p], y[n], Xv[m, p], yv[m];
upper {
  var lam[p] in [-5, 5] start 0;
  minimize mean((Xv @ w - yv)^2);
}
lower fit {
  var w[p];
  minimize mean((X @ w - y)^2) + sum(exp(lam) * w^2);
}
report train = mean((X @ w - y)^2);
"""


def answer(weight: float) -> float:
    return 3 * A / (A**2 + weight)


def ridge_data(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    X, Xv, w = rng.normal(size=(20, 3)), rng.normal(size=(15, 3)), np.array([1.0, -2.0, 0.0])
    return {"X": X, "y": X @ w + rng.normal(size=20), "Xv": Xv, "yv": Xv @ w}


@pytest.fixture(scope="module")
def toy() -> bl.Model:
    return bl.parse(TOY, weight=1)


@pytest.fixture(scope="module")
def ridge() -> bl.Model:
    return bl.parse(RIDGE, data=ridge_data())


def test_solve(toy: bl.Model) -> None:
    r = bl.solve(toy)
    assert r.success
    assert r["x"] == pytest.approx(answer(1), abs=1e-7)
    assert r.reports["distance"] == pytest.approx(3 - A * answer(1), abs=1e-7)
    assert r.f["follower"] == pytest.approx((r["y"] - 2 * r["x"]) ** 2 / 2 + 0.05 * r["y"] ** 2)
    assert r.raise_for_status() is r
    assert isinstance(r["x"], np.ndarray)


def test_a_path_works_too(tmp_path: Path) -> None:
    path = tmp_path / "toy.blv"
    path.write_text(TOY)
    assert bl.solve(str(path), weight=2)["x"] == pytest.approx(answer(2), abs=1e-7)
    assert bl.solve(path, data={"weight": 2})["x"] == pytest.approx(answer(2), abs=1e-7)
    np.savez(tmp_path / "d.npz", weight=0.5)
    assert bl.solve(path, data=tmp_path / "d.npz")["x"] == pytest.approx(answer(0.5), abs=1e-7)
    model = bl.load(path, data=[tmp_path / "d.npz"])
    assert bl.solve(model)["x"] == pytest.approx(answer(0.5), abs=1e-7)


def test_rebinding_keeps_what_is_not_given(ridge: bl.Model) -> None:
    other = ridge_data(1)
    rebound = ridge.bind(y=other["y"], data={"yv": other["yv"]})
    assert rebound.program is ridge.program
    np.testing.assert_array_equal(rebound.bound.data.arrays["X"], ridge_data()["X"])
    np.testing.assert_array_equal(rebound.bound.data.arrays["y"], other["y"])
    fresh = bl.parse(RIDGE, data={**ridge_data(), "y": other["y"], "yv": other["yv"]})
    np.testing.assert_allclose(bl.solve(rebound)["lam"], bl.solve(fresh)["lam"], atol=1e-6)


def test_arrays_are_kept_by_reference() -> None:
    data = ridge_data()
    model = bl.parse(RIDGE, data=data)
    assert np.shares_memory(model.bound.data.arrays["X"], data["X"])


def test_model_shows_itself(ridge: bl.Model, toy: bl.Model) -> None:
    text = repr(ridge)
    assert "n = 20" in text
    assert "X[20, 3]" in text
    assert "minimize mean((Xv @ w - yv)^2)" in text
    assert 'model toy "A toy"' in toy.summary()


def test_all_errors_at_once() -> None:
    with pytest.raises(bl.ModelError) as caught:
        bl.parse(TOY.replace("(y - 3)^2", "(z - 3)^2").replace("0.05 * y^2", "0.05 * v^2"))
    assert [d.code for d in caught.value.diagnostics] == ["BLV0201", "BLV0201"]
    assert "unknown name `z`" in str(caught.value)
    with pytest.raises(bl.DataError, match="weight"):
        bl.parse(TOY)
    with pytest.raises(bl.DataError, match="BLV0405"):
        bl.parse(TOY, weight=-1)


def test_wrong_names_are_suggested(toy: bl.Model) -> None:
    with pytest.raises(bl.UsageError, match=r"unknown option `maxiter` .did you mean `max_iter`"):
        bl.solve(toy, maxiter=3)
    with pytest.raises(bl.UsageError, match=r"no data called `weigth` .did you mean `weight`"):
        bl.solve(toy, weigth=3)
    with pytest.raises(bl.UsageError, match=r"neither an option nor data .*: weight, data"):
        bl.solve(toy, tolerance=1e-3)
    with pytest.raises(bl.UsageError, match="`x` is a variable of model `toy`, not data"):
        bl.solve(toy, x=3)
    with pytest.raises(bl.UsageError, match="no variable `z`; there are: x, "):
        bl.solve(toy, start={"z": 1})
    with pytest.raises(bl.UsageError, match="did you mean `weight`"):
        bl.parse(TOY, wieght=3)
    with pytest.raises(bl.UsageError, match="did you mean `direct`"):
        bl.solve(toy, backend="dircet")
    with pytest.raises(bl.UsageError, match="no option `lowertol`"):
        bl.solve(toy, backend="direct", options={"lowertol": 1})
    with pytest.raises(bl.UsageError, match="dtype takes float64 or float32, found 'float16'"):
        bl.solve(toy, dtype="float16")
    with pytest.raises(bl.UsageError, match="tol must lie between"):
        bl.solve(toy, tol=0)
    with pytest.raises(bl.UsageError, match="a model is a `Model` or the path"):
        bl.solve(3)  # type: ignore[arg-type]


def test_start_callback_and_history(ridge: bl.Model) -> None:
    cold = bl.solve(ridge)
    warm = bl.solve(ridge, start={"lam": cold["lam"], "fit.w": cold["w"]})
    again = bl.solve(ridge, start=cold)
    assert (again.F, again.iterations) == (warm.F, warm.iterations)
    assert warm.iterations <= 1 < cold.iterations / 3
    seen: list[Any] = []

    def stop(state: Any) -> bool:
        seen.append(state)
        with pytest.raises(ValueError, match="read-only"):
            state.x[0] = 1.0
        return len(seen) == 3

    stopped = bl.solve(ridge, callback=stop)
    assert stopped.status == "interrupted"
    assert stopped.iterations == 2
    assert len(stopped.history) == 3
    for wrong in ({"lamb": 1}, {"lam": [1, 2]}, {"lam": "a"}, {"lam": math.nan}):
        with pytest.raises(bl.UsageError, match="start: "):
            bl.solve(ridge, start=wrong)


def test_an_exception_of_a_callback_is_the_callers(toy: bl.Model) -> None:
    def fail(state: Any) -> None:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        bl.solve(toy, callback=fail)


def test_watched_reports(ridge: bl.Model) -> None:
    r = bl.solve(ridge, watch=["train"])
    assert r.history[-1].reports["train"] == pytest.approx(r.reports["train"], rel=1e-6)
    with pytest.raises(bl.UsageError, match=r"no report `trian` .did you mean `train`"):
        bl.solve(ridge, watch=["trian"])


def test_without_verification_nothing_is_converged(toy: bl.Model) -> None:
    r = bl.solve(toy, verify=False)
    assert (r.status, r.certificate) == ("stalled", None)
    assert "not verified" in r.message


def test_the_same_seed_gives_the_same_run() -> None:
    first, second = (bl.solve(bl.parse(RIDGE, data=ridge_data()), seed=5) for _ in range(2))
    np.testing.assert_array_equal(first["lam"], second["lam"])
    assert first.counts == second.counts
    assert first.certificate == second.certificate


def test_provenance(toy: bl.Model) -> None:
    p = bl.solve(toy, seed=3).provenance
    assert p["seed"] == 3
    assert p["versions"]["bilevelpy"] == bl.__version__
    assert p["versions"]["torch"].startswith("2.13.0")
    assert p["options"]["backend"] in bl.backends()
    assert p["model_hash"] == bl.solve(toy).provenance["model_hash"]
    assert p["data_hash"] != bl.solve(toy, weight=2).provenance["data_hash"]


def test_analyze_and_dispatch(ridge: bl.Model) -> None:
    s = bl.analyze(ridge)
    assert (s.dim_x, s.dim_y) == (3, 3)
    assert s.convexity.value == "strongly convex"
    d = bl.dispatch(s)
    assert d.chosen in bl.backends()
    assert bl.solve(ridge).backend == d.chosen
    assert bl.dispatch(s, backend="aid").chosen == "aid"


def test_maximisation_keeps_its_sign() -> None:
    model = bl.parse(
        TOY.replace("minimize (y - 3)^2 + weight", "maximize -(y - 3)^2 - weight"), weight=1
    )
    r = bl.solve(model)
    assert r["x"] == pytest.approx(answer(1), abs=1e-7)
    assert pytest.approx(r.F) == -bl.solve(bl.parse(TOY, weight=1)).F
    assert pytest.approx(r.F) == r.history[-1].F


def test_what_no_method_takes_is_refused() -> None:
    model = bl.parse(
        "model m; dim k = 2; upper { var x in integers(0, 1); minimize x + trace(S); } "
        "lower f { var S[k, k] in psd; minimize sumsq(S - x * eye(k)); }"
    )
    assert bl.analyze(model).unsupported
    with pytest.raises(bl.BackendError, match="discrete upper variable"):
        bl.solve(model)
    for backend in bl.backends():
        with pytest.raises(bl.BackendError):
            bl.solve(model, backend=backend)


def test_a_named_backend_refuses_what_it_does_not_take() -> None:
    text = TOY.replace("0.05 * y^2;", "0.05 * y^2;\n  subject to\n    cap: y <= 1;")
    for backend in ("direct", "aid", "qnbo"):
        with pytest.raises(bl.BackendError, match="cap"):
            bl.solve(bl.parse(text, weight=1), backend=backend)


def test_compile_gives_functions_of_vectors(ridge: bl.Model) -> None:
    o = bl.compile(ridge)
    data = ridge_data()
    assert (o.n, o.m) == (3, 3)
    lam = np.array([0.3, -0.2, 0.1])
    X, y = data["X"], data["y"]
    H = 2 * (X.T @ X / 20 + np.diag(np.exp(lam)))
    w = np.linalg.solve(H, 2 * X.T @ y / 20)
    np.testing.assert_allclose(o.response(lam), w, rtol=1e-9)
    assert o.f(lam, w) == pytest.approx(np.mean((X @ w - y) ** 2) + np.exp(lam) @ w**2)
    np.testing.assert_allclose(o.grad_f(lam, w), 0, atol=1e-12)
    np.testing.assert_allclose(o.hessian(lam, w), H, rtol=1e-12)
    by_y, by_x = o.pullback(lam, w)(np.ones(3))
    np.testing.assert_allclose(by_y, H @ np.ones(3), rtol=1e-12)
    np.testing.assert_allclose(by_x, 2 * np.exp(lam) * w, rtol=1e-12)
    gF = 2 * data["Xv"].T @ (data["Xv"] @ w - data["yv"]) / 15
    np.testing.assert_allclose(o.grad_F(lam, w)[1], gF, rtol=1e-10)
    expected = -2 * np.exp(lam) * w * np.linalg.solve(H, gF)
    np.testing.assert_allclose(o.hypergradient(lam), expected, rtol=1e-8)
    assert o.counts["grad_f"] > 0
    upper, lower = o.unflatten(lam, w)
    np.testing.assert_array_equal(upper["lam"], lam)
    np.testing.assert_array_equal(lower["fit"]["w"], w)
    with pytest.raises(bl.UsageError, match="length 3"):
        o.F(lam, [1.0])


def test_compare(ridge: bl.Model, tmp_path: Path) -> None:
    c = bl.compare(ridge, backends=["direct", "aid"])
    assert list(c.results) == ["direct", "aid"]
    assert pytest.approx(c.results["aid"].F, rel=1e-6) == c.results["direct"].F
    assert repr(c).count("converged") == 2
    c.plot(tmp_path / "c.png")
    assert (tmp_path / "c.png").stat().st_size > 10_000


def test_plugins_and_lists() -> None:
    assert {"direct", "aid", "qnbo"} <= set(bl.backends())
    assert bl.exporters()[:2] == ["json", "mps-aux"]


FOLLOW = " } lower g { var w[2]; minimize sum((w - x)^2); }"
HELD = " } lower g { var w[2] in [0, 1]; minimize sum((w - x)^2); }"


@pytest.mark.parametrize(
    ("text", "F"),
    [
        # A saddle, a maximum, and a response that stands still at its bound: all at the start.
        ("upper { var x[2] in [-1, 1] start 0; minimize w[1]^2 - w[2]^2;" + FOLLOW, -1.0),
        ("upper { var x[2] in [-1, 2] start 0; minimize -sum(w^2);" + FOLLOW, -8.0),
        ("upper { var x[2] in [-5, 5] start 0; minimize sum((w - [3, 0.5])^2);" + HELD, 4.0),
    ],
)
def test_a_run_goes_on_from_lower_ground_that_the_certificate_finds(text: str, F: float) -> None:
    r = bl.solve(bl.parse(text))
    assert r.success, r.message
    assert pytest.approx(F, abs=1e-6) == r.F
    assert [record.iteration for record in r.history] == list(range(r.iterations + 1))


@pytest.mark.parametrize(
    "options",
    [
        {"tol": "a"},
        {"max_iter": 1.5},
        {"seed": "a"},
        {"seed": -1},
        {"time_limit": "1"},
        {"backend": None},
        {"backend": 3},
        {"options": 3},
        {"start": [1, 2]},
        {"checkpoint": 3},
        {"callback": 3},
    ],
)
def test_options_of_the_wrong_kind_are_usage_errors(options: dict[str, Any]) -> None:
    with pytest.raises(bl.UsageError, match=f"^{next(iter(options))} "):
        bl.solve(bl.parse(TOY, weight=1.0), **options)


@pytest.mark.parametrize("backend", ["auto", "aid", "exact"])
def test_a_callback_says_whether_to_stop(backend: str) -> None:
    with pytest.raises(bl.UsageError, match="callback returns whether to stop, found ndarray"):
        bl.solve(
            bl.parse(TOY, weight=1.0),
            backend=backend,
            callback=lambda state: np.array([True, False]),
        )


def test_a_start_outside_of_the_domain_is_told(ridge: bl.Model) -> None:
    outside = bl.solve(ridge, start={"lam": 100}, max_iter=1)
    (said,) = [w for w in outside.warnings if w.startswith("start: ")]
    assert "`lam` lies outside of its domain; the run began at the nearest point inside" in said
    inside = bl.solve(ridge, start={"lam": 5, "fit.w": 1}, max_iter=1)
    assert not [w for w in inside.warnings if w.startswith("start: ")]


def test_one_name_is_no_list_of_letters() -> None:
    model = bl.parse(TOY, weight=1.0)
    assert list(bl.compare(model, backends="aid").results) == ["aid"]
    assert [run.job.backend for run in bl.sweep(model, backends="aid", jobs=1).runs] == ["aid"]


def test_an_objective_that_is_not_finite_at_the_start_is_named() -> None:
    text = (
        "upper { var x in [1, 5]; minimize w; }"
        "lower g { var w in [0, inf] start 0; minimize x*w-log(w); }"
    )
    r = bl.solve(bl.parse(text))
    assert r.status == "diverged"
    assert "the lower one is inf" in r.message


def test_data_that_were_changed_in_place_are_refused() -> None:
    """Factors and statistics are kept from solve to solve: they would answer for the old data."""
    text = """
    dim n, p;
    param X[n, p], y[n], Z[n, p];
    upper { var a in [0.001, 10] start 1; minimize sum((Z @ w - y)^2); }
    lower fit { var w[p]; minimize sum((X @ w - y)^2) + a * sum(w^2); }
    """
    draw = np.random.default_rng(0)
    data = {"X": draw.normal(size=(30, 4)), "Z": draw.normal(size=(30, 4)), "y": np.ones(30)}
    model = bl.parse(text, data=data)
    before = bl.solve(model)
    assert bl.solve(model).F == before.F
    data["X"] *= 2.0
    for use in (bl.solve, bl.analyze, bl.compile):
        with pytest.raises(bl.UsageError, match=r"`X` were changed .* model.bind\(X=...\)"):
            use(model)
    again = bl.solve(model.bind(X=data["X"]))
    assert pytest.approx(bl.solve(bl.parse(text, data=data)).F, rel=1e-9) == again.F
    assert abs(again.F - before.F) > 1e-3
    assert again.provenance["data_hash"]["X"] != before.provenance["data_hash"]["X"]
    data["X"] /= 2.0
    assert bl.solve(model).F == before.F
