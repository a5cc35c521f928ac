"""The loop: limits, callbacks, counts, non-finite values, signs."""

from __future__ import annotations

import math

import pytest
import torch

from bilevelpy.backends.implicit.direct import Direct
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.numerics.driver.deadline import OutOfTime
from bilevelpy.numerics.driver.loop import run
from bilevelpy.numerics.driver.measure import Measure
from bilevelpy.numerics.upper.state import UpperState
from bilevelpy.options import SolveOptions
from bilevelpy.result import Status
from tests.oracles import AutoOracle, ridge, toy, vec


def test_history_counts_and_signs() -> None:
    o = toy(10)
    o.F_sign = -1.0
    r = run(o, Direct(), None, SolveOptions())
    assert r.status is Status.CONVERGED
    assert r.candidate
    assert pytest.approx(-o._F(*o.solution())) == r.F
    assert [h.iteration for h in r.history] == list(range(r.iterations + 1))
    assert r.history[-1].F == r.F
    assert r.counts["F"] == o.counts.F
    again = run(o, Direct(), None, SolveOptions())
    assert again.counts == r.counts
    assert torch.equal(again.x, r.x)


def test_iteration_limit_keeps_the_last_point() -> None:
    r = run(toy(100), Direct(), None, SolveOptions(max_iter=2))
    assert r.status is Status.ITERATION_LIMIT
    assert r.iterations == 2
    assert not r.candidate


def test_time_limit_ends_inside_a_step() -> None:
    whole = run(ridge(), Direct(), None, SolveOptions())
    r = run(ridge(), Direct(), None, SolveOptions(time_limit=1e-3))
    assert r.status is Status.TIME_LIMIT
    assert r.iterations < whole.iterations
    assert math.isfinite(r.F)


class Late(Direct):
    """Out of time in its first lower solve, after a better point."""

    def init(self, oracle, x, y, options, rng):
        oracle.value_grad_f(x, 0.5 * y)
        oracle.value_grad_f(x, y)
        oracle.value_grad_f(x + 1.0, 0.0 * y)
        raise OutOfTime


def test_a_run_that_ends_before_its_first_measure_keeps_the_lowest_point() -> None:
    """f = |y|^2 / 2 - x'y for x = y = 2: half of y is lower."""
    o = AutoOracle(
        lambda x, y: (x**2).sum() + (y**2).sum(),
        lambda x, y: (y**2).sum() / 2 - 0.2 * (x * y).sum(),
        vec(2.0, 2.0),
        vec(2.0, 2.0),
    )
    r = run(o, Late(), None, SolveOptions(time_limit=1e3))
    assert r.status is Status.TIME_LIMIT
    assert r.y.tolist() == [1.0, 1.0]
    assert r.F == 10.0
    assert [h.F for h in r.history] == [10.0]


class Exploding(Direct):
    """Steps uphill that grow three thousandfold."""

    def init(self, oracle, x, y, options, rng):
        return x, y

    def step(self, oracle, state, options):
        return -3e3 * state[0], state[1]

    def measure(self, oracle, state):
        x, y = state
        return Measure(x, y, oracle.F(x, y), 0.0, 2.0 * float(x.norm()), 0.0, 1.0, 1.0)


def test_a_limit_in_an_explosion_shows_the_point_before() -> None:
    o = AutoOracle(lambda x, y: (x**2).sum(), lambda x, y: (y**2).sum(), vec(1.0), vec(0.0))
    r = run(o, Exploding(), None, SolveOptions(max_iter=9))
    assert r.status is Status.ITERATION_LIMIT
    assert r.history[-1].F > 1e50
    assert pytest.approx(9e6) == r.F, "one step: after two the gradient is 9e6 times the first"
    assert "exploded" in r.message


def test_callback_sees_read_only_copies_and_stops() -> None:
    seen = []

    def callback(state) -> bool:
        seen.append(state.iteration)
        with pytest.raises(ValueError, match="read-only"):
            state.x[0] = 0.0
        return state.iteration == 1

    r = run(toy(10), Direct(), None, SolveOptions(), callback=callback)
    assert seen == [0, 1]
    assert r.status is Status.INTERRUPTED


def test_keyboard_interrupt_keeps_the_point() -> None:
    def callback(state) -> None:
        if state.iteration == 2:
            raise KeyboardInterrupt

    r = run(toy(100), Direct(), None, SolveOptions(), callback=callback)
    assert r.status is Status.INTERRUPTED
    assert r.iterations == 2


def test_errors_in_user_code_pass_through() -> None:
    def callback(state) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(toy(10), Direct(), None, SolveOptions(), callback=callback)


def test_a_broken_backend_is_a_backend_error() -> None:
    class Broken(Direct):
        def step(self, oracle, state, options):
            raise IndexError("oops")

    with pytest.raises(BackendError, match="`direct` failed: IndexError"):
        run(toy(10), Broken(), None, SolveOptions())


def test_unknown_option_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="did you mean `lower_tol`"):
        run(toy(2), Direct(), None, SolveOptions(backend_options={"lower_tool": 1}))


def test_nonfinite_start_and_unbounded_lower() -> None:
    nan = AutoOracle(
        lambda x, y: (x * y).sum() / 0.0, lambda x, y: (y * y).sum(), vec(1.0), vec(1.0)
    )
    assert run(nan, Direct(), None, SolveOptions()).status is Status.DIVERGED
    open_ended = AutoOracle(
        lambda x, y: (x * y).sum(), lambda x, y: (1e-30 * y * y - y).sum(), vec(1.0), vec(1.0)
    )
    r = run(open_ended, Direct(), None, SolveOptions())
    assert r.status is not Status.CONVERGED


def test_start_and_report() -> None:
    o = toy(10)
    x, _ = o.solution()
    r = run(
        o,
        Direct(),
        None,
        SolveOptions(),
        start=(x, None),
        report=lambda x, y: {"first": float(x[0])},
    )
    assert r.iterations == 0
    assert r.history[0].reports["first"] == pytest.approx(float(x[0]))


def test_a_run_that_is_led_back_from_where_it_goes_on_ends() -> None:
    o = toy(10)
    there = (o.x0 + 1.0, o.y0 + 1.0)
    asked: list[float] = []

    def onward(x, y):
        asked.append(float(o.F(x, y)))
        return there

    r = run(o, Direct(), None, SolveOptions(), onward=onward)
    assert len(asked) == 2
    assert r.status is Status.CONVERGED


def test_a_run_that_goes_on_from_where_it_was_keeps_the_scale_of_its_gradients() -> None:
    o = toy(10)
    states: list[UpperState] = []

    class Watched(Direct):
        def step(self, oracle, state, options):
            states.append(state)
            return super().step(oracle, state, options)

        def measure(self, oracle, state):
            if not any(state is known for known in states):
                states.append(state)
            return super().measure(oracle, state)

    asked: list[float] = []

    def onward(x, y):
        asked.append(float(o.F(x, y)))
        return x, y

    r = run(o, Watched(), None, SolveOptions(), onward=onward)
    assert r.status is Status.CONVERGED
    first, last = states[0], states[-1]
    assert last is not first
    assert last.norms[: len(first.norms)] == first.norms
    # The hypergradient has not halved there: it is not asked to go on for ever.
    assert len(asked) <= 3
