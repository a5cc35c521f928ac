"""Options of backends: values of another kind or out of range are errors that name the option."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import bilevelpy as bl
from bilevelpy.backends import registry

TEXT = "model q; upper { var x; minimize (y - 1)^2; } lower f { var y; minimize (y - x)^2; }"


@pytest.mark.parametrize(
    ("backend", "options", "words"),
    [
        ("direct", {"lower_tol": -1.0}, "direct.lower_tol must lie in"),
        ("direct", {"lower_tol": float("nan")}, "direct.lower_tol` takes float values, found nan"),
        ("direct", {"constant_hessian": 1}, "direct.constant_hessian` takes bool values"),
        ("nlp", {"starts": 0}, "nlp.starts must lie in"),
        ("nlp", {"starts": 2.5}, "nlp.starts` takes int values, found 2.5"),
        ("nlp", {"form": "reduce"}, "nlp.form is one of"),
        ("exact", {"gap": -1.0}, "exact.gap must lie in"),
        ("exact", {"patience": -3.5}, "exact.patience must lie in"),
        ("conic", {"starts": 0}, "conic.starts must lie in"),
        ("aid", {"warm": "perhaps"}, "aid.warm` takes bool values"),
        ("aid", {"tol": 2.0}, "tol must lie between 0 and 1"),
    ],
)
def test_bad_values(backend: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(bl.UsageError) as error:
        registry.get(backend).options.from_mapping(options, backend)
    assert words in str(error.value)


def test_a_solve_says_the_same() -> None:
    with pytest.raises(bl.UsageError, match="lower_tol"):
        bl.solve(bl.parse(TEXT), backend="direct", options={"lower_tol": "small"})


def test_numbers_of_numpy_are_numbers() -> None:
    options = registry.get("nlp").options.from_mapping({"starts": np.int64(3)}, "nlp")
    assert options.starts == 3  # type: ignore[attr-defined]
