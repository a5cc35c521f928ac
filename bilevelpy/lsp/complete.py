"""Completion: what can stand at the cursor, by place and by level."""

from __future__ import annotations

import re

from lark.lexer import Token
from lsprotocol import types

from bilevelpy.ir.atoms import CALLS
from bilevelpy.lsp import datafiles
from bilevelpy.lsp.datafiles import Entry
from bilevelpy.lsp.document import Document, level_at, statement
from bilevelpy.sema.include import STANDARD, standard_names
from bilevelpy.sema.lookup import axes_text, visible
from bilevelpy.sema.scope import REPORTS, TOP, UPPER, Context, Declaration, Kind, State
from bilevelpy.syntax import tokens as table

Item = types.CompletionItem
Kinds = types.CompletionItemKind

_KINDS = {
    Kind.DIM: Kinds.Constant,
    Kind.SET: Kinds.Enum,
    Kind.PARAM: Kinds.Field,
    Kind.DEF: Kinds.Function,
    Kind.EXTERN: Kinds.Function,
    Kind.REPORT: Kinds.Value,
    Kind.LEVEL: Kinds.Module,
    Kind.VAR: Kinds.Variable,
    Kind.LET: Kinds.Variable,
    Kind.CONSTRAINT: Kinds.Property,
}
_DOMAINS = {
    "simplex": "nonnegative, sums to one over the last axis",
    "ball": "Euclidean ball of a radius",
    "psd": "positive semidefinite",
    "binary": "0 or 1",
    "integers": "whole numbers between two bounds",
}
_FACTS = {
    "convex": "the objective is convex in the level's variables",
    "strongly_convex": "with this modulus",
    "smooth": "with this Lipschitz constant of the gradient",
    "unique": "the lower solution is unique",
    "licq": "constraint gradients are independent",
    "steps": "the answer is what so many gradient steps of this length reach",
}


def complete(
    document: Document,
    stale: State | None,
    offset: int,
    held: list[Entry],
    *,
    snippets: bool = True,
) -> list[Item]:
    """Suggestions at ``offset``. ``stale`` is the state of the last check: while a name is typed
    the text need not be checked again. ``snippets``: whether the client can place the cursor.
    """
    text = document.source.text
    tokens = document.tokens_before(offset)
    if tokens and tokens[-1].type == "NAME" and (tokens[-1].end_pos or 0) >= offset:
        tokens = tokens[:-1]
    comment = text.rfind("#", text.rfind("\n", 0, offset) + 1, offset)
    if comment >= 0 and not any((t.end_pos or 0) > comment for t in tokens):
        return []
    quoted = _inside_text(document, text, offset)
    if quoted is not None:
        return quoted
    line = statement(tokens)
    level = level_at(tokens)
    state = document.state if stale is None else stale
    if not line:
        return _keywords(level)
    if line[-1].type == "DOT":
        return _members(state, line, level)
    head = line[0].type
    if head == "PARAM" and line[-1].type in ("PARAM", "COMMA") and _flat(line):
        return _data(state, held)
    if head in ("DIM", "SET") and line[-1].type in ("DIM", "SET", "COMMA"):
        return _data(state, held)
    if line[-1].type == "IN" and head in ("VAR", "PARAM"):
        words = _DOMAINS if head == "VAR" else {"psd": _DOMAINS["psd"]}
        return [_word(w, d, Kinds.EnumMember) for w, d in words.items()]
    if head == "ASSUME" and line[-1].type in ("ASSUME", "COMMA"):
        return [_word(w, d, Kinds.EnumMember) for w, d in _FACTS.items()]
    return _names(state, line, level, snippets)


def _flat(line: list[Token]) -> bool:
    """Whether no bracket is open in a statement."""
    depth = 0
    for token in line:
        depth += (token.type in table.CLOSER) - (token.type in table.OPENER)
    return depth == 0


def _keywords(level: str) -> list[Item]:
    words = table.TOP_KEYWORDS if level == TOP else table.LEVEL_KEYWORDS
    return [Item(w, kind=Kinds.Keyword, sort_text=f"0{w}") for w in words]


