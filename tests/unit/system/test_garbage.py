"""The collector of garbage: not while modules or models are read; else by the caller's rules."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest

from bilevelpy.system.garbage import SELDOM, imports_done, undisturbed, wait_until_loaded


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*threshold)
    gc.enable()


def test_a_process_of_its_own_waits_until_all_is_imported() -> None:
    wait_until_loaded()
    with undisturbed():
        assert not gc.isenabled()
    assert not gc.isenabled()
    imports_done()
    assert gc.isenabled()
    assert gc.get_threshold()[0] == SELDOM
    assert gc.get_freeze_count() > 0


def test_the_process_of_a_caller_is_left_as_it_is() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    imports_done()
    with undisturbed():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before


def test_a_solve_of_the_command_line_collects_again(tmp_path) -> None:
    path = tmp_path / "toy.blv"
    path.write_text(
        "upper { var x; minimize (x - 1)^2 + y^2; } lower f { var y; minimize (y - x)^2; }"
    )
    code = (
        "import gc, sys; from bilevelpy.cli.main import main; "
        f"sys.argv[1:] = ['solve', {str(path)!r}, '--quiet']; assert main() == 0; "
        "assert gc.isenabled()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
