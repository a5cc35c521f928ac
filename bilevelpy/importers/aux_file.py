"""AUX files: which columns and rows of an MPS file belong to the follower, in all spellings in use.

Name-based (``@VARSBEGIN`` ...) and index-based (``N``, ``M``, ``LC``, ``LR``, ``LO``, ``OS``; with
``IC`` and ``IB`` an interdiction). What is not listed belongs to the upper level; the path after
``@MPS`` is ignored.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from bilevelpy.importers.faults import Text, quoted
from bilevelpy.system.storage import written_number

COUNTS = {"@NUMVARS": "columns", "@NUMCONSTRS": "rows", "@NUMCONSTR": "rows"}
BEGINS = {
    "@VARSBEGIN": "columns",
    "@VARBEGIN": "columns",
    "@CONSTRSBEGIN": "rows",
    "@CONSTRBEGIN": "rows",
    "@CONSTSBEGIN": "rows",
}
ENDS = {
    "@VARSEND": "columns",
    "@VAREND": "columns",
    "@CONSTRSEND": "rows",
    "@CONSTREND": "rows",
    "@CONSTSEND": "rows",
}
SENSES = ("@OBJSENSE", "@OBJESENSE")
VALUES = ("@NAME", "@MPS", "@LP")


@dataclass(frozen=True, slots=True)
class Entry:
    """A column or row by name or by position, with its line."""

    key: str | int
    line: int
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Interdiction:
    """What it costs to take each column away (in the order of the columns, with its line), and the
    budget for it.
    """

    costs: tuple[tuple[float, int], ...]
    budget: float
    line: int


@dataclass(frozen=True, slots=True)
class Aux:
    """The follower's columns (with costs), rows and sense. With ``interdiction`` the other file
    holds the follower alone: the leader takes columns away, and the objectives are opposite.
    """

    text: Text
    columns: tuple[Entry, ...]
    rows: tuple[Entry, ...]
    maximize: bool
    name: str | None = None
    interdiction: Interdiction | None = None


def read_aux(text: Text) -> Aux:
    """Read an AUX file of either form."""
    for line in text.lines:
        word = line.split()[:1]
        if word:
            return _named(text) if word[0].startswith("@") else _indexed(text)
    raise text.bad(1, "the AUX file is empty")


def _number(text: Text, line: int, word: str) -> float:
    value = written_number(word)
    if value is None:
        raise text.bad(line, f"{quoted(word)} is not a number")
    if not math.isfinite(value):
        raise text.bad(line, f"{quoted(word)} is not a finite number")
    return value


def _whole(text: Text, line: int, word: str) -> int:
    value = _number(text, line, word)
    if value != int(value) or value < 0:
        raise text.bad(line, f"`{word}` is not a whole number from 0 on")
    return int(value)


class _Lines:
    """Lines that hold something, one after another."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.rest = [(k, words) for k, t in enumerate(text.lines, 1) if (words := t.split())]
        self.rest.reverse()
        self.last = self.rest[0][0]

    def next(self, wanted: str) -> tuple[int, list[str]]:
        if not self.rest:
            raise self.text.bad(self.last, f"the file ends where {wanted} should follow")
        return self.rest.pop()


def _named(text: Text) -> Aux:
    lines = _Lines(text)
    counts: dict[str, tuple[int, int]] = {}
    found: dict[str, list[Entry]] = {}
    once: set[str] = set()
    maximize, name = False, None
    while lines.rest:
        at, words = lines.next("a keyword")
        key = words[0].upper()
        if key in once:
            raise text.bad(at, f"a second `{key}`")
        once.add(key)
        if key in COUNTS:
            line, value = (at, words[1:]) if len(words) > 1 else lines.next("a count")
            counts[COUNTS[key]] = (_whole(text, line, value[0]), line)
        elif key in BEGINS:
            part = BEGINS[key]
            if part in found:
                raise text.bad(at, f"a second list of {part}")
            found[part] = _listed(lines, part)
        elif key in SENSES:
            line, value = (at, words[1:]) if len(words) > 1 else lines.next("MIN or MAX")
            if value[0].upper() not in ("MIN", "MAX", "MINIMIZE", "MAXIMIZE", "1", "-1"):
                raise text.bad(line, f"`{value[0]}` is neither MIN nor MAX")
            maximize = value[0].upper() in ("MAX", "MAXIMIZE", "-1")
        elif key in VALUES:
            value = words[1:] if len(words) > 1 else lines.next("a name")[1]
            name = value[0] if key == "@NAME" else name
        else:
            raise text.bad(at, f"`{words[0]}` is no keyword of AUX files")
    if "columns" not in found:
        raise text.bad(lines.last, "the file lists no columns of the follower (@VARSBEGIN)")
    found.setdefault("rows", [])
    for part, (count, line) in counts.items():
        if count != len(found[part]):
            raise text.bad(line, f"{count} {part} are announced, {len(found[part])} are listed")
    return Aux(text, tuple(found["columns"]), tuple(found["rows"]), maximize, name)


