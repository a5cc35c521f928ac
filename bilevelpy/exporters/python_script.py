"""What the Python programs share: names, expressions and quoting."""

from __future__ import annotations

import builtins
import keyword

from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.naming import Namer, identifiers

ALL = "exp log sqrt sin cos tan atan sinh cosh tanh"


def python_names(*reserved: str) -> Namer:
    """Names of Python that hide no others."""
    return identifiers((*keyword.kwlist, *dir(builtins), *reserved))


def power(base: str, exponent: str, whole: int | None) -> str:
    """Python's power."""
    return f"{base}**{exponent if whole is None or whole < 0 else whole}"


def style(prefix: str, **others: str) -> Style:
    """Functions of a module; ``others`` are spelled out."""
    return Style(simple(ALL, prefix, **others), power, lambda v: repr(float(v)))


def bound(value: float) -> str:
    """A bound as Python says it."""
    if value in (float("inf"), float("-inf")):
        return "None"
    return repr(float(value))


def docstring(lines: list[str]) -> list[str]:
    """The opening docstring of a program."""
    shown = [line.replace("\\", "/").replace('"""', "'''") for line in lines]
    return [f'"""{shown[0]}', "", *shown[1:], '"""', ""]
