"""The compiled model with rows: values, products, responses and hypergradients against SciPy's."""

import numpy as np
import pytest
from scipy.optimize import minimize

import bilevelpy as bl

TEXT = """
model c;
param c[2] = [1, 3];
upper {
  var x in [0, 10] start 2;
  minimize (x - 3)^2 + sum(y);
  subject to
    total: x + sum(y) <= 20;
    both: 1 <= x <= 9;
}
lower low {
  var y[2] in [0, inf];
  minimize sum((y - x * c)^2);
  subject to
    cap: y[1] <= 0.5 * x;
    sum_of: y[1] + y[2] == 2;
}
"""


@pytest.fixture(scope="module")
def oracle() -> object:
    return bl.compile(bl.parse(TEXT))


def response(x: float) -> np.ndarray:
    rows = [
        {"type": "ineq", "fun": lambda y: 0.5 * x - y[0]},
        {"type": "eq", "fun": lambda y: y.sum() - 2},
    ]
    start, box = np.ones(2), [(0, None)] * 2

    def off(y: np.ndarray) -> float:
        return float(((y - [x, 3 * x]) ** 2).sum())

    return minimize(off, start, bounds=box, constraints=rows, tol=1e-14).x


def test_rows_have_names_values_and_products(oracle) -> None:
    x, y = [2.0], [0.3, 0.4]
    assert repr(oracle) == "<Oracle of c: n = 1, m = 2, 3 upper and 2 lower rows>"
    assert oracle.g.places == {"low.cap": slice(0, 1), "low.sum_of": slice(1, 2)}
    assert oracle.G.places == {"upper.total": slice(0, 1), "upper.both": slice(1, 3)}
    assert oracle.g.equality.tolist() == [False, True]
    assert np.allclose(oracle.g(x, y), [-0.7, -1.3])
    assert np.allclose(oracle.G(x, y), [-17.3, -1, -7])
    for rows in (oracle.g, oracle.G):
        by_x, by_y = rows.jacobian(x, y)
        u, dx, dy = np.arange(1.0, rows.size + 1), [0.3], [0.1, -2]
        assert np.allclose(np.concatenate(rows.vjp(x, y)(u)), [*(by_x.T @ u), *(by_y.T @ u)])
        assert np.allclose(rows.jvp(x, y)(dx, dy), by_x @ dx + by_y @ dy)
        h = 1e-6
        assert np.allclose((rows([2 + h], y) - rows([2 - h], y)) / (2 * h), by_x[:, 0])


@pytest.mark.parametrize("x", [0.7, 2.0, 3.0])
def test_responses_keep_the_rows(oracle, x: float) -> None:
    assert np.allclose(oracle.response([x]), response(x), atol=1e-6)
    h = 1e-5
    F = [(x + s - 3) ** 2 + response(x + s).sum() for s in (h, -h)]
    assert np.allclose(oracle.hypergradient([x]), (F[0] - F[1]) / (2 * h), atol=1e-5)


@pytest.mark.parametrize(
    ("follower", "said"),
    [
        ("minimize y; subject to g: y >= x;", "not linear; every term is affine"),
        ("minimize (y - x)^2; subject to g: y^2 <= x;", "affine in the lower variables; `g` is"),
        ("minimize sin(y); subject to g: y <= x;", "is convex and not linear"),
        ("minimize y^2 + relu(2 - y); subject to g: y <= x;", r"is smooth; `relu .* has a kink"),
    ],
)
def test_rows_that_it_cannot_take_are_refused(follower: str, said: str) -> None:
    upper = "model c; upper { var x in [1, 3]; minimize x * y; }"
    oracle = bl.compile(bl.parse(f"{upper} lower l {{ var y in [0, 9]; {follower} }}"))
    with pytest.raises(bl.BackendError, match=said):
        oracle.response([1.0])


@pytest.mark.parametrize("vector", [[1.0, 2.0], "a", None])
def test_vectors_of_another_kind_are_refused(oracle, vector: object) -> None:
    with pytest.raises(bl.UsageError, match="expected a vector of length 1"):
        oracle.F(vector, [1.0, 1.0])


