"""A time limit holds while a model is read, compiled and judged, and what was begun is not kept."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import bilevelpy
from bilevelpy import solving
from bilevelpy.analysis.forms.predictors import find_predictors
from bilevelpy.errors import BackendError
from bilevelpy.ir.objectives import lower_objective
from bilevelpy.lowering.hessians.structured import structured_hessian
from bilevelpy.lowering.oracle import TorchOracle
from bilevelpy.numerics.driver.deadline import DeadlineOracle, OutOfTime
from bilevelpy.solving import judge
from bilevelpy.system import deadline
from tests.steps import steps

TEXT = """
dim n = 3;
upper { var x in [0, 2] start 1.5; minimize (x - 1)^2 + sumsq(y); }
lower f { var y[n] start 0.5; minimize sum((y[i] - x)^2 for i in n); }
report r = x;
"""


@pytest.fixture
def at_once(monkeypatch):
    """No second of grace."""
    for module in (deadline, solving):
        monkeypatch.setattr(module, "LEAST", 0.0)


def test_where_no_backend_could_begin_the_start_is_returned(at_once):
    model = bilevelpy.parse(TEXT)
    result = bilevelpy.solve(model, time_limit=1e-9)
    assert result.status == "time_limit"
    assert not result.success
    assert "was over while the model was compiled" in result.message
    assert result.certificate is None
    assert result.decision is None
    assert result.upper["x"] == 1.5
    assert np.array_equal(result.lower["f"]["y"], [0.5, 0.5, 0.5])
    assert pytest.approx(0.25 + 0.75) == result.F
    assert result.f["f"] == pytest.approx(3.0)
    assert str(result)
    assert bilevelpy.solve(model).success


def test_the_start_of_the_caller_is_returned(at_once):
    model = bilevelpy.parse(TEXT)
    result = bilevelpy.solve(model, time_limit=1e-9, start={"x": 1.0, "f.y": 0.0})
    assert result.upper["x"] == 1.0
    assert result.F == 0.0


def test_shadow_prices_and_whole_numbers_have_a_start_too(at_once):
    text = """
    upper { var x in [0, 4] integer; minimize x + dual(f.c); }
    lower f { var y in [0, 9]; minimize y; subject to c: y >= x; }
    """.replace("[0, 4] integer", "integers(0, 4)")
    result = bilevelpy.solve(bilevelpy.parse(text), time_limit=1e-9)
    assert result.status == "time_limit"
    assert np.isnan(result.F)
    assert result.f["f"] == 0.0


def test_a_model_that_takes_longer_to_read_is_told(at_once, tmp_path):
    path = tmp_path / "m.blv"
    path.write_text(TEXT)
    with pytest.raises(BackendError, match="before the model was read"):
        bilevelpy.solve(path, time_limit=1e-9)


def test_results_of_models_that_were_not_begun_can_be_kept(at_once, tmp_path):
    result = bilevelpy.solve(bilevelpy.parse(TEXT), time_limit=1e-9)
    result.save(tmp_path / "r.json")
    assert bilevelpy.load_result(tmp_path / "r.json").status == "time_limit"
    assert result._repr_html_()


def test_a_model_that_no_backend_could_write_out_in_time_has_its_start(monkeypatch):
    def late(*arguments: object) -> None:
        raise BackendError("could not write the model out")

    monkeypatch.setattr(solving, "_attempt", late)
    monkeypatch.setattr(solving, "time_is_left", lambda options, clock: False)
    result = bilevelpy.solve(bilevelpy.parse(TEXT), time_limit=1.0)
    assert result.status == "time_limit"
    assert "was over while the model was written out for `" in result.message
    assert result.upper["x"] == 1.5
    with pytest.raises(BackendError, match="could not write"):
        bilevelpy.solve(bilevelpy.parse(TEXT), time_limit=1.0, backend="aid")


BELOW = TEXT.replace("for i in n);", "for i in n); subject to c: sum(y) <= 2;")


def test_a_certificate_that_takes_too_long_is_none(monkeypatch):
    def late(*arguments: object, **named: object) -> None:
        with deadline.until(-math.inf):
            deadline.check()

    monkeypatch.setattr(judge, "examine_rows", late)
    result = bilevelpy.solve(bilevelpy.parse(BELOW), backend="blocc", max_iter=3, time_limit=60)
    assert not result.success
    assert result.certificate.kind == "none"
    assert "there was no time to check the point" in result.certificate.reasons[0]
    assert np.isfinite(result.F)


def test_rows_are_not_evaluated_after_the_deadline():
    oracle = TorchOracle(bilevelpy.parse(BELOW).bound)
    timed = DeadlineOracle(oracle, math.inf)
    x, y = oracle.x0, oracle.y0
    product, along = timed.g.vjp(x, y), timed.g.jvp(x, y)
    assert timed.g.size == 1
    assert timed.g.values(x, y) == oracle.g.values(x, y)
    timed.deadline = -math.inf
    for late in (
        lambda: product(torch.ones(1, dtype=torch.float64)),
        lambda: along(x, y),
        lambda: timed.g.values(x, y),
        lambda: timed.g.violation(x, y),
    ):
        with pytest.raises(OutOfTime):
            late()


def factors(n: int) -> bilevelpy.Model:
    total = " + ".join(f"exp({1 + k / 7} * y - x)" for k in range(n))
    return bilevelpy.parse(
        f"upper {{ var x in [0, 1]; minimize y; }} lower f {{ var y; minimize {total}; }}"
    )


def test_predictors_take_work_in_proportion_to_the_sum():
    def found(n: int) -> int:
        program = factors(n).program
        objective, _ = lower_objective(program)
        return steps(lambda: find_predictors(program.builder, objective, frozenset({"f"})))

    found(3)
    assert found(160) < 4.8 * found(40)


def test_second_derivatives_by_predictors_take_work_in_proportion_to_the_sum():
    def found(n: int) -> int:
        oracle = TorchOracle(factors(n).bound)
        return steps(lambda: structured_hessian(oracle))

    found(3)
    assert found(160) < 4.8 * found(40)


@pytest.mark.parametrize("module", ["lexing", "tables"])
def test_the_time_is_looked_at_with_every_statement(module, monkeypatch):
    looks = 0

    def count():
        nonlocal looks
        looks += 1

    monkeypatch.setattr(f"bilevelpy.syntax.{module}.check", count)
    bilevelpy.parse(TEXT)
    assert looks == TEXT.count(";")
