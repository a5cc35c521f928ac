"""Records of problem collections (BOLIB, BASBLib) in JSON: ``x1``.., ``y1``.., ``expr <= 0``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bilevelpy.errors import UsageError
from bilevelpy.importers import blv_text as blv

CALLS = frozenset({"exp", "log", "sqrt", "sin", "cos", "tan", "abs", "max", "min", "pi"})
WORD = re.compile(r"[A-Za-z_]\w*")
ALLOWED = re.compile(r"[\w\s.+\-*/^(),]+")
RELATION = re.compile(r"(.+?)(<=|==|>=)(.+)")


def is_record(content: Any) -> bool:
    """Whether this is a record, or a list of records."""
    first = content[0] if isinstance(content, list) and content else content
    return isinstance(first, dict) and {"n_x", "n_y", "upper", "lower"} <= first.keys()


def record_text(path: str | Path, name: str | None = None) -> str:
    """The text of a record; ``name`` chooses one of a collection."""
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"cannot read {path}: it is not JSON ({error})") from error
    return text_of(_chosen(path, content, name), str(path))


def _chosen(path: str | Path, content: Any, name: str | None) -> Mapping[str, Any]:
    records = content if isinstance(content, list) else [content]
    if name is None:
        if len(records) == 1:
            found: Mapping[str, Any] = records[0]
            return found
        raise UsageError(f"{path} holds {len(records)} problems: name one of them")
    for record in records:
        if record.get("name") == name:
            chosen: Mapping[str, Any] = record
            return chosen
    raise UsageError(f"{path} holds no problem called `{name}`")


def text_of(record: Mapping[str, Any], origin: str) -> str:
    """A record as a model."""
    problem = str(record.get("name", "problem"))
    where = f"{origin}, problem {problem}"
    try:
        counts = {"x": int(record["n_x"]), "y": int(record["n_y"])}
        start = record.get("start") or {}
        sections = {key: record[key] for key in ("upper", "lower")}
        parts = {
            key: (str(s["objective"]), [str(c) for c in s.get("constraints", [])])
            for key, s in sections.items()
        }
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{where}: not a complete record ({type(error).__name__} {error})"
        ) from error
    known = {f"{letter}{k + 1}" for letter, n in counts.items() for k in range(n)}
    name = next(iter(blv.names([problem], known).values()))
    shown = ", ".join(str(v) for v in (record.get("source"), record.get("class")) if v)
    lines = blv.header(
        name, problem, [f"imported from {Path(origin).name}" + (f": {shown}" if shown else "")]
    )
    invented = bool(start.get("invented", False))
    for key, letter, head in (("upper", "x", "upper"), ("lower", "y", "lower follower")):
        values = [] if invented else list(start.get(letter) or [])
        variables = []
        for k in range(counts[letter]):
            given = k < len(values) and values[k] is not None
            begin = f" start {blv.number(float(values[k]))}" if given else ""
            variables.append(f"{letter}{k + 1}{begin}")
        objective, constraints = parts[key]
        rows = [
            f"{key[0]}{k + 1}: {_row(c, known, f'{where}, {key} constraint {k + 1}')};"
            for k, c in enumerate(constraints)
        ]
        body = _expression(objective, known, f"{where}, {key} objective")
        lines += [*blv.level(head, variables, f"minimize {body}", rows), ""]
    return "\n".join(lines).rstrip() + "\n"


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
