"""Sets that were meant to be parts of other sets."""

from __future__ import annotations

import pytest

from tests.unit.sema.samples import checked

MODEL = """
set NODE = {{"a", "b", "c"}};
set LINK = {{"p", "q", "r"}};
set ARC = {{("a", "b"), ("b", "c")}};
set NEW = {new};
param c[LINK];
upper {{ var x[NEW] in [0, 1]; minimize {upper}; }}
lower f {{ var v[ARC] in [0, 1]; minimize sumsq(v); {row} }}
"""
BALANCE = "subject to r[n in NODE]: sum(v[i, j] for (i, j) in ARC where j == n) == 1;"

COST = "sum(c[l] * x[l] for l in NEW)"


@pytest.mark.parametrize(
    ("new", "upper", "row", "code", "hint"),
    [
        (
            '{"p", "r"}',
            COST,
            "",
            "BLV0305",
            "`set NEW within LINK = ...`",
        ),
        ('{"p", "z"}', COST, "", "BLV0305", None),
        ('{"p"}', "sum(x)", BALANCE, "BLV0303", "`set ARC within NODE * NODE = ...`"),
    ],
)
def test_how_it_is_declared(new, upper, row, code, hint):
    found = checked(MODEL.format(new=new, upper=upper, row=row)).diagnostics
    first = next(d for d in found if d.code == code)
    if hint is None:
        assert first.hint is None
    else:
        assert first.hint is not None
        assert first.hint.startswith(hint)
