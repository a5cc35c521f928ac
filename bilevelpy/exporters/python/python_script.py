"""What the Python programs share: names, expressions and quoting."""

from __future__ import annotations

import builtins
import io
import keyword
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.exporters.expressions import Style, simple
from bilevelpy.exporters.loops import subscripted
from bilevelpy.exporters.naming import Namer, identifiers

if TYPE_CHECKING:
    from bilevelpy.exporters.loops import Loop, Loops

Array = np.ndarray[Any, np.dtype[Any]]


def table_range(table: str, index: str) -> str:
    """The lines of a member, as Python counts them."""
    after = "1" if index == "0" else f"{index}+1"
    return f"range(t.{table}[{index}], t.{table}[{after}])"


PYTHON = subscripted(
    lambda body, inner, table, index: f"sum({body} for {inner} in {table_range(table, index)})",
    prefix="t.",
)
TABLES = [
    "# every number and name of the model",
    'with np.load(pathlib.Path(__file__).with_suffix(".npz")) as content:',
    "    t = types.SimpleNamespace(**{k: a.tolist() for k, a in content.items()})",
]
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


def members(loop: Loop) -> str:
    """The expressions of a loop, one after another."""
    return f"({loop.body} for i in range({loop.count}))"


def packed(loops: Loops, **others: Array) -> bytes:
    """The tables of a program as an .npz file, with others of its own."""
    return arrays_packed(loops.tables | others)


def arrays_packed(arrays: dict[str, Array]) -> bytes:
    """Arrays as an .npz file."""
    stream = io.BytesIO()
    np.savez_compressed(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