MODEL = bl.parse("model m; upper { var x in [0, 1]; maximize x; }")


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: bl.load(MODEL), "load takes the path of a file"),
        (lambda: bl.read(3), "read takes the path of a file"),
        (lambda: bl.load_result(3), "load_result takes the path of a file"),
        (lambda: bl.export(MODEL, to="lp", path=3), "export takes the path of a file"),
        (lambda: bl.parse(None), "parse takes the text of a model"),
        (lambda: bl.parse("toy.blv"), "`load` reads the file toy.blv"),
        (lambda: bl.solve("model m; upper { }"), "bl.parse reads texts"),
        (lambda: bl.solve(MODEL, externs=3), "externs takes a mapping"),
        (lambda: bl.parse("model m;", externs=3), "externs takes a mapping"),
        (lambda: bl.dispatch(3), "dispatch takes a structure or a model"),
        (lambda: bl.sweep(MODEL, params=3), "params takes names"),
        (lambda: bl.sweep(MODEL, seeds=3), "seeds takes a list"),
    ],
)
def test_arguments_of_another_type_are_refused(call, said: str) -> None:
    with pytest.raises(bl.UsageError, match=said):
        call()


def test_a_model_is_dispatched_as_its_structure_is() -> None:
    assert bl.dispatch(MODEL).chosen == bl.dispatch(bl.analyze(MODEL)).chosen


UPPER = "upper { var x in [0.1, 1]; minimize (y[1] - 1)^2; }"


def test_responses_sit_on_the_kinks_of_absolute_values() -> None:
    follower = "minimize (y[1] - 2)^2 + (y[2] - 0.1)^2 + x * norm1(y);"
    oracle = bl.compile(bl.parse(f"{UPPER} lower l {{ var y[2]; {follower} }}"))
    assert oracle.response([0.6]) == pytest.approx([1.7, 0.0], abs=1e-12)
    # y(x) = (2 - x / 2, 0): dPhi/dx = -(y_1 - 1).
    assert oracle.hypergradient([0.6]) == pytest.approx([-0.7], abs=1e-9)


def test_groups_are_solved_by_their_support() -> None:
    # y = (1 - x / 2 / |c|) c for c = (2, 1).
    follower = "minimize sum((y[j] - c[j])^2 for j in 2) + x * norm2(y);"
    text = f"param c[2] = [2, 1]; {UPPER} lower l {{ var y[2]; {follower} }}"
    oracle = bl.compile(bl.parse(text))
    shrunk = 1 - 0.6 / 2 / 5**0.5
    assert oracle.response([0.6]) == pytest.approx([2 * shrunk, shrunk], rel=1e-9)
    slope = 2 * (2 * shrunk - 1) * (-1 / 5**0.5)
    assert oracle.hypergradient([0.6]) == pytest.approx([slope], rel=1e-8)


@pytest.mark.parametrize("weight", [0.1, 0.6])
def test_hypergradients_beside_kinks_and_none_on_them(weight: float) -> None:
    # y_1 = y_2 from the weight 0.2 on, y_1 = 1.2 - x / 2 below.
    follower = "minimize (y[1] - 1.2)^2 + (y[2] - 1)^2 + x * abs(y[1] - y[2]);"
    oracle = bl.compile(bl.parse(f"{UPPER} lower l {{ var y[2] start 2; {follower} }}"))
    if weight < 0.2:
        assert oracle.hypergradient([weight]) == pytest.approx([-(0.2 - weight / 2)], rel=1e-6)
        return
    with pytest.raises(bl.BackendError, match=r"kink|at no solution"):
        oracle.hypergradient([weight])


GAME = "lower {} nash {{ var {}; minimize ({} - x)^2 + u * v; }}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "upper { var x in [0, 1]; minimize u^2; }"
            + GAME.format("a", "u", "u")
            + GAME.format("b", "v", "v"),
            "plays a Nash game",
        ),
        (
            "upper { var x in [0.01, 1]; minimize (y - 1)^2; } "
            "lower f { var y start 3; minimize (y - x)^2; assume steps(2, 0.1); }",
            "follows given steps",
        ),
        (
            "upper { var x in [0, 1]; minimize y^2; } "
            "lower f { var y in [-2, 2]; minimize y^4 - y^2 + 0.06 * y; }",
            "ended at no solution",
        ),
        (
            "upper { var x in [0, 1]; minimize x^2 + y; } "
            "lower f { var y in [-1, 1]; minimize x * y; }",
            "ended at no solution",
        ),
        (
            "upper { var x in [0, 1]; minimize x^2 + y; } "
            "lower f { var y in [-1, 1], z; minimize (z - x)^2; }",
            "`y` does not occur",
        ),
    ],
)
def test_levels_that_are_no_single_minimum_have_no_hypergradient(text: str, said: str) -> None:
    with pytest.raises(bl.BackendError, match=said):
        bl.compile(bl.parse(text)).hypergradient([0.6])
