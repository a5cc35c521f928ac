"""Where lines of formulas break: how wide a piece of LaTeX is, and sums over several lines."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Letters on a line of a page; what is wider is broken at the signs of its outermost sum.
LINE = 72.0
SMALL = 0.7
_TOKEN = re.compile(r"\\[a-zA-Z]+|\\.|[{}_^&]|\s+|.", re.DOTALL)
# Commands that take no room by themselves, and those that need more or less than a letter.
_NOTHING = {"\\left", "\\right", "\\mathrm", "\\text", "\\operatorname", "\\Bigl", "\\Bigr"}
_ROOM = {"\\,": 0.2, "\\;": 0.3, "\\ ": 0.3, "\\quad": 1.0, "\\qquad": 2.0, "\\sum": 1.6,
         "\\prod": 1.6, "\\exp": 3.0, "\\log": 3.0, "\\max": 3.0, "\\min": 3.0, "\\det": 3.0,
         "\\sin": 3.0, "\\cos": 3.0, "\\tan": 3.0, "\\tanh": 4.0, "\\dots": 2.0}  # fmt: skip
_SIGNS = {"+", "-", "=", "\\le", "\\ge", "\\in", "<", ">", "\\ne", "\\perp"}
_OPEN, _CLOSE = "\\left(", "\\right)"
_OPENS, _CLOSES = ("{", "(", "[", "\\lvert", "\\lVert"), ("}", ")", "]", "\\rvert", "\\rVert")
_LARGE = ("\\sum", "\\prod", "\\max", "\\min", "\\bigvee")


def width(text: str) -> float:
    """About how many letters a piece of LaTeX is wide."""
    return _width(_TOKEN.findall(text), 0)[0]


def _width(tokens: list[str], at: int) -> tuple[float, int]:
    """The width from ``at`` to the end of the group, and where that is."""
    widest = total = 0.0
    last = ""
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token == "}":
            break
        if token == "\\\\":  # a further line of a \substack
            widest, total = max(widest, total), 0.0
        elif token == "{":
            inner, at = _width(tokens, at)
            total += inner
        elif token == "\\frac":
            above, at = _argument(tokens, at)
            below, at = _argument(tokens, at)
            total += max(above, below) + 0.3
        elif token in "_^":
            inner, at = _argument(tokens, at)
            # Below a sum there is room as wide as its sign.
            total += max(SMALL * inner - _ROOM["\\sum"], 0.0) if last in _LARGE else SMALL * inner
        elif token in _SIGNS:
            total += 2.0
        elif token in _ROOM:
            total += _ROOM[token]
        elif token not in _NOTHING and not token.isspace() and token != "&":
            total += 1.0
        last = token
    return max(widest, total), at


def _argument(tokens: list[str], at: int) -> tuple[float, int]:
    """The width of the next group or letter, and what follows it."""
    if at < len(tokens) and tokens[at] == "{":
        return _width(tokens, at + 1)
    return 1.0, at + 1


def joined(parts: Sequence[str]) -> str:
    """Summands with their signs between."""
    shown = parts[0]
    for part in parts[1:]:
        shown += f" {signed(part)}"
    return shown


def signed(part: str) -> str:
    """A summand that follows others."""
    return f"- {part[1:].lstrip()}" if part.startswith("-") else f"+ {part}"


def broken(parts: Sequence[str], tail: str = "") -> list[str]:
    """The lines of a sum, with ``tail`` at the end of the last one."""
    lines = [parts[0]]
    for k, part in enumerate(parts[1:], 2):
        more = f"{lines[-1]} {signed(part)}"
        if width(more + tail if k == len(parts) else more) <= LINE:
            lines[-1] = more
        else:
            lines.append(signed(part))
    lines[-1] += tail
    return [piece for line in lines for piece in _opened(line)]


def _opened(line: str) -> list[str]:
    """A line that is too wide, broken inside its widest brackets where these hold a sum."""
    if width(line) <= LINE:
        return [line]
    pairs = sorted(_brackets(line), key=lambda pair: width(line[slice(*pair)]), reverse=True)
    for start, end in pairs:
        parts = _summands(line[start + len(_OPEN) : end])
        if len(parts) > 1:
            pieces = [line[:start] + rf"\Bigl( {parts[0]}"]
            for part in parts[1:]:
                if width(f"{pieces[-1]} {part}") <= LINE:
                    pieces[-1] += f" {part}"
                else:
                    pieces.append(rf"\quad {part}")
            pieces[-1] += rf"\Bigr){line[end + len(_CLOSE) :]}"
            return pieces
    return [line]


def _brackets(line: str) -> list[tuple[int, int]]:
    """Where brackets open and close that stand in no others, and in no index or fraction."""
    found, open_at, depth, braces = [], 0, 0, 0
    for match in _TOKEN.finditer(line):
        braces += (match[0] == "{") - (match[0] == "}")
        if braces == 0 and match[0] == "\\left":
            open_at = match.start() if depth == 0 else open_at
            depth += 1
        elif braces == 0 and match[0] == "\\right":
            depth -= 1
            if (
                depth == 0
                and line.startswith(_OPEN, open_at)
                and line.startswith(_CLOSE, match.start())
            ):
                found.append((open_at, match.start()))
    return found


def _summands(text: str) -> list[str]:
    """The terms of a sum, each but the first with its sign."""
    cuts, depth = [0], 0
    for match in _TOKEN.finditer(text):
        depth += match[0] in _OPENS
        depth -= match[0] in _CLOSES
        # A sign after a blank stands between two terms; one at the start belongs to its term.
        if depth == 0 and match[0] in "+-" and text[: match.start()].strip():
            cuts.append(match.start())
    return [text[a:b].strip() for a, b in zip(cuts, [*cuts[1:], len(text)], strict=True)]
