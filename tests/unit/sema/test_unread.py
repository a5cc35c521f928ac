"""A mistake that the parser has reported is reported once: its meaning is not looked at as well."""

import pytest

from tests.unit.sema.samples import codes


@pytest.mark.parametrize(
    "text",
    [
        'upper { var x; minimize "a; }',
        'upper { var x; minimize x + "a; }',
        'upper { var x; minimize x^2; subject to c: x >= "a; }',
        'set S = {"a, "b"}; upper { var x[S]; minimize sum(x); }',
        'set S = {"a", "b}; upper { var x[S]; minimize sum(x)^2; }',
        'include "foo; upper { var x; minimize x; }',
        'model "abc; upper { var x; minimize x; }',
    ],
)
def test_a_text_without_its_closing_quote(text: str) -> None:
    assert codes(text) == ["BLV0108"]


def test_other_mistakes_of_the_statement_count() -> None:
    assert codes('upper { var x; minimize x + "a; }\nlower l { var y; minimize (y - q)^2; }') == [
        "BLV0108",
        "BLV0201",
    ]
    assert codes('upper { var x; minimize x + "a"; }') == ["BLV0309"]
