"""Every model of the catalogue: clean, and solved to its known answer."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.expectations import outcomes
from bilevelpy.result import Result
from tests.models.catalogue import CATALOGUE, FAST, PATHS, REFERENCES, SLOW, WHOLE

BACKENDS = ["direct", "aid", "qnbo"]
# A run that tells its own peak. What the system says of children includes the parent's memory, for
# a child has it until it becomes a program of its own.
WATCHED = """
import atexit, re, runpy, sys
from pathlib import Path

def tell():
    found = re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text("ascii"))
    print(found[1] if found else 0, file=sys.stderr)

atexit.register(tell)
runpy.run_module("bilevelpy", run_name="__main__", alter_sys=True)
"""


def load(name: str) -> bl.Model:
    return bl.load(PATHS[name])


def assert_answer(model: bl.Model, result: Result) -> None:
    assert result.status == "converged", f"{result.status}: {result.message}"
    assert result.success
    assert result.certificate.kind in {"local", "global"}
    found = outcomes(model.bound, result)
    assert found, "a model states its answer"
    wrong = [f"{o.text}  (found {o.found!r})" for o in found if not o.passed]
    assert not wrong, "\n".join(wrong)


def test_the_catalogue_lists_every_model() -> None:
    assert sorted(CATALOGUE) == sorted(PATHS)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_clean(name: str) -> None:
    model = load(name)
    assert not model.warnings
    assert model.name == name
    assert PATHS[name].read_text("utf-8").startswith("## ")


@pytest.mark.parametrize("name", sorted(REFERENCES))
def test_expected_value_is_the_reference_solution(name: str) -> None:
    """The `expect` lines come from independent code, not from the package's own answers."""
    stated = [e for e in load(name).program.expects if e.value == "upper"]
    assert len(stated) == 1
    assert REFERENCES[name]() == pytest.approx(stated[0].expected, abs=stated[0].tolerance / 5)


def test_every_fast_model_has_a_reference() -> None:
    assert sorted(REFERENCES) == FAST


@pytest.mark.parametrize("name", FAST)
def test_solved_by_default(name: str) -> None:
    if name in WHOLE:
        pytest.importorskip("pyscipopt")
    model = load(name)
    result = bl.solve(model)
    assert_answer(model, result)
    assert (name in WHOLE) <= (result.certificate.kind == "global")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "name", [n for n in FAST if CATALOGUE[n].get("small", True) and n not in WHOLE]
)
def test_solved_by_each_backend(name: str, backend: str) -> None:
    model = load(name)
    if CATALOGUE[name].get("kinked", False) and backend == "qnbo":
        with pytest.raises(bl.BackendError, match="two derivatives"):
            bl.solve(model, backend=backend)
        return
    assert_answer(model, bl.solve(model, backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_breast_cancer_by_each_backend(backend: str) -> None:
    model = load("breast_cancer")
    assert_answer(model, bl.solve(model, backend=backend))


def test_index_form_is_the_same_problem() -> None:
    """Matrix form and index form take the same path to the same point."""
    matrix, index = bl.solve(load("toy_conditioned")), bl.solve(load("toy_index"))
    assert matrix.iterations == index.iterations
    np.testing.assert_allclose(matrix["x"], index["x"], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_hyper_cleaning_finds_the_wrong_labels() -> None:
    """In a process of its own: its memory is part of what is promised."""
    command = [sys.executable, "-c", WATCHED, "solve", str(PATHS["hyper_cleaning"])]
    run = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    found = json.loads(run.stdout)
    assert (run.returncode, found["status"]) == (0, "converged"), found["message"]
    (stated,) = [e for e in load("hyper_cleaning").program.expects if e.value == "upper"]
    assert abs(found["objective"]["upper"] - stated.expected) <= stated.tolerance
    assert found["reports"]["test_accuracy"] >= 0.89
    assert found["reports"]["f1"] >= 0.9
    assert 0.1 < int(run.stderr.split()[-1]) / 1024**2 < 2.0


def test_slow_models_are_known() -> None:
    assert {"hyper_cleaning"} == SLOW
