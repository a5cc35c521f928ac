"""The general message `expected ..., found ...`, with a hint where the place gives one."""

from __future__ import annotations

import difflib

from bilevelpy.diagnostics import Diagnostic, Fix, Span, diagnostic
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.failure import Failure, describe

DOMAINS = frozenset(
    {"binary", "integers", "integer", "simplex", "ball", "psd", "reals", "real", "bounds"}
)

# What others call the value to start from.
STARTS = frozenset({"init", "initial", "initially", "guess", "default", "value"})

# What others call whole numbers.
WHOLE = frozenset({"integers", "integer", "int"})


def unexpected(f: Failure) -> Diagnostic:
    """Say what could stand at the failing token, and what stands there."""
    hint, fix = _help(f)
    found = describe(f.tokens, f.at)
    return diagnostic("BLV0102", f.here(), hint=hint, fix=fix, expected=_expected(f), found=found)


def _help(f: Failure) -> tuple[str | None, Fix | None]:
    """What to write instead, where the place tells it."""
    kind, word, first = f.kind(0), f.text(f.at), f.first()
    if f.at == f.start and f.symbol in ("item", "stmt"):
        if f.symbol == "item" and kind == "NAME" and f.kind(1) == "EQUAL":
            return (
                f"write `param {word} = ...;` for a constant, `dim {word} = ...;` for a size",
                None,
            )
        if word in DOMAINS and f.symbol == "stmt":
            return f"a domain follows the name: `var x in {word};`", None
        noun = "declarations" if f.symbol == "item" else "statements"
        keywords = table.TOP_KEYWORDS if f.symbol == "item" else table.LEVEL_KEYWORDS
        return f"{noun} start with " + ", ".join(f"`{w}`" for w in keywords), None
    if kind == "IF" and f.kind(-1) in table.OPERAND_ENDS and f.same_line():
        return "a choice is written `if condition then a else b`", None
    if kind == "IF":
        return "put parentheses around `if ... then ... else ...` inside a larger expression", None
    if f.accepts == {"NAME"} and kind in ("NUMBER", "STRING"):
        return "a name starts with a letter or `_` and has no quotes", None
    if kind == "LSQB" and f.kind(-1) == "NASH":
        return f"`nash` stands last: `lower {f.text(f.start + 1)}[i in I] nash {{ ... }}`", None
    if kind == "COLON" and f.kind(-1) in ("MINIMIZE", "MAXIMIZE"):
        return None, Fix("remove `:`", f.here(), "")
    for right in ("EQUAL", "COLON"):
        if kind in ("EQUAL", "COLON", "ARROW") and kind != right and right in f.accepts:
            sign = table.WRITTEN[right]
            return None, Fix(f"replace `{word}` with `{sign}`", f.here(), sign)
    if kind == "COMMA" and f.kind(-1) == f.kind(1) == "NUMBER":
        return _comma_in_number(f), None
    if kind == "COMMA" and "SEMICOLON" in f.accepts and not f.open_brackets():
        return "statements end with `;`", Fix("replace `,` with `;`", f.here(), ";")
    if f.symbol in ("upper_head", "lower_head"):
        return _head_help(f)
    if first in ("VAR", "PARAM") and not f.open_brackets():
        return _declaration_help(f)
    if first == "SET" and any(f.tokens[k].type == "LBRACE" for k in f.open_brackets()):
        if kind == "RANGE":
            return "a range has no braces: `set T = 1..24;`", None
        if kind == "COLON":
            return "a set has labels only; values for them belong to a `param`", None
    if kind == "RANGE":
        return "name the range first: `set T = 1..24;`", None
    if kind == "COMMA" and f.accepts == {"IN"}:
        return "elements of a set of pairs stand in parentheses: `(i, j) in A`", None
    if kind == "COMMA" and f.in_subscript():
        return "subscripts have no parentheses of their own: `x[i, j]`", None
    if kind == "IN" and "WHERE" in {f.tokens[k].type for k in range(f.start, f.at)}:
        return "restrict the set of the iterator instead: `i in I inter A`", None
    if f.symbol == "constraint" and f.at == f.start + 1:
        name = f.text(f.start)
        if kind == "LBRACE":
            return f"iterators stand in square brackets: `{name}[i in I]: left <= right;`", None
        if kind == "MINUS" and f.kind(1) == "NAME":
            return f"names have letters, digits and `_`: `{name}_{f.text(f.at + 1)}`", None
    if kind == "LBRACE" and f.symbol == "constraint" and f.at == f.start:
        return "constraints have no braces around them: `subject to name: left <= right;`", None
    if kind == "IN" and f.symbol == "constraint":
        return (
            "write bounds as `name: low <= expression <= high;`, or as the domain of a variable",
            None,
        )
    if first == "EXPECT":
        return "write `expect expression == number within tolerance;`", None
    if first == "MODEL":
        return 'write `model name "title";`, the name with letters, digits and `_`', None
    if first == "DEF":
        return "write `def name(a, b) = expression;`", None
    if first == "REPORT":
        return "write `report name = expression;`", None
    if f.symbol == "constraint" and f.accepts == {"COLON"}:
        return "a constraint reads `name: left <= right;`", None
    return _similar(f)


