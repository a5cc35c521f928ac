"""The LaTeX of models as MathML, which browsers show without scripts and without a network.

latex2mathml translates the formulas; the two columns of ``aligned``, which it does not know, become
a table here.
"""

from __future__ import annotations

import html
import re

from bilevelpy.errors import UsageError

_OPEN, _CLOSE = "\\begin{aligned}", "\\end{aligned}"
_BELOW = re.compile(r"\\(sum|prod|min|max)_")
_INNER = re.compile(r"^<math[^>]*>(.*)</math>$", re.DOTALL)
# Texts, and what stands in them for a character that means something in LaTeX. latex2mathml shows
# the commands as they are written: characters of private use stand in for what they mean.
_TEXT = re.compile(r"(?<=\\text\{)(?:[^{}\\]|\\[a-z]+\{\}|\\.)*(?=\})")
_MEANT = {f"\\{c}": c for c in "_%#&${}"} | {
    r"\textasciicircum{}": "^",
    r"\textasciitilde{}": "~",
    r"\textbackslash{}": "\\",
}
_STAND_INS = {meant: chr(0xE000 + k) for k, meant in enumerate(_MEANT.values())}


def mathml(latex: str) -> str:
    """``latex`` as a ``<math>`` element; its source is kept as an annotation.

    Raises
    ------
    UsageError
        latex2mathml is not installed.
    """
    # What sums and minima run over stands below them.
    text = _BELOW.sub(r"\\\1\\limits_", latex.strip())
    if text.startswith(_OPEN) and text.endswith(_CLOSE):
        body = _aligned(text[len(_OPEN) : -len(_CLOSE)])
    else:
        body = _inner(text)
    source = html.escape(latex, quote=False)
    return (
        f'<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"><semantics>{body}'
        f'<annotation encoding="application/x-tex">{source}</annotation></semantics></math>'
    )


def _aligned(body: str) -> str:
    """Lines ended by a double backslash, each of two cells: right and left of the ampersand."""
    rows = []
    for line in re.split(r"\\\\\s*\n", body.strip()):
        left, _, right = re.sub(r"(?<!\\)&", "\0", line.strip(), count=1).partition("\0")
        cells = [
            f'<mtd style="text-align: right">{_inner(left)}</mtd>',
            f'<mtd style="text-align: left">{_inner(right)}</mtd>',
        ]
        rows.append(f"<mtr>{''.join(cells)}</mtr>")
    return f'<mtable displaystyle="true">{"".join(rows)}</mtable>'


def _inner(latex: str) -> str:
    """The content of the ``<math>`` element of one formula."""
    try:
        from latex2mathml.converter import convert
    except ImportError as error:
        raise UsageError(
            "formulas in pages need latex2mathml: install the extra `report`"
        ) from error
    if not latex.strip():
        return "<mrow></mrow>"
    try:
        found = _INNER.match(_shown(convert(_TEXT.sub(_plain, latex))))
    except Exception:
        found = None  # a formula beyond the translator is shown as it is written
    return found[1] if found else f"<mtext>{html.escape(latex)}</mtext>"


def _plain(found: re.Match[str]) -> str:
    """A text with characters of private use for what its commands mean."""
    text = found[0]
    for written, meant in _MEANT.items():
        text = text.replace(written, _STAND_INS[meant])
    return text


def _shown(markup: str) -> str:
    """Those characters as what they stand for."""
    for meant, stand_in in _STAND_INS.items():
        for form in (stand_in, f"&#x{ord(stand_in):05X};"):
            markup = markup.replace(form, html.escape(meant))
    return markup
