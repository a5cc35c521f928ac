"""The comparison with other libraries: its tasks, clock, rows and search of settings."""

from __future__ import annotations

import importlib
import itertools
import json
import subprocess
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from benchmarks import libraries
from benchmarks.by_hand import Toy
from benchmarks.libraries import measured, reached, row
from benchmarks.libraries.__main__ import JUDGED, chosen
from benchmarks.libraries.arrays import descend, in_torch
from benchmarks.libraries.engines import Settings, optimizer, vector
from benchmarks.libraries.problem import Drive, OutOfTime, Problem, Watch, by_lbfgsb, followed
from benchmarks.libraries.tune import UPPER, Judged, Search
from benchmarks.races import Course, Judge
from benchmarks.tasks import QUADRATIC, RACES, Race
from tests.reference.small import conditioned_matrix

TASKS = ("breast_cancer", "cleaning-digits")


def toy(size: int = 20) -> Problem:
    """The quadratic task with few variables."""
    A = conditioned_matrix(size, 10)
    import bilevelpy as bl

    race = Race(
        "toy",
        lambda: bl.parse(QUADRATIC, data={"A": A}),
        lambda: Toy(A),
        np.full(size, 2.0),
    )
    return Problem("quadratic-1000", race)


@pytest.fixture(scope="module", params=["quadratic", *TASKS])
def problem(request: pytest.FixtureRequest) -> Problem:
    return toy() if request.param == "quadratic" else Problem(request.param)


def test_the_losses_are_those_of_the_judge(problem: Problem) -> None:
    torch, f, F = in_torch(problem)
    x = torch.as_tensor(problem.start + 0.1)
    y = descend(torch, f, torch.zeros(problem.size, dtype=torch.float64), x, tol=1e-9)
    assert float(F(y, x)) == pytest.approx(problem.truth.reduced(x.numpy())[0], rel=1e-5)


def test_a_watch_stops_at_its_limit_and_where_there_is_no_number() -> None:
    def forever(watch: Watch) -> None:
        while True:
            watch(np.zeros(2))

    course = followed(forever, Watch(limit=0.01))
    assert course.times == sorted(course.times)
    assert course.times[-2] <= 0.01 < course.times[-1]
    course = followed(lambda watch: [watch(np.array([v])) for v in (1.0, np.nan, 2.0)], Watch())
    assert [float(x[0]) for x in course.points] == [1.0]
    assert len(course.times) == 1


def test_points_are_copies() -> None:
    x, watch = np.zeros(1), Watch()
    watch(x)
    x[0] = 5.0
    assert watch.points[0][0] == 0.0


def test_lbfgsb_on_a_value_and_gradient() -> None:
    problem = toy()
    course = followed(by_lbfgsb(problem, problem.truth.reduced), Watch())
    # F(x) = |x - 1|^2 / 2 + x' A^-1 x / 2.
    inverse = np.linalg.inv(problem.data["A"])
    best = np.linalg.solve(np.eye(20) + inverse, np.ones(20))
    np.testing.assert_allclose(course.points[-1], best, atol=1e-5)