def _listed(lines: _Lines, part: str) -> list[Entry]:
    text = lines.text
    entries: list[Entry] = []
    while True:
        at, words = lines.next(f"the end of the {part}")
        key = words[0].upper()
        if ENDS.get(key) == part:
            return entries
        if key.startswith("@"):
            raise text.bad(at, f"the list of {part} is not closed before `{words[0]}`")
        if len(words) > (2 if part == "columns" else 1):
            raise text.bad(at, f"`{words[-1]}` is one word too many")
        if part == "columns" and len(words) == 1:
            hint = f"write `{words[0]} 0` where it costs nothing"
            raise text.bad(at, f"column {quoted(words[0])} has no cost", hint)
        cost = _number(text, at, words[1]) if len(words) == 2 else 0.0
        entries.append(Entry(words[0], at, cost))


def _indexed(text: Text) -> Aux:
    counts: dict[str, tuple[int, int]] = {}
    columns: list[tuple[int, int]] = []
    rows: list[Entry] = []
    costs: list[float] = []
    prices: list[tuple[float, int]] = []
    budget: tuple[float, int] | None = None
    once: set[str] = set()
    maximize = False
    for at, raw in enumerate(text.lines, 1):
        words = raw.split()
        if not words:
            continue
        key = words[0].upper()
        if key not in ("N", "M", "LC", "LR", "LO", "OS", "IC", "IB"):
            raise text.bad(at, f"`{words[0]}` is no keyword of AUX files")
        if len(words) != 2:
            raise text.bad(at, f"`{key}` takes one value")
        if key in once:
            raise text.bad(at, f"a second `{key}`")
        if key in ("N", "M", "OS", "IB"):
            once.add(key)
        if key in ("N", "M"):
            counts[key] = (_whole(text, at, words[1]), at)
        elif key == "LC":
            columns.append((_whole(text, at, words[1]), at))
        elif key == "LR":
            rows.append(Entry(_whole(text, at, words[1]), at))
        elif key == "LO":
            costs.append(_number(text, at, words[1]))
        elif key == "IC":
            prices.append((_number(text, at, words[1]), at))
        elif key == "IB":
            budget = (_number(text, at, words[1]), at)
        else:
            sense = _number(text, at, words[1])
            if sense not in (1, -1):
                raise text.bad(at, f"`OS` is 1 (minimise) or -1 (maximise), not {quoted(words[1])}")
            maximize = sense < 0
    for key, listed in (("N", len(columns)), ("M", len(rows))):
        if key in counts and counts[key][0] != listed:
            raise text.bad(counts[key][1], f"{counts[key][0]} are announced, {listed} are listed")
    if len(costs) != len(columns):
        line = columns[0][1] if columns else 1
        raise text.bad(line, f"{len(columns)} columns have {len(costs)} costs (LO)")
    made = tuple(Entry(k, at, c) for (k, at), c in zip(columns, costs, strict=True))
    interdiction = None
    if budget is not None or prices:
        if budget is None:
            raise text.bad(prices[0][1], "costs of an interdiction (IC) need its budget (IB)")
        if len(prices) != len(columns):
            reason = f"{len(columns)} columns have {len(prices)} costs of interdiction (IC)"
            raise text.bad(prices[0][1] if prices else budget[1], reason)
        interdiction = Interdiction(tuple(prices), *budget)
    return Aux(text, made, tuple(rows), maximize, interdiction=interdiction)
