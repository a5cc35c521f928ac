"""The scripts of the experiments as modules of the test process."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.experiments.processes import FOLDER


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The scripts import each other by name, as from their own folder; what other tests know by
    one of these names is put back.
    """
    monkeypatch.syspath_prepend(str(FOLDER))
    own = [path.stem for path in FOLDER.glob("*.py")]
    for name in own:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in own:
        sys.modules.pop(name, None)
