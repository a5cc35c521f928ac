"""Pictures of answers show F(x, y(x)) in closed form; what cannot be drawn says why."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.pictures import drawable
from bilevelpy.pictures.response import response
from bilevelpy.plotting.landscape import broken, kinks

MODELS = Path(__file__).parents[3] / "models"
TOLL = """\
model roads;
set NODE = {"a", "b", "c"};
set ARC within NODE * NODE = {("a", "b"), ("b", "c"), ("a", "c"), ("c", "a")};
param cost[ARC] = {("a", "b"): 1, ("b", "c"): 1, ("a", "c"): 3, ("c", "a"): 1};
param place[NODE, 2] = [[0, 0], [1, 1], [2, 0]];
upper {
  var t[ARC] in [0, 1] start 0.5;
  maximize sum(t[a] * f[a] for a in ARC) - sumsq(t);
}
lower flow {
  var f[ARC] in [0, 2];
  minimize sum((cost[a] + t[a]) * f[a] + f[a]^2 - 4 * f[a] for a in ARC);
}
"""
CLEANING = """\
model clean;
dim n, p;
param X[n, p], y[n];
upper {
  var weight[n] in [0, 1] start 0.5;
  minimize sum((X @ w - y)^2) / 100 + sumsq(weight);
}
lower fit {
  var w[p];
  minimize sum(weight * (X @ w - y)^2) + sumsq(w);
}
"""


@pytest.fixture(scope="module")
def kink() -> tuple[bl.Model, bl.Result]:
    model = bl.load(MODELS / "box_kink.blv")
    return model, bl.solve(model)


def lines(figure: Any, label: str) -> Any:
    return next(x for axes in figure.axes for x in axes.lines if x.get_label() == label)


def test_a_landscape_is_the_value_function_with_its_kinks(kink: tuple[bl.Model, bl.Result]) -> None:
    """y(x) is x, cut to [0, 1]; F = (y - 2)^2 / 2 + 0.05 x^2 has kinks at 0 and 1."""
    model, result = kink
    figure = result.plot(kind="landscape", model=model)
    x, F = lines(figure, "$F(x, y(x))$").get_data()
    expected = (np.clip(x, 0, 1) - 2) ** 2 / 2 + 0.05 * x**2
    np.testing.assert_allclose(F, expected, atol=1e-9)
    marked = sorted(
        float(np.ravel(v.get_xdata())[0]) for v in figure.axes[0].lines if v.get_linestyle() == ":"
    )
    np.testing.assert_allclose(marked, [0, 1], atol=0.03)
    path_x, path_F = lines(figure, "path of the run").get_data()
    assert path_x[0] == 3.0  # where the model starts
    np.testing.assert_allclose(path_F, (np.clip(path_x, 0, 1) - 2) ** 2 / 2 + 0.05 * path_x**2)


def test_the_response_along_a_line(kink: tuple[bl.Model, bl.Result]) -> None:
    model, result = kink
    x, y = lines(result.plot(kind="response", model=model, along="x", points=31), "y").get_data()
    assert len(x) == 31
    np.testing.assert_allclose(y, np.clip(x, 0, 1), atol=1e-9)
    with pytest.raises(bl.UsageError, match="no upper variable `lam`"):
        result.plot(kind="response", model=model, along="lam")


def test_a_landscape_over_two_variables(tmp_path: Path) -> None:
    model = bl.parse(
        "model two; upper { var x[2] in [-1, 1]; minimize (y - 1)^2 + sumsq(x); }"
        " lower low { var y; minimize (y - x[1] - 2 * x[2])^2; }"
    )
    result = bl.solve(model)
    sample = response(model.bound)
    F, y = sample(np.array([0.25, -0.5]))
    assert pytest.approx((-0.75 - 1) ** 2 + 0.0625 + 0.25) == F
    assert y == pytest.approx([-0.75])
    for suffix in ("png", "svg"):
        path = tmp_path / f"two.{suffix}"
        result.plot(path, kind="landscape", model=model, points=9)
        assert path.stat().st_size > 1000
    assert result.history[0].x == (0.0, 0.0)


def test_rows_of_the_lower_level_are_solved_too() -> None:
    """Bard (1998), example 5.2.2: y = 4 at the answer x = 4, and no response beyond."""
    model = bl.load(MODELS / "applications" / "bard_lp.blv")
    sample = response(model.bound)
    assert isinstance(model.bound.program.lowers[0].constraints, tuple)
    F, _ = sample(np.array([4.0]))
    assert pytest.approx(F) == bl.solve(model).F
    assert np.isnan(sample(np.array([100.0]))[0])


def test_jumps_are_gaps_and_smooth_curves_have_no_kinks() -> None:
    x = np.linspace(0, 1, 101)
    step = np.where(x < 0.505, 0.1 * x, 5.0 + 0.1 * x)
    assert np.isnan(broken(step)).sum() == 1
    assert not np.isnan(broken(np.exp(3 * x))).any()
    assert kinks(x, np.sin(6 * x)).size == 0
    np.testing.assert_allclose(kinks(x, np.abs(x - 0.5)), [0.5])


def test_a_network_with_coordinates(tmp_path: Path) -> None:
    model = bl.parse(TOLL)
    result = bl.solve(model)
    assert drawable(model.bound)[0] == "network"
    figure = result.plot(tmp_path / "n.svg", kind="network", model=model)
    texts = [t.get_text() for t in figure.axes[0].texts]
    assert {"a", "b", "c"} <= set(texts)
    assert "width and number: f   [brackets]: t" in texts
    f, t = result["f"], result["t"]
    assert f"{f[0]:.3g} [{t[0]:.3g}]" in texts


def test_a_sheet_of_images_in_the_order_of_their_weights(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    model = bl.parse(CLEANING, X=rng.normal(size=(12, 25)), y=rng.normal(size=12))
    result = bl.solve(model, max_iter=5)
    figure = result.plot(tmp_path / "s.png", kind="images", model=model)
    shown = [float(a.get_title()) for part in figure.subfigs for a in part.axes if a.get_title()]
    least, greatest = shown[:6], shown[6:]
    assert least == sorted(least)
    assert greatest == sorted(greatest, reverse=True)
    labelled = model.bind(y=np.arange(12.0) % 3)
    figure = result.plot(kind="images", model=labelled)
    shown_labels = [a.get_title() for a in figure.subfigs[0].axes if a.get_title()]
    order = np.argsort(result["weight"], kind="stable")[:6]
    assert shown_labels == [f"label {i % 3}" for i in order]


@pytest.mark.parametrize(
    ("kind", "why"),
    [
        ("network", "has no network to draw: that takes a set of pairs"),
        ("images", "has no images to draw"),
        ("landscap", "did you mean `landscape`"),
    ],
)
def test_a_picture_that_a_model_lacks(
    kink: tuple[bl.Model, bl.Result], kind: str, why: str
) -> None:
    model, result = kink
    with pytest.raises(bl.UsageError, match=why):
        result.plot(kind=kind, model=model)


def test_a_picture_that_needs_what_is_not_given(kink: tuple[bl.Model, bl.Result]) -> None:
    with pytest.raises(bl.UsageError, match="only the picture `response` moves"):
        kink[1].plot(kind="landscape", model=kink[0], along="x")
    with pytest.raises(bl.UsageError, match="takes no along"):
        kink[1].plot(along="x")
    with pytest.raises(bl.UsageError, match="needs the model"):
        kink[1].plot(kind="landscape")
    model = bl.parse(TOLL)
    result = bl.solve(model)
    with pytest.raises(bl.UsageError, match="`roads` has 4"):
        result.plot(kind="landscape", model=model)
    alone = bl.parse("model a; upper { var x in [0, 1]; minimize x; }")
    with pytest.raises(bl.UsageError, match="has no lower level"):
        kink[1].plot(kind="response", model=alone)


def test_the_values_of_a_game_that_has_no_other_picture(tmp_path: Path) -> None:
    model = bl.load(MODELS / "applications" / "nash_cournot.blv")
    result = bl.solve(model, backend="nlp")
    assert drawable(model.bound) == ["values"]
    figure = result.plot(tmp_path / "v.png", kind="values", model=model)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["Q (upper)", "firm.q (lower)"]
    (dots,) = (x for x in figure.axes[1].lines if x.get_marker() == "s")
    np.testing.assert_allclose(dots.get_ydata(), result["firm.q"])
    assert [t.get_text() for t in figure.axes[1].get_xticklabels()] == ["a", "b"]


def test_many_values_are_counted_and_numbers_share_a_panel() -> None:
    model = bl.parse(
        "model m; dim n = 70; upper { var a in [0, 1], b in [0, 2], w[n] in [0, 1] start 0.5;"
        " minimize sumsq(w) + a + b + y; } lower low { var y; minimize (y - sum(w))^2; }"
    )
    figure = bl.solve(model).plot(kind="values", model=model)
    titles = [axes.get_title() for axes in figure.axes if axes.get_title()]
    assert titles == ["upper (upper)", "w (upper)", "y (lower)"]
    assert figure.axes[1].get_xlabel() == "entry of w"


def test_absolute_values_below_are_solved_not_guessed() -> None:
    """y minimises (y - x)^2 / 2 + |y|: soft thresholding, zero for |x| <= 1."""
    model = bl.parse(
        "model soft; upper { var x in [-4, 4] start 3; minimize (y - 1)^2; }"
        " lower low { var y; minimize (y - x)^2 / 2 + abs(y); }"
    )
    sample = response(model.bound)
    for x in (-3.0, -1.0, 0.5, 2.5):
        F, y = sample(np.array([x]))
        expected = np.sign(x) * max(abs(x) - 1, 0)
        assert y == pytest.approx([expected], abs=1e-8)
        assert pytest.approx((expected - 1) ** 2, abs=1e-8) == F


def test_what_is_not_solved_is_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    from bilevelpy.numerics.certificate.resolve import Resolver

    model = bl.load(MODELS / "box_kink.blv")
    sample = response(model.bound)
    given = Resolver.respond

    def limited(self: Any, x: Any, y: Any, level: float = 1e-9) -> Any:
        return dataclasses.replace(given(self, x, y, level), ended="limit")

    monkeypatch.setattr(Resolver, "respond", limited)
    assert np.isnan(sample(np.array([0.5]))[0])
    drawing = sys.modules["bilevelpy.pictures.draw"]  # its name is that of a function, too
    monkeypatch.setattr(drawing, "response", lambda bound: sample)
    with pytest.raises(bl.UsageError, match="there is nothing to draw"):
        bl.solve(model, verify=False).plot(kind="landscape", model=model, points=5)


def test_by_default_the_entry_moves_that_the_run_has_moved() -> None:
    model = bl.parse(
        "model two; upper { var x[3] in [-1, 1]; minimize sumsq(y - [0, 0.5, 0]); }"
        " lower low { var y[3]; minimize sumsq(y - x); }"
    )
    figure = bl.solve(model).plot(kind="response", model=model, points=7)
    assert figure.axes[1].get_xlabel() == "x[2]"


def test_an_entry_without_effect_is_not_the_one_that_moves() -> None:
    """The penalty pulls x[1] farther than x[2] moves, but only x[2] changes the response."""
    model = bl.parse(
        "model two; upper { var x[2] in [-9, 9] start 0; minimize (y - 1)^2 + (x[1] - 5)^2; }"
        " lower low { var y; minimize (y - x[2])^2; }"
    )
    figure = bl.solve(model).plot(kind="response", model=model, points=7)
    assert figure.axes[1].get_xlabel() == "x[2]"


def test_a_share_moves_and_the_others_divide_the_rest() -> None:
    """The attacker of a linear model hits a corner, at every point of the line."""
    model = bl.load(MODELS / "applications" / "defence_allocation.blv")
    assert "landscape" not in drawable(model.bound)
    figure = bl.solve(model).plot(kind="response", model=model, points=11)
    above, below = figure.axes
    assert above.get_xlabel() == ""
    assert below.get_xlabel().endswith("(the others share the rest)")
    assert below.get_xlim()[1] < 1.2
    values = np.array([line.get_ydata() for line in below.get_lines()[:3]])
    finite = values[np.isfinite(values)]
    assert np.isclose(finite, np.round(finite), atol=1e-6).all()
    # The best reply to cover x is the largest of w (1 - x).
    worth, answer = np.array([10.0, 6.0, 4.0]), np.ravel(bl.solve(model)["cover"])
    moved = int(below.get_xlabel()[len("cover[")]) - 1
    for t, F in zip(*(np.asarray(a) for a in above.get_lines()[0].get_data()), strict=True):
        x = answer * (1 - t) / (1 - answer[moved])
        x[moved] = t
        if np.isfinite(F):
            assert pytest.approx(max(worth * (1 - x)), abs=1e-6) == F


def test_rows_of_the_leader_that_a_line_violates_leave_the_response_alone() -> None:
    model = bl.load(MODELS / "applications" / "svm_selection.blv")
    figure = bl.solve(model).plot(kind="response", model=model, points=5)
    (axes,) = figure.axes
    assert "rows of the leader are violated" in axes.get_xlabel()


def test_a_matrix_of_coefficients_is_no_sheet_of_images() -> None:
    model = bl.load(MODELS / "toy_conditioned.blv")
    assert "images" not in drawable(model.bound)
