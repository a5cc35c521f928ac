"""What a newcomer probably meant: one diagnostic for a statement that does not parse."""

from __future__ import annotations

from collections.abc import Callable

from bilevelpy.diagnostics import Diagnostic, Fix, Label, Span, diagnostic
from bilevelpy.syntax import tokens as table
from bilevelpy.syntax.expected import unexpected
from bilevelpy.syntax.failure import Failure

# A reserved word before one of these stands where a name was meant.
NAME_FOLLOWS = frozenset({"SEMICOLON", "COMMA", "LSQB", "IN", "EQUAL"})
UNIVERSAL = frozenset({"forall", "foreach"})
REDUCTION = "`reduction(e for i in I where condition)`"
VALUE_STATEMENTS = frozenset({"MINIMIZE", "MAXIMIZE", "LET", "DEF", "REPORT", "DIM"})


def explain(failure: Failure) -> Diagnostic:
    """The diagnostic of the first rule that recognises the mistake."""
    for rule in RULES:
        found = rule(failure)
        if found is not None:
            return found
    return unexpected(failure)


# --- rules, most specific first


def _unclosed(f: Failure) -> Diagnostic | None:
    stack = f.open_brackets()
    kind = f.kind(0) if f.inside else "SEMICOLON"
    if kind in table.OPENER and not stack:
        fix = Fix(f"remove `{f.token}`", f.here(), "")
        return diagnostic("BLV0105", f.here(), fix=fix, closer=f.token, what="nothing")
    if not stack:
        return None
    opener = f.tokens[stack[-1]]
    if kind == "SEMICOLON" and opener.type == "LSQB" and f.inside and f.at + 1 < f.end:
        hint = "rows are arrays themselves: `[[1, 2], [3, 4]]`"
        return diagnostic("BLV0102", f.here(), hint=hint, expected="`,` or `]`", found="`;`")
    if kind in table.OPENER and table.OPENER[kind] != opener.type:
        what = f"`{opener}`"
        right = table.WRITTEN[table.CLOSER[opener.type]]
        fix = Fix(f"replace `{f.token}` with `{right}`", f.here(), right)
        label = Label(f.span(stack[-1]), f"`{opener}` wants `{right}`")
        return diagnostic(
            "BLV0105", f.here(), secondary=(label,), fix=fix, closer=f.token, what=what
        )
    if kind == "SEMICOLON" and f.kind(-1) != "COMMA" and table.CLOSER[opener.type] in f.accepts:
        right = table.WRITTEN[table.CLOSER[opener.type]]
        end = (f.previous.end_pos or 0) if f.previous else 0
        fix = Fix(f"insert `{right}`", Span(f.source.name, end, end), right)
        return diagnostic(
            "BLV0104",
            f.span(stack[-1]),
            f"no `{right}` before the statement ends",
            fix=fix,
            opener=opener,
        )
    return None


def _equals(f: Failure) -> Diagnostic | None:
    if f.kind(0) != "EQUAL" or not f.inside:
        return None
    stack = f.open_brackets()
    here = f.here()
    fix = Fix("replace `=` with `==`", here, "==")
    words = {f.tokens[k].type for k in range(f.start, f.at)}
    if f.symbol == "constraint" and not stack:
        if "REL" not in f.accepts:
            return None
        last = f.end - 2 if f.closed else f.end - 1
        # Underline the right-hand side too where it is short and on the same line.
        whole = f.span(f.at, max(last, f.at))
        short = "\n" not in f.source.text[whole.start : whole.end] and whole.end - whole.start <= 40
        return diagnostic("BLV0103", whole if short else here, "used as a comparison", fix=fix)
    if f.kind(-2) == "FOR":
        fix = Fix("replace `=` with `in`", here, "in")
        return diagnostic("BLV0113", here, fix=fix, form="`for i in I` inside a reduction")
    if "REL" in f.accepts and words & {"WHERE", "IF", "EXPECT"}:
        return diagnostic("BLV0110", here, "used as a comparison", fix=fix, found="=", right="==")
    return None


def _unnamed_constraint(f: Failure) -> Diagnostic | None:
    if f.symbol != "constraint":
        return None
    depth = 0
    compared = False
    for k in range(f.start, f.end):
        kind = f.tokens[k].type
        depth += (kind in table.CLOSER) - (kind in table.OPENER)
        if depth == 0 and kind == "COLON":
            return None
        compared = compared or (depth == 0 and kind in ("REL", "CMP", "EQUAL"))
    if not compared:
        return None
    last = f.end - 2 if f.closed else f.end - 1
    span = f.span(f.start, max(last, f.start))
    return diagnostic("BLV0106", span, "has none", hint="write `name: left <= right;`")


def _reserved_name(f: Failure) -> Diagnostic | None:
    kind = f.kind(0)
    if (
        kind not in table.KEYWORD_TYPES
        or "NAME" not in f.accepts
        or not (f.inside or f.same_line())
    ):
        return None
    if kind in ("SUBJECT_TO", "IF", "NOT") or (
        not f.same_line() and kind in table.TOP_STARTS | table.LEVEL_STARTS
    ):
        return None
    if (
        f.kind(-1) == "FOR"
        or f.kind(1) == "DOT"
        or (f.previous is not None and f.kind(1) in ("NAME", "STRING"))
    ):
        return None
    return diagnostic(
        "BLV0109",
        f.here(),
        hint=f"choose another name, for example `{f.token}_`",
        name=str(f.token),
    )