def _comma_in_number(f: Failure) -> str:
    """A comma between two numbers: a decimal, or thousands."""
    left, right = f.text(f.at - 1), f.text(f.at + 1)
    decimal = f"decimals have a point: `{left}.{right}`"
    thousands = f"thousands are not set apart: `{left}{right}`"
    return f"{decimal}; {thousands}" if len(right) == 3 else decimal


def _head_help(f: Failure) -> tuple[str | None, Fix | None]:
    if f.kind(0) == "COLON":
        return None, Fix("remove `:`", f.here(), "")
    if f.symbol == "lower_head" and f.at == f.start + 1 and f.kind(0) == "LBRACE":
        return "give this level a name: `lower follower { ... }`", None
    if f.symbol == "lower_head" and f.kind(0) == "LPAR":
        return "variables are declared inside the braces; a family is `lower name[i in I]`", None
    if f.symbol == "lower_head" and f.kind(0) in ("OPTIMISTIC", "PESSIMISTIC"):
        return f"the stance belongs to the other level: `upper {f.token} {{ ... }}`", None
    if f.symbol == "upper_head" and f.kind(0) == "NAME":
        similar = _similar(f)
        return similar if similar[0] else ("the upper level has no name: `upper { ... }`", None)
    return _similar(f)


def _declaration_help(f: Failure) -> tuple[str | None, Fix | None]:
    kind, word = f.kind(0), f.text(f.at)
    name = f.text(f.at - 1) if f.kind(-1) == "NAME" else "x"
    if kind in ("REL", "CMP"):
        return f"bounds are a domain: `{name} in [low, high]`, with `inf` where there is none", None
    if kind == "NUMBER" and f.kind(-1) == "COMMA" and f.kind(-2) == "NUMBER":
        return f"decimals have a point: `{f.text(f.at - 2)}.{word}`", None
    if kind == "LSQB" and f.kind(-2) == "IN" and f.text(f.at - 1) in WHOLE:
        return "bounds of whole numbers stand in parentheses: `integers(low, high)`", None
    if kind == "NAME" and word in WHOLE and f.kind(-1) == "RSQB" and "IN" not in f.accepts:
        return "whole numbers are a domain of their own: `in integers(low, high)`", None
    if kind == "LSQB" and f.kind(-1) == "RSQB":
        return "all axes stand in one pair of brackets: `name[n, m]`", None
    if kind == "LBRACE" and [f.text(f.at + k) for k in range(1, 5)] == ["0", ",", "1", "}"]:
        return None, Fix("replace `{0, 1}` with `binary`", f.span(f.at, f.at + 4), "binary")
    if (kind == "LBRACE" and f.kind(-1) == "IN") or kind == "NUMBER":
        return (
            "domains: `[low, high]`, `binary`, `integers(low, high)`, `simplex`, `ball(r)`, `psd`",
            None,
        )
    if kind == "LPAR" and f.kind(-1) == "IN":
        return "an interval stands in square brackets: `[low, high]`", None
    if kind in ("LBRACE", "LPAR"):
        return f"axes stand in square brackets: `{name}[n]`", None
    if kind == "IN" and "EQUAL" in {f.tokens[k].type for k in range(f.start, f.at)}:
        return "the domain stands before `=`", None
    if kind == "EQUAL" and f.kind(-1) == "START":
        return None, Fix("remove `=`", f.here(), "")
    if kind == "EQUAL" and f.first() == "VAR":
        return (
            f"write `var {name} start ...;` to start from, `let {name} = ...;` to define",
            None,
        )
    if kind == "NAME" and word.lower() in STARTS and "START" in f.accepts:
        return None, Fix(f"replace `{word}` with `start`", f.here(), "start")
    if kind == "NAME" and word in DOMAINS and "IN" in f.accepts:
        return None, Fix(
            f"insert `in` before `{word}`",
            Span(f.source.name, f.here().start, f.here().start),
            "in ",
        )
    if kind == "NAME" and f.at == f.start + 2:
        return f"the name stands first, without a type: `{f.text(f.start)} {word}`", None
    if kind == "NAME" and f.kind(1) in ("COMMA", "SEMICOLON", "LSQB", "IN", "START"):
        return f"declarations of one statement are separated by commas: `, {word}`", None
    return _similar(f)