@pytest.mark.parametrize("count", [0, 1, 100, 101, JUDGED, 12_345])
def test_the_judged_points_are_the_first_and_some_of_the_later(count: int) -> None:
    places = chosen(count)
    early = min(count, JUDGED // 2)
    assert places[:early] == list(range(early))
    assert places == sorted(set(places))
    assert len(places) <= JUDGED
    if count:
        assert places[-1] == count - 1
    # The time of the goal is overstated by some percent at most.
    assert all(b <= 1.06 * a + 1 for a, b in itertools.pairwise(places[1:]))


MINE = Course([0.1, 0.2], [2.0, 1.0], [np.array([2.0]), np.array([1.0])], 0.3)
JUDGE: Judge = lambda x: float(x[0])  # noqa: E731
RACE = Race("task", lambda: None, lambda: None, np.zeros(1))  # type: ignore[arg-type, return-value]
FOUND = {
    "version": "other 1.0", "values": [2.0, 1.5, 1.00005], "times": [1.0, 2.0, 4.0],
    "first_times": [2.0, 4.0, 8.0], "points": 1000,
}  # fmt: skip


def test_a_row_of_a_library_that_meets_the_goal() -> None:
    found = row(RACE, "other", FOUND, JUDGE, MINE, MINE)
    assert (found.task, found.ours, found.yardstick) == ("other: task", "200 ms", "4 s")
    assert found.ratio == pytest.approx(0.05)
    assert found.note == "other 1.0; first 8 s, ours 200 ms; ends +5e-05 from ours in 1000 points"


def test_a_row_of_a_library_that_does_not() -> None:
    short = {**FOUND, "values": [2.0, 1.5, 1.1]}
    found = row(RACE, "other", short, JUDGE, MINE, MINE)
    assert (found.yardstick, found.ratio) == ("not reached", None)
    assert found.note == "other 1.0, ends +1e-01 from ours in 1000 points"


def test_a_library_that_ends_lower_sets_the_goal() -> None:
    lower = {**FOUND, "values": [2.0, 1.0, 0.5]}
    found = row(RACE, "other", lower, JUDGE, MINE, MINE)
    # Ours never meets 0.5: its whole time counts.
    assert (found.ours, found.yardstick) == ("300 ms", "4 s")


def test_a_shorter_first_run_has_no_time_for_later_points() -> None:
    assert reached({**FOUND, "first_times": [2.0]}, "first_times", 1.5) == float("inf")


def test_a_row_says_why_a_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_PYTHON", "/no/such/python")
    found = row(RACE, "other", measured("breast_cancer", "betty"), JUDGE, MINE, MINE)
    assert (found.yardstick, found.note) == ("", "not measured: FileNotFoundError")

    def failed(*_: Any, **__: Any) -> Any:
        why = "Traceback\n  ...\nModuleNotFoundError: No module named 'betty'\n"
        return subprocess.CompletedProcess([], 1, "", why)

    monkeypatch.setattr(libraries.subprocess, "run", failed)
    assert measured("breast_cancer", "betty")["error"] == (
        "not measured: ModuleNotFoundError: No module named 'betty'"
    )


def test_the_last_line_of_a_process_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def spoke(*_: Any, **__: Any) -> Any:
        return subprocess.CompletedProcess([], 0, f"[INFO] hello\n{json.dumps(FOUND)}\n", "")

    monkeypatch.setattr(libraries.subprocess, "run", spoke)
    assert measured("breast_cancer", "boat") == FOUND


def test_every_library_and_task_is_known() -> None:
    from benchmarks.libraries import by_betty, by_boat

    assert set(libraries.TASKS) <= set(RACES)
    for module in (by_betty, by_boat):
        assert set(module.SETTINGS) == set(libraries.TASKS)
        assert {s.method for s in module.SETTINGS.values()} <= set(module.METHODS)


@pytest.mark.parametrize("name", UPPER)
def test_optimizers_go_down(name: str) -> None:
    import torch

    module = vector(torch, np.array([3.0, -2.0]))
    steps = optimizer(torch, name, module.parameters(), 0.1)
    for _ in range(200):
        steps.zero_grad()
        (module() ** 2).sum().backward()
        steps.step()
    assert float(module().abs().max().detach()) < 0.05


class Descent:
    """An engine of our own: exact gradients, the steps of the upper optimizer."""

    METHODS = ("cg",)

    @staticmethod
    def drive(problem: Problem, settings: Settings) -> Drive:
        import torch

        def run(watch: Watch) -> None:
            module = vector(torch, problem.start)
            steps = optimizer(torch, settings.upper, module.parameters(), settings.upper_rate)
            for _ in range(50):
                gradient = problem.truth.reduced(module.value.detach().numpy())[1]
                module.value.grad = torch.as_tensor(gradient)
                steps.step()
                watch(module.value.detach().numpy())

        return run


def test_the_search_keeps_what_meets_the_goal() -> None:
    problem = toy()
    inverse = np.linalg.inv(problem.data["A"])
    best = np.linalg.solve(np.eye(20) + inverse, np.ones(20))
    lowest = problem.truth.reduced(best)[0]
    search = Search(problem, Descent, lowest * (1 + 1e-4), seconds=0.5)
    assert 1 / search.unit == pytest.approx(np.linalg.eigvalsh(problem.data["A"])[-1], rel=1e-2)
    slow = Settings(upper="sgd", upper_rate=1e-3)
    assert search.score(slow)[0]
    found = search.round(slow, [search.finer, search.upper])
    assert not search.score(found)[0]
    assert search.score(found) == min(search.scores.values())
    assert search.score(replace(slow, upper_rate=0.6))[0] is False


def test_a_hopeless_try_ends_early() -> None:
    problem = toy()
    lowest = problem.truth.reduced(np.ones(20))[0]
    watch = Judged(problem, lowest, limit=100.0, best=1e-9)
    watch.began -= 50.0
    with pytest.raises(OutOfTime):
        watch(np.full(20, 9.0))


ENGINES = {"betty": "betty.engine", "boat": "boat_torch"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of theirs
@pytest.mark.parametrize("library", ENGINES)
def test_the_engines_have_the_hypergradient(library: str) -> None:
    """One step of gradient descent of each method, against the Cholesky adjoint."""
    pytest.importorskip(ENGINES[library])
    module = importlib.import_module(f"benchmarks.libraries.by_{library}")
    problem = toy()
    settings = Settings(
        method=module.METHODS[0], iterations=300, rate=0.1, upper="sgd", upper_rate=1e-3,
        tolerance=1e-10,
    )  # fmt: skip

    class Once(Watch):
        def __call__(self, x: Any) -> None:
            super().__call__(x)
            raise OutOfTime

    (x,) = followed(module.drive(problem, settings), Once()).points
    expected = problem.truth.reduced(problem.start)[1]
    np.testing.assert_allclose((problem.start - x) / 1e-3, expected, rtol=1e-4)
