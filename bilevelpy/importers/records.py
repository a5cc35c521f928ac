"""Records of problem collections (BOLIB, BASBLib) in JSON: ``x1``.., ``y1``.., ``expr <= 0``."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilevelpy.errors import UsageError
from bilevelpy.importers import blv_text as blv
from bilevelpy.system.storage import read_value

CALLS = frozenset({"exp", "log", "sqrt", "sin", "cos", "tan", "abs", "max", "min", "pi"})
WORD = re.compile(r"[A-Za-z_]\w*")
ALLOWED = re.compile(r"[\w\s.+\-*/^(),]+")
# Variables of a level, each of which is written out; characters that a message quotes.
MOST, QUOTED = 100_000, 60
RELATION = re.compile(r"(.+?)(<=|==|>=)(.+)")


def is_record(content: Any) -> bool:
    """Whether this is a record, or a list of records."""
    first = content[0] if isinstance(content, list) and content else content
    return isinstance(first, dict) and {"n_x", "n_y", "upper", "lower"} <= first.keys()


def record_text(path: str | Path, name: str | None = None) -> str:
    """The text of a record; ``name`` chooses one of a collection."""
    return text_of(_chosen(path, read_value(path), name), str(path))


def _chosen(path: str | Path, content: Any, name: str | None) -> Mapping[str, Any]:
    records = content if isinstance(content, list) else [content]
    if name is None:
        if len(records) == 1:
            found: Mapping[str, Any] = records[0]
            return found
        raise UsageError(f"{path} holds {len(records)} problems: name one of them")
    for record in records:
        if isinstance(record, Mapping) and record.get("name") == name:
            chosen: Mapping[str, Any] = record
            return chosen
    raise UsageError(f"{path} holds no problem called `{name}`")


def text_of(record: Mapping[str, Any], origin: str) -> str:
    """A record as a model."""
    problem = str(record.get("name", "problem"))
    where = f"{origin}, problem {problem}"
    try:
        counts = {letter: _count(record[f"n_{letter}"], f"n_{letter}") for letter in "xy"}
        start = _start(record.get("start") or {}, counts)
        parts = {key: _section(record, key) for key in ("upper", "lower")}
    except _Wrong as error:
        raise UsageError(f"{where}: {error}") from None
    except KeyError as error:
        raise UsageError(f"{where}: not a complete record (it has no `{error.args[0]}`)") from None
    known = {f"{letter}{k + 1}" for letter, n in counts.items() for k in range(n)}
    name = next(iter(blv.names([problem], known).values()))
    shown = ", ".join(str(v) for v in (record.get("source"), record.get("class")) if v)
    lines = blv.header(
        name, problem, [f"imported from {Path(origin).name}" + (f": {shown}" if shown else "")]
    )
    for key, letter, head in (("upper", "x", "upper"), ("lower", "y", "lower follower")):
        values = start[letter]
        variables = []
        for k in range(counts[letter]):
            value = values[k] if k < len(values) else None
            begin = f" start {blv.number(value)}" if value is not None else ""
            variables.append(f"{letter}{k + 1}{begin}")
        objective, constraints = parts[key]
        rows = [
            f"{key[0]}{k + 1}: {_row(c, known, f'{where}, {key} constraint {k + 1}')};"
            for k, c in enumerate(constraints)
        ]
        body = _expression(objective, known, f"{where}, {key} objective")
        lines += [*blv.level(head, variables, f"minimize {body}", rows), ""]
    return "\n".join(lines).rstrip() + "\n"


class _Wrong(ValueError):
    """What a record says that cannot be."""


def _section(record: Mapping[str, Any], key: str) -> tuple[str, list[str]]:
    """Objective and constraints of a level."""
    found = record[key]
    if not isinstance(found, Mapping) or "objective" not in found:
        raise _Wrong(f"not a complete record (`{key}` has no `objective`)")
    objective, rows = found["objective"], found.get("constraints", [])
    if not isinstance(objective, str | int | float) or isinstance(objective, bool):
        raise _Wrong(f"the objective of `{key}` is a text, found {_shown(objective)}")
    if not isinstance(rows, list) or not all(isinstance(row, str) for row in rows):
        raise _Wrong(f"the constraints of `{key}` are a list of texts, found {_shown(rows)}")
    return str(objective), rows


def _count(value: Any, key: str) -> int:
    """A number of variables."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST:
        raise _Wrong(f"`{key}` is a whole number from 0 to {MOST:,}, found {_shown(value)}")
    return value


def _start(value: Any, counts: Mapping[str, int]) -> dict[str, list[float | None]]:
    """The start values of both levels; none where the collection has invented them."""
    if not isinstance(value, Mapping):
        raise _Wrong(f"`start` has lists `x` and `y`, found {_shown(value)}")
    found: dict[str, list[float | None]] = {"x": [], "y": []}
    if value.get("invented", False):
        return found
    for letter, count in counts.items():
        given = value.get(letter) or []
        if not isinstance(given, list) or len(given) > count:
            raise _Wrong(
                f"the start of {letter} is a list of at most {count} numbers, found {_shown(given)}"
            )
        for entry in given:
            real = isinstance(entry, (int, float)) and not isinstance(entry, bool)
            if entry is not None and not (real and math.isfinite(entry)):
                raise _Wrong(f"a start of {letter} is a finite number, found {_shown(entry)}")
            found[letter].append(None if entry is None else float(entry))
    return found


def _shown(value: Any) -> str:
    """A value of a file as a message quotes it."""
    text = json.dumps(value)
    return text if len(text) <= QUOTED else f"{text[: QUOTED - 3]}..."


def _row(text: str, known: set[str], where: str) -> str:
    match = RELATION.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"{where}: `{text}` is no `expr <= 0` or `expr == 0`")
    left, relation, right = match.groups()
    return f"{_expression(left, known, where)} {relation} {_expression(right, known, where)}"


def _expression(text: str, known: set[str], where: str) -> str:
    """An expression, checked so that nothing but an expression gets into the model."""
    if ALLOWED.fullmatch(text) is None:
        raise UsageError(f"{where}: `{text}` holds a sign that no expression has")
    for match in WORD.finditer(text):
        word, before = match[0], text[max(0, match.start() - 1) : match.start()]
        if word not in known | CALLS and not before.isdigit():
            raise UsageError(f"{where}: `{word}` is neither a variable nor a known function")
    return text.strip().replace("**", "^")