def _iterators(f: Failure) -> Diagnostic | None:
    kind = f.kind(0)
    if not f.inside:
        return None
    stack = f.open_brackets()
    if kind == "LBRACE" and f.kind(-1) == "NAME" and "STAR" in f.accepts:
        name = f.text(f.at - 1)
        return diagnostic(
            "BLV0113",
            f.span(f.at - 1, f.at),
            hint=f"write `{name}(... for i in I)`",
            form=REDUCTION,
        )
    words = {f.tokens[k].type for k in range(f.start, f.at)}
    word = f.at - (kind == "IN" and f.kind(-1) == "NAME")
    called = bool(stack) and f.tokens[stack[-1]].type == "LPAR" and word - 1 == stack[-1]
    if called and (kind == "FOR" or word < f.at):
        return diagnostic(
            "BLV0113",
            f.span(word, f.at),
            hint="the expression comes first, `for` after it",
            form=REDUCTION,
        )
    if kind == "IF" and words & {"FOR", "IN"}:
        fix = Fix("replace `if` with `where`", f.here(), "where")
        return diagnostic(
            "BLV0113", f.here(), "a filter starts with `where`", fix=fix, form=REDUCTION
        )
    universal = kind == "NAME" and f.text(f.at).lower() in UNIVERSAL
    if f.symbol == "constraint" and f.text(f.start).lower() in UNIVERSAL and f.at == f.start + 1:
        hint = "write `name[i in I]: left <= right;`"
        where = "before the colon of a constraint"
        return diagnostic("BLV0113", f.span(f.start), hint=hint, form=where)
    if (kind == "FOR" or universal) and not stack:
        if f.symbol == "constraint":
            hint = "write `name[i in I]: left <= right;`"
            return diagnostic(
                "BLV0113", f.here(), hint=hint, form="before the colon of a constraint"
            )
        return diagnostic("BLV0113", f.here(), "no reduction is open here", form=REDUCTION)
    if kind == "FOR" and "FOR" in words:
        fix = Fix("replace `for` with a comma", f.here(), ",")
        return diagnostic(
            "BLV0113", f.here(), "one `for` is enough", fix=fix, form="`for i in I, j in J`"
        )
    if kind == "FOR" and f.tokens[stack[-1]].type == "LPAR" and f.kind(-1) in table.OPERAND_ENDS:
        called = stack[-1] > f.start and f.tokens[stack[-1] - 1].type == "NAME"
        if not called and f.still_open() > 0:
            return diagnostic("BLV0104", f.span(stack[-1]), "no `)` before this `for`", opener="(")
        if not called or "COMMA" in {f.tokens[k].type for k in range(stack[-1], f.at)}:
            return diagnostic("BLV0113", f.here(), form=REDUCTION)
    return None


def _range(f: Failure) -> Diagnostic | None:
    if f.kind(0) != "COLON" or not f.inside or f.kind(-1) not in ("NUMBER", "NAME", "RPAR"):
        return None
    if f.kind(1) not in ("NUMBER", "NAME", "LPAR", "MINUS"):
        return None
    stack = f.open_brackets()
    first = f.first()
    if stack and f.tokens[stack[-1]].type == "LSQB" and f.kind(-2) != "IN":
        binder = "IN" in {f.tokens[k].type for k in range(stack[-1], f.at)}
        if not binder:
            hint = "a subscript is one element or all of them, `:`; take parts with `where`"
            return diagnostic("BLV0102", f.here(), hint=hint, expected="`,` or `]`", found="`:`")
    elif not stack and first != "SET":
        return None
    if stack and any(f.kind(k) in ("REL", "CMP", "EQUAL") for k in range(2, 5)):
        fix = Fix("replace `:` with `where`", f.here(), "where")
        return diagnostic(
            "BLV0113", f.here(), "a filter starts with `where`", fix=fix, form=REDUCTION
        )
    fix = Fix("replace `:` with `..`", f.here(), "..")
    return diagnostic("BLV0125", f.here(), fix=fix)


def _quotes(f: Failure) -> Diagnostic | None:
    if not f.inside:
        return None
    if f.kind(0) == "QUOTE":
        line_end = f.source.text.find("\n", f.here().start)
        line_end = len(f.source.text) if line_end < 0 else line_end
        close = f.source.text.find("'", f.here().end, line_end)
        if close < 0:
            return None
        span = Span(f.source.name, f.here().start, close + 1)
        inner = f.source.text[f.here().end : close]
        return diagnostic("BLV0117", span, fix=Fix(f'write `"{inner}"`', span, f'"{inner}"'))
    if f.kind(0) == "NAME" and any(f.tokens[k].type == "LBRACE" for k in f.open_brackets()):
        return diagnostic("BLV0117", f.here(), fix=_quoted_labels(f))
    if f.kind(0) == "NAME" and f.first() in ("INCLUDE", "MODEL") and "STRING" in f.accepts:
        return diagnostic("BLV0117", f.here(), hint=f'write `{f.text(f.start)} ... "..."`')
    return None


