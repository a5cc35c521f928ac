"""Kinks of convex followers become rows, and followers that fall apart become several."""

from __future__ import annotations

import math

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.numerics.programs.follower import follower_program
from bilevelpy.reductions.rewriting.lift import lift
from bilevelpy.reductions.rewriting.separate import separate
from bilevelpy.reductions.rows import System, system


def made(text: str, **data: object) -> System:
    return system(bl.parse(text, **data).bound)


def least(program: System, x: float) -> float:
    """The followers' least objectives at x, added up."""
    v = program.columns.start.copy()
    v[program.upper_columns] = x
    answers = [follower_program(program, k, v).solve() for k in range(len(program.followers))]
    return math.fsum(a.objective for a in answers)


def test_absolute_values_become_rows_of_a_quadratic_program() -> None:
    # The lasso with two coefficients: soft thresholds.
    text = """
    upper { var x in [0, 5]; minimize w^2; }
    lower g { var w; var v; minimize (w - 3)^2 / 2 + (v - 0.4)^2 / 2 + x * (abs(w) + abs(v)); }
    """
    lifted = lift(made(text))
    assert lifted.degree == 2
    assert lifted.columns.count == 5
    for x in (0.0, 0.3, 1.0, 4.0):
        soft = [math.copysign(max(abs(a) - x, 0.0), a) for a in (3.0, 0.4)]
        wanted = sum((w - a) ** 2 / 2 + x * abs(w) for w, a in zip(soft, (3.0, 0.4), strict=True))
        assert least(lifted, x) == pytest.approx(wanted, abs=1e-7)


@pytest.mark.parametrize(
    ("objective", "function"),
    [
        ("max(w - x, 2 * x - w)", lambda w, x: np.maximum(w - x, 2 * x - w)),
        ("-2 * min(w - x, 3 - w)", lambda w, x: -2 * np.minimum(w - x, 3 - w)),
        ("max(abs(w - x), 2 * w) + abs(w)", lambda w, x: np.maximum(abs(w - x), 2 * w) + abs(w)),
    ],
)
def test_maxima_minima_and_kinks_in_each_other(objective: str, function) -> None:
    text = f"""
    upper {{ var x in [-3, 3]; minimize w; }}
    lower g {{ var w in [-5, 5]; minimize {objective}; }}
    """
    lifted = lift(made(text))
    assert lifted.degree == 1
    w = np.linspace(-5, 5, 20001)
    for x in (-2.0, 0.0, 1.5):
        assert least(lifted, x) == pytest.approx(function(w, x).min(), abs=1e-3)


@pytest.mark.parametrize("d", [1.0, 0.4])
def test_huber_functions_are_quadratic_in_a_further_variable(d: float) -> None:
    text = f"""
    upper {{ var x in [0, 5]; minimize y; }}
    lower g {{ var y in [-9, 9]; minimize 2 * huber(y - x, {d}) + huber(x) + 0.3 * abs(y - 1); }}
    """
    lifted = lift(made(text))
    assert lifted.lower_objectives.trees.keys() == {0}  # huber(x) is none of the follower's own
    grid = np.linspace(-9, 9, 18_001)

    def huber(r: object, bend: float) -> object:
        s = np.minimum(np.abs(r), bend)
        return s**2 / 2 + bend * (np.abs(r) - s)

    for x in (0.0, 0.9, 3.0):
        value = 2 * huber(grid - x, d) + huber(x, 1.0) + 0.3 * np.abs(grid - 1)
        assert least(lifted, x) == pytest.approx(value.min(), abs=1e-5)


def test_huber_losses_beside_absolute_values_have_conditions() -> None:
    text = """
    upper { var x in [-2, 4]; minimize (x - 1)^2 + y^2; }
    lower g {
      var y in [-4, 3];
      minimize huber(2 * y - x, 0.5) + 0.3 * abs(y - 2);
      subject to row: y + x <= 3;
    }
    """
    assert lift(made(text)).degree == 2
    result = bl.solve(bl.parse(text), time_limit=20)
    # y = x / 2 + 0.075: the slopes 2 (2 y - x) and -0.3 cancel.
    x = (1 - 0.0375) / 1.25
    assert result.success
    assert pytest.approx((x - 1) ** 2 + (x / 2 + 0.075) ** 2, abs=1e-6) == result.F


@pytest.mark.parametrize("loss", ["-huber(w - x)", "w^2 + huber(abs(w) - x)", "huber(w, x)"])
def test_huber_functions_that_stay_leave_nothing_behind(loss: str) -> None:
    text = f"""
    upper {{ var x in [0.5, 1]; minimize w; }}
    lower g {{ var w in [-1, 2]; minimize abs(w - 1) + {loss}; }}
    """
    before = made(text)
    assert lift(before) is before


def test_kinks_of_a_follower_who_maximises() -> None:
    # A firm whose unit cost doubles beyond 3: 2 y up to 3, 4 y - 6 from there on.
    text = """
    upper { var x in [0, 10]; minimize y; }
    lower g { var y in [0, 9]; maximize (12 - x - y) * y - max(2 * y, 4 * y - 6); }
    """
    lifted = lift(made(text))
    assert lifted.degree == 2
    y = np.linspace(0, 9, 90001)
    for x in (0.0, 3.0, 5.0, 9.5):
        profit = (12 - x - y) * y - np.maximum(2 * y, 4 * y - 6)
        assert least(lifted, x) == pytest.approx(-profit.max(), abs=1e-6)


