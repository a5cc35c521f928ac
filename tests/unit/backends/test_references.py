"""Every work that a docstring cites is in the list of references."""

from __future__ import annotations

import re
from pathlib import Path

from bilevelpy.backends import registry

ROOT = Path(__file__).parents[3]
KEYS = set(re.findall(r"@\w+\{(\w+),", (ROOT / "docs" / "references.bib").read_text("utf-8")))


def test_backends_name_a_reference() -> None:
    for name in registry.names():
        assert registry.get(name).reference in KEYS, name


def test_citations_of_docstrings_are_listed() -> None:
    cited = {
        key
        for path in (ROOT / "bilevelpy").rglob("*.py")
        for key in re.findall(r"\[([A-Z][A-Za-z]+\d{4}[a-z]*)\]_", path.read_text("utf-8"))
    }
    assert cited
    assert cited <= KEYS, cited - KEYS