def _quoted_labels(f: Failure) -> Fix:
    """Quotes around all bare words from here to the closing brace."""
    words = [f.at]
    k = f.at
    while k + 1 < f.end and f.tokens[k].type != "RBRACE":
        k += 1
        if f.tokens[k].type == "NAME":
            words.append(k)
    span = f.span(words[0], words[-1])
    text, shift = f.source.text[span.start : span.end], span.start
    for k in reversed(words):
        word = f.span(k)
        start, end = word.start - shift, word.end - shift
        text = f'{text[:start]}"{text[start:end]}"{text[end:]}'
    title = "put quotes around the labels" if len(words) > 1 else f"write `{text}`"
    return Fix(title, span, text)


def _operator(f: Failure) -> Diagnostic | None:
    kind, before = f.kind(0), f.kind(-1)
    if (
        not f.inside
        or not f.same_line()
        or before not in table.OPERAND_ENDS
        or "STAR" not in f.accepts
    ):
        return None
    if kind not in ("NAME", "NUMBER", "LPAR", "LSQB"):
        return None
    if f.text(f.at).lower() in ("for_", "forall", "foreach", "st", "s", "where_", "given"):
        return None
    assert f.previous is not None
    left, right = str(f.previous), str(f.token)
    end = f.previous.end_pos or 0
    if f.begins_constraint():
        return diagnostic(
            "BLV0101",
            Span(f.source.name, end, end + 1),
            "`;` is missing here",
            hint=f"`{right}: ...` is a constraint of its own",
            fix=Fix("insert `;`", Span(f.source.name, end, end), ";"),
            expected=";",
            where="after this constraint",
        )
    hint = None
    fix = None
    stack = f.open_brackets()
    array = bool(stack) and f.tokens[stack[-1]].type == "LSQB"
    member = kind == "LPAR" and before == "NAME" and f.kind(-2) == "DOT" and f.kind(-3) == "NAME"
    if member:
        whole = Span(f.source.name, f.span(f.at - 3).start, f.span(f.at - 1).start)
        fix = Fix(f"remove `{f.text(f.at - 3)}.`", whole, "")
        hint = f"functions stand by themselves: `{left}(...)`"
    elif array and (stack[-1] == f.start or f.tokens[stack[-1] - 1].type not in table.OPERAND_ENDS):
        hint = f"elements are separated by commas: `{left}, {right}`"
    elif before == "NUMBER" and right[0] == "_" and right[1:].isdigit() and end == f.here().start:
        whole = Span(f.source.name, f.span(f.at - 1).start, f.here().end)
        fix = Fix(f"write `{left}{right[1:]}`", whole, left + right[1:])
    elif before in ("NUMBER", "RPAR"):
        between = Span(f.source.name, end, f.here().start)
        fix = Fix(
            f"insert `*` after `{left}`", between, "*" if between.start == between.end else " * "
        )
    else:
        hint = f"for a product, write `{left} * {right}`, or `{left} @ {right}` for matrices"
    return diagnostic("BLV0116", f.span(f.at - 1, f.at), hint=hint, fix=fix, left=left, right=right)


def _trailing_comma(f: Failure) -> Diagnostic | None:
    kind = f.kind(0) if f.inside else "SEMICOLON"
    if f.kind(-1) != "COMMA":
        return None
    comma = f.span(f.at - 1)
    starts = kind in table.TOP_STARTS | table.LEVEL_STARTS
    if starts and not f.open_brackets() and f.kind(1) not in NAME_FOLLOWS:
        return diagnostic(
            "BLV0126", comma, "a statement follows", fix=Fix("replace `,` with `;`", comma, ";")
        )
    if kind not in table.OPENER and kind != "SEMICOLON":
        return None
    return diagnostic("BLV0126", comma, "nothing follows", fix=Fix("remove `,`", comma, ""))


def _comparisons(f: Failure) -> Diagnostic | None:
    if f.kind(0) not in ("REL", "CMP") or not f.inside:
        return None
    if f.symbol == "constraint" and not f.open_brackets() and "SEMICOLON" in f.accepts:
        return diagnostic("BLV0124", f.here(), "the third", hint="split it into two constraints")
    if f.kind(-1) not in table.OPERAND_ENDS:
        return None
    if f.symbol == "constraint" and not f.open_brackets():
        return None
    if f.first() in VALUE_STATEMENTS or f.open_brackets():
        hint = None
        if f.first() in ("MINIMIZE", "MAXIMIZE"):
            hint = "constraints stand after `subject to`, each with a name"
        return diagnostic("BLV0118", f.here(), hint=hint)
    return None


RULES: tuple[Callable[[Failure], Diagnostic | None], ...] = (
    _trailing_comma,
    _equals,
    _quotes,
    _iterators,
    _range,
    _unclosed,
    _unnamed_constraint,
    _reserved_name,
    _comparisons,
    _operator,
)
