"""Tables, numbers and images as HTML."""

from __future__ import annotations

import base64
import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

HEAD, TAIL = 6, 2


class Raw(str):
    """HTML that is not escaped again."""

    __slots__ = ()


def escape(value: object) -> str:
    """Text as HTML; :class:`Raw` stays as it is."""
    return value if isinstance(value, Raw) else html.escape(str(value))


def table(rows: Iterable[Sequence[object]], head: Sequence[object] = (), kind: str = "") -> Raw:
    """A table; the first cell of a row names it."""
    lines = [f'<table class="blv {kind}">']
    if head:
        cells = "".join(f'<th scope="col">{escape(c)}</th>' for c in head)
        lines.append(f"<thead><tr>{cells}</tr></thead>")
    lines.append("<tbody>")
    for first, *rest in rows:
        cells = "".join(f"<td>{escape(c)}</td>" for c in rest)
        lines.append(f'<tr><th scope="row">{escape(first)}</th>{cells}</tr>')
    lines.append("</tbody></table>")
    return Raw("\n".join(lines))


def number(value: float, digits: int = 6) -> str:
    """A short number."""
    if math.isnan(value):
        return "not known"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return f"{value:.{digits}g}"


def residual(value: float | None) -> str:
    """Two digits are enough for a residual."""
    if value is None or math.isnan(value):
        return "not known"
    return "0" if value == 0 else f"{value:.1e}"


def words(text: object) -> Raw:
    """Text in which `names` are set as code."""
    return Raw(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))


def values(array: np.ndarray, labels: Sequence[str] = ()) -> str:
    """A scalar, or the first and last values of an array, each after its label."""
    shown = [number(float(v), 5) for v in array.ravel()]
    if labels:
        shown = [f"{label} = {v}" for label, v in zip(labels, shown, strict=True)]
    if array.ndim and len(shown) > HEAD + TAIL + 1:
        shown = [*shown[:HEAD], "...", *shown[-TAIL:]]
    return ("   " if labels else "  ").join(shown)


def shape(array: np.ndarray) -> str:
    """``4 x 3``, nothing for a scalar."""
    return " x ".join(map(str, array.shape))


def image(content: bytes, kind: str, words: str) -> Raw:
    """An image within the page. ``kind``: "svg+xml" or "png"; ``words`` for those who see none."""
    data = base64.b64encode(content).decode("ascii")
    return Raw(f'<img alt="{html.escape(words)}" src="data:image/{kind};base64,{data}">')


def items(texts: Iterable[object]) -> Raw:
    """A list."""
    return Raw("<ul>" + "".join(f"<li>{words(t)}</li>" for t in texts) + "</ul>")


def figure(drawn: Any, words: str) -> Raw:
    """A matplotlib figure as an SVG image."""
    import io

    stream = io.BytesIO()
    drawn.savefig(stream, format="svg", metadata={"Date": None})
    return image(stream.getvalue(), "svg+xml", words)
