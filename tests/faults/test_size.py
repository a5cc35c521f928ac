"""Small texts that mean something huge end in an answer or a message: a hang is the fault."""

from __future__ import annotations

import pytest

import bilevelpy as bl
from bilevelpy.errors import BilevelError

LOWER = "lower l { var y in [0, 1]; minimize (y - x)^2; }"
SQUARES = "\n".join(f"let a{k + 1} = a{k} * a{k} - sin(a{k});" for k in range(40))
TEXTS = {
    "factors": f"upper {{ var x; minimize {' * '.join(['x'] * 5000)}; }}",
    "power": f"upper {{ var x in [0, 1]; minimize x^1e9 - x + y; }} {LOWER}",
    "chain": f"upper {{ var x in [0, 1]; let a0 = exp(x); {SQUARES} minimize a40; }}",
    "follower's chain": "upper { var x in [0, 1]; minimize (x - 0.3)^2 + y; } "
    f"lower l {{ var y in [0, 1]; let a0 = exp(x * y); {SQUARES} minimize a40; }}",
    "squares": f"upper {{ var x in [0, 1]; minimize {' + '.join(['x^2'] * 5000)}; }}",
}


@pytest.mark.parametrize("name", TEXTS)
def test_an_answer_or_a_message(name: str) -> None:
    try:
        found = bl.solve(bl.parse(TEXTS[name]), time_limit=5)
    except BilevelError as error:
        assert str(error)  # noqa: PT017
    else:
        assert found.message
