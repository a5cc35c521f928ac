"""Rows that share what they read are written out in work proportional to their number."""

from __future__ import annotations

import bilevelpy
from bilevelpy.reductions.expand import expander as expand
from bilevelpy.reductions.rows import system


def looks(n: int, monkeypatch) -> int:
    """Nodes that are looked at where n rows read the same sum of n terms."""
    seen = 0

    def counted(*arguments):
        nonlocal seen
        for node in postorder(*arguments):
            seen += 1
            yield node

    postorder = expand.postorder
    monkeypatch.setattr(expand, "postorder", counted)
    total = " + ".join(f"{k + 1} * (y + {k})^2" for k in range(n))
    rows = " ".join(f"c{k}: a >= {k} * x;" for k in range(n))
    text = "upper { var x in [0, 1]; minimize x; } lower f { var y; "
    text += f"let a = {total}; minimize a; subject to {rows} }}"
    system(bilevelpy.parse(text).bound)
    monkeypatch.undo()
    return seen


def test_what_rows_share_is_looked_at_once(monkeypatch):
    assert looks(80, monkeypatch) < 4.8 * looks(20, monkeypatch)