def test_squares_of_what_is_beyond_a_margin() -> None:
    # Squared hinge losses are squares of epigraphs.
    text = """
    upper { var x in [0, 5]; minimize y; }
    lower g { var y; minimize max(0, 1 - y)^2 + max(x - y, 0)^2 + y^2 / 2; }
    """
    lifted = lift(made(text))
    assert lifted.degree == 2
    y = np.linspace(-1, 6, 70001)
    for x in (0.0, 0.9, 3.0):
        loss = np.maximum(0, 1 - y) ** 2 + np.maximum(x - y, 0) ** 2 + y**2 / 2
        assert least(lifted, x) == pytest.approx(loss.min(), abs=1e-6)


def test_what_the_leader_asks_for_is_no_bound_of_the_follower() -> None:
    # The base may be negative for the follower: its square does not grow with it.
    text = """
    upper { var x in [0, 5]; minimize y; subject to c: y >= 0; }
    lower g { var y in [-9, 9]; minimize max(y, x - 6)^2 + y; }
    """
    before = made(text)
    assert lift(before) is before


def test_kinks_of_rows_from_below() -> None:
    text = """
    upper { var x in [0, 5]; minimize y; }
    lower g { var y in [-9, 9]; minimize (y - 8)^2; subject to top: min(x - y, 6 - 2 * y) >= 0; }
    """
    lifted = lift(made(text))
    assert lifted.degree == 2
    for x in (0.0, 2.0, 5.0):
        assert least(lifted, x) == pytest.approx((min(x, 3.0) - 8) ** 2, abs=1e-6)


def test_a_kink_that_the_follower_wants_large_stays() -> None:
    text = """
    upper { var x in [0, 1]; minimize w; }
    lower g { var w in [-1, 2]; minimize x * w - abs(w); }
    """
    before = made(text)
    assert lift(before) is before


def test_kinks_that_the_follower_does_not_choose_are_none_of_its_own() -> None:
    # They kept those that it does choose from becoming rows.
    text = """
    upper { var x in [-3, 4]; minimize (y - 2)^2 + x^2; }
    lower g {
      var y in [-1, 4];
      minimize max(0, -2 * x - 2) - abs(x) + 1.4 * max(0, 1.7 * y - x) - y;
    }
    """
    lifted = lift(made(text))
    assert lifted.lower_rows.count == 2
    grid = np.linspace(-1, 4, 5_001)
    for x in (-3.0, -1.2, 0.5, 4.0):
        value = max(0.0, -2 * x - 2) - abs(x) + 1.4 * np.maximum(0.0, 1.7 * grid - x) - grid
        assert least(lifted, x) == pytest.approx(value.min(), abs=1e-3)


def test_a_kink_whose_weight_may_be_negative_stays() -> None:
    text = """
    upper { var x in [-1, 1]; minimize w; }
    lower g { var w in [-1, 2]; minimize x * abs(w); }
    """
    before = made(text)
    assert lift(before) is before


def test_a_follower_falls_into_its_parts() -> None:
    text = """
    upper { var x in [0, 2]; minimize y[1] + y[2] + y[3]; }
    dim n = 4;
    lower g {
      var y[n] in [-3, 3];
      minimize y[1]^2 - x * y[1] + y[2] * y[3] + y[3]^2 + y[2]^2 + exp(y[2]) + x;
      subject to
        a: y[1] >= x - 1;
        b: y[2] + y[3] >= -1;
    }
    """
    whole = made(text)
    parts = separate(whole)
    assert len(parts.followers) == 2
    # y[4] is idle and goes with the first part.
    assert parts.columns.owner.tolist() == [0, 1, 2, 2, 1]
    v = np.array([0.5, 0.3, -0.2, 0.7, 0.0])
    assert parts.lower_objectives.value(v).sum() == pytest.approx(
        whole.lower_objectives.value(v)[0]
    )
    assert least(parts, 1.2) == pytest.approx(least(whole, 1.2), abs=1e-6)


def test_players_of_a_game_stay_together() -> None:
    text = """
    set FIRM = {"a", "b"};
    upper { var Q in [0, 13]; maximize sum(firm.q[i] for i in FIRM); }
    lower firm[i in FIRM] nash { var q in [0, 13]; maximize (13 - Q) * q - q^2; }
    """
    game = made(text)
    assert separate(game) is game


def test_a_row_of_the_leader_keeps_the_sign_of_a_factor() -> None:
    """The second price is no lower than the first, so that the payment of a customer is convex."""
    text = """
    upper {
      var a in [0, 10], b in [0, 10];
      maximize a * q + (b - a) * max(0, q - 5) - q;
      subject to rises: b >= a;
    }
    lower c { var q in [0, 8]; minimize -7 * q + a * q + (b - a) * max(0, q - 5); }
    """
    given = system(bl.parse(text).bound)
    assert given.lower_objectives.trees
    assert not lift(given).lower_objectives.trees
    pytest.importorskip("pyscipopt")
    result = bl.solve(bl.parse(text), backend="exact", time_limit=20)
    # Both at 7: the customer is indifferent and takes 8.
    assert result.certificate is not None
    assert result.certificate.kind == "global"
    assert pytest.approx(48.0, abs=1e-5) == result.F
