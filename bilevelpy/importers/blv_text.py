"""Text of this language from columns, rows and terms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bilevelpy.ir.atoms import CALLS
from bilevelpy.syntax.tokens import FOREIGN_WORDS, KEYWORDS

WIDTH = 92
# Names of domains are no keywords, but a variable of that name would be hard to read.
TAKEN = frozenset(
    {*KEYWORDS, *FOREIGN_WORDS, *CALLS, "pi", "simplex", "ball", "psd", "binary", "integers"}
)


def names(originals: Iterable[str], taken: Iterable[str] = ()) -> dict[str, str]:
    """A name of the language for each, close to the original and unique."""
    used = {*TAKEN, *taken}
    found: dict[str, str] = {}
    for original in originals:
        made = "".join(c if c.isascii() and (c.isalnum() or c == "_") else "_" for c in original)
        made = made.rstrip("_") or "v"
        if not (made[0].isalpha() or made[0] == "_"):
            made = f"v_{made}"
        made = made[:100]
        unique, count = made, 1
        while unique in used:
            count += 1
            unique = f"{made}_{count}"
        used.add(unique)
        found[original] = unique
    return found


def number(value: float) -> str:
    """A number with all its digits."""
    if value in (float("inf"), float("-inf")):
        return "inf" if value > 0 else "-inf"
    text = repr(float(value))
    return text[:-2] if text.endswith(".0") else text


def linear(terms: Sequence[tuple[str, float]], constant: float = 0.0) -> str:
    """``2*x - y + 3``; 0 where there is nothing."""
    parts: list[str] = []
    for name, c in terms:
        if c == 0:
            continue
        size = "" if abs(c) == 1.0 else f"{number(abs(c))}*"
        parts.append(f"{'-' if c < 0 else '+'} {size}{name}")
    if constant:
        parts.append(f"{'-' if constant < 0 else '+'} {number(abs(constant))}")
    if not parts:
        return "0"
    first = parts[0].removeprefix("+ ")
    parts[0] = f"-{first[2:]}" if first.startswith("- ") else first
    return " ".join(parts)


def domain(low: float, high: float, integer: bool) -> str:
    """`` in [0, 10]``, nothing for a free variable."""
    if integer:
        if low == 0 and high == 1:
            return " in binary"
        return f" in integers({number(low)}, {number(high)})"
    if low == float("-inf") and high == float("inf"):
        return ""
    return f" in [{number(low)}, {number(high)}]"


def row(name: str, body: str, low: float, high: float) -> str:
    """A constraint."""
    if low == high:
        return f"{name}: {body} == {number(low)};"
    if low == float("-inf"):
        return f"{name}: {body} <= {number(high)};"
    if high == float("inf"):
        return f"{name}: {body} >= {number(low)};"
    return f"{name}: {number(low)} <= {body} <= {number(high)};"


def level(head: str, variables: Sequence[str], objective: str, rows: Sequence[str]) -> list[str]:
    """A level: its head, declarations, objective and constraints."""
    lines = [f"{head} {{", *(wrapped(f"  var {v};") for v in variables), wrapped(f"  {objective};")]
    if rows:
        lines.append("  subject to")
        lines += [wrapped(f"    {r}") for r in rows]
    return [*lines, "}"]


def wrapped(line: str) -> str:
    """A long statement over several lines, broken at blanks."""
    indent = " " * (len(line) - len(line.lstrip()) + 4)
    words = line.strip().split(" ")
    lines = [line[: len(indent) - 4] + words[0]]
    for word in words[1:]:
        if len(lines[-1]) + len(word) >= WIDTH:
            lines.append(indent + word)
        else:
            lines[-1] += f" {word}"
    return "\n".join(lines)


def one_line(text: str) -> str:
    """Text that cannot leave its line: labels come with data, and may hold any character."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def header(name: str, title: str, comments: Iterable[str]) -> list[str]:
    """Documentation and the ``model`` line."""
    shown = one_line(title).replace('"', "'")
    quoted = f' "{shown}"' if shown else ""
    return [*(f"# {one_line(c)}" for c in comments), f"model {name}{quoted};", ""]


def renamed(pairs: dict[str, str], kind: str) -> list[str]:
    """A line for every name that had to change."""
    return [f"{kind} `{old}` is `{new}` here" for old, new in pairs.items() if old != new]
