"""Freed arrays stay with the process: the temporary arrays of a program cost no page faults."""

from __future__ import annotations

import resource
import subprocess
import sys

import numpy as np
import pytest

from bilevelpy.lowering.programs.freed import CHOSEN, keep_freed

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")


def faults() -> int:
    """Page faults of twenty rounds with five temporary arrays of 400 kB each."""
    a = np.ones(50_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        parts = [a * k for k in range(5)]
        del parts
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_freed_arrays_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CHOSEN:
        monkeypatch.delenv(name, raising=False)
    keep_freed.cache_clear()
    if not keep_freed():
        pytest.skip("not glibc")
    faults()
    assert faults() < 200  # of 10,000 pages


def test_who_has_chosen_is_left_alone() -> None:
    code = "from bilevelpy.lowering.programs.freed import keep_freed; print(keep_freed())"
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"MALLOC_TRIM_THRESHOLD_": "1000000", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "False"