def _inside_text(document: Document, text: str, offset: int) -> list[Item] | None:
    """Files and the names in them, inside the quotes of `include`, `file`, `csv` and `json`."""
    line = text[text.rfind("\n", 0, offset) + 1 : offset]
    if line.count('"') % 2 == 0:
        return None
    if re.search(r'\binclude\s+"[^"]*$', line):
        found = [f"{STANDARD}{n}" for n in standard_names()]
        return [_word(n, "standard library", Kinds.File) for n in found]
    read = re.search(r'\b(file|csv|json)\(\s*"([^"]*)"\s*,\s*"[^"]*$', line)
    if read is not None:
        path = datafiles.below(document.name, read[2])
        found_here = datafiles.entries([path] if path is not None else [])
        return [_word(e.name, e.shape, Kinds.Field) for e in found_here]
    if re.search(r'\b(file|csv|json)\(\s*"[^"]*$', line) and not document.name.startswith("<"):
        return [_word(n, "data file", Kinds.File) for n in datafiles.listed(document.name)]
    return []


def _members(state: State, line: list[Token], level: str) -> list[Item]:
    """What follows `level.`: variables, in `dual(...)` constraints, in reports the objective."""
    owner = str(line[-2]) if len(line) > 1 else ""
    rows = state.constraints.get(owner, {})
    if len(line) > 3 and str(line[-4]) == "dual" and line[-3].type == "LPAR":
        return [_declared(state, d) for d in rows.values()]
    own = state.lowers.get(owner)
    if own is None:
        found = [d for d in state.top.values() if d.level == UPPER] if owner == UPPER else []
    else:
        found = [d for d in own.values() if d.kind is Kind.VAR or level == owner]
    items = [_declared(state, d) for d in found]
    known = own is not None or owner == UPPER
    if known and level == TOP and line[0].type in ("REPORT", "EXPECT"):
        items.append(_word("objective", f"the objective value of `{owner}`", Kinds.Value))
    return items


def _data(state: State, held: list[Entry]) -> list[Item]:
    """Names in the data files that the model does not declare yet."""
    free = [e for e in held if e.name not in state.top and e.name.isidentifier()]
    return [_word(e.name, f"{e.shape} in {e.file}".strip(), Kinds.Field) for e in free]


def _names(state: State, line: list[Token], level: str, snippets: bool) -> list[Item]:
    """Names that the level may read, iterators of the statement, functions, words of clauses."""
    report = level == TOP and line[0].type in ("REPORT", "EXPECT")
    context = Context(REPORTS if report else level)
    items = [_declared(state, d) for d in visible(state, context).values()]
    bound = {
        str(line[k])
        for k in range(len(line) - 1)
        if line[k].type == "NAME" and line[k + 1].type == "IN"
    }
    items += [_word(n, "iterator", Kinds.Variable) for n in sorted(bound)]
    if level != TOP or report:
        items += [
            _word(d.name, "lower level", Kinds.Module)
            for d in state.top.values()
            if d.kind is Kind.LEVEL
        ]
    for name, (signature, words) in CALLS.items():
        detail = signature.removesuffix("*").strip()
        items.append(
            Item(
                name,
                kind=Kinds.Function,
                detail=detail,
                documentation=words.removesuffix("*").strip(),
                insert_text=f"{name}($0)" if snippets else None,
                insert_text_format=types.InsertTextFormat.Snippet if snippets else None,
                sort_text=f"2{name}",
            )
        )
    items += [
        Item(w, kind=Kinds.Keyword, sort_text=f"3{w}")
        for w in ("in", "for", "where", "if", "then", "else", "and", "or", "not", "inf", "start")
    ]
    return items


def _declared(state: State, d: Declaration) -> Item:
    axes = state.shapes.get(d) or state.rows.get(d)
    over = f" over {axes_text(axes)}" if axes else ""
    owner = f" of {d.level}" if d.level != TOP else ""
    return Item(
        d.name,
        kind=_KINDS[d.kind],
        detail=f"{d.kind}{owner}{over}",
        documentation=getattr(d.node, "doc", None),
        sort_text=f"{0 if d.kind is Kind.VAR else 1}{d.name}",
    )


def _word(text: str, detail: str, kind: types.CompletionItemKind) -> Item:
    return Item(text, kind=kind, detail=detail or None, sort_text=f"0{text}")