def _similar(f: Failure) -> tuple[str | None, Fix | None]:
    """A keyword that could stand here and is spelled nearly like the word that does."""
    if f.kind(0) != "NAME":
        return None, None
    possible = [word for word, kind in table.KEYWORDS.items() if kind in f.accepts]
    close = difflib.get_close_matches(f.text(f.at), possible, 1, 0.75)
    if not close:
        return None, None
    return f"did you mean `{close[0]}`?", Fix(
        f"replace `{f.token}` with `{close[0]}`", f.here(), close[0]
    )


def _expected(f: Failure) -> str:
    """What could stand at the failing token, in words."""
    accepts = set(f.accepts)
    if f.at == f.start and f.symbol == "item":
        return "a declaration"
    if f.at == f.start and f.symbol == "stmt":
        return "a statement"
    parts: list[str] = []
    if {"NAME", "NUMBER", "LPAR"} <= accepts:
        parts.append("an expression")
        accepts -= {
            "NAME",
            "NUMBER",
            "LPAR",
            "LSQB",
            "STRING",
            "INF",
            "PLUS",
            "MINUS",
            "UPPER",
            "IF",
            "NOT",
        }
        accepts -= {"LBRACE"}
    elif {"STAR", "PLUS"} <= accepts:
        # After an operand nearly everything could follow; what ends it is the useful part.
        accepts -= {
            "STAR",
            "SLASH",
            "AT",
            "PLUS",
            "MINUS",
            "CIRCUMFLEX",
            "QUOTE",
            "DOT",
            "LSQB",
            "LPAR",
        }
        accepts -= {"RANGE", "UNION", "INTER", "DIFF"}
    if f.symbol.endswith("_head") and "$END" in accepts:
        accepts = accepts - {"$END"} | {"LBRACE"}
    words = {
        "NAME": "a name",
        "NUMBER": "a number",
        "STRING": "a text in double quotes",
        "$END": "nothing more",
    }
    if "REL" in accepts:
        accepts -= {"REL", "CMP"}
        parts.append("a comparison")
    if "NUMBER" in accepts:
        accepts -= {"PLUS", "MINUS", "INF"}
    order = ["NAME", "NUMBER", "STRING", "$END", *table.WRITTEN]
    for kind in sorted(accepts, key=lambda kind: order.index(kind) if kind in order else 99):
        parts.append(words.get(kind) or f"`{table.WRITTEN.get(kind, kind)}`")
    if len(parts) > 5:
        parts = [*parts[:4], "another clause"]
    if not parts:
        return "something else"
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} or {parts[-1]}"
