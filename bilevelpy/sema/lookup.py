"""Names that are looked up, and what is said of those that are not there."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice

from bilevelpy.diagnostics import Fix, Span
from bilevelpy.diagnostics import Label as Place
from bilevelpy.ir.types import Axes
from bilevelpy.sema.scope import (
    DATA_KINDS,
    MAX_GUESSES,
    REPORTS,
    TOP,
    UPPER,
    Context,
    Declaration,
    Kind,
    State,
)
from bilevelpy.syntax import ast

# Of many followers that declare the same name, so many are shown.
SHOWN = 6
# What others call infinity.
INFINITE = frozenset({"inf", "infinity", "infty", "oo"})
# Unknown names of so few letters are indices more often than anything else.
LETTERS = 2


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """A plain name that several followers declare: the first of them."""

    candidates: tuple[Declaration, ...]


def lookup(state: State, level: str, name: str) -> Declaration | Ambiguous | None:
    """What ``name`` means in ``level``, whoever may read it."""
    own = state.lowers.get(level, {}).get(name)
    if own is not None:
        return own
    if name in state.top:
        return state.top[name]
    others = state.below.get(name, ())
    readable = tuple(islice((d for d in others if d.kind is Kind.VAR), SHOWN + 1))
    if len(readable) > 1:
        return Ambiguous(readable)
    return readable[0] if readable else (others[0] if others else None)


def visible(state: State, context: Context) -> dict[str, Declaration]:
    """The names that an expression in ``context`` may use, beside its local ones."""
    found: dict[str, Declaration] = {}
    lower = context.level in state.lowers
    for name, declaration in state.top.items():
        if declaration.kind in (Kind.LEVEL, Kind.REPORT):
            continue
        if declaration.level == UPPER and (
            context.level == TOP or (lower and declaration.kind is Kind.LET)
        ):
            continue
        found[name] = declaration
    if context.reads_only:
        found = {n: d for n, d in found.items() if d.kind in DATA_KINDS}
    elif lower:
        found |= state.lowers[context.level]
    elif context.level != TOP:
        for table in state.lowers.values():
            found |= {n: d for n, d in table.items() if d.kind is Kind.VAR}
    return found


READERS = {
    TOP: (
        "at the top of the file",
        "names that data and functions may use: dims, sets, params, defs, and their own arguments",
    ),
    UPPER: (
        "in `upper`, nor at the top of the file",
        "names that `upper` may use: its own, dims, sets, params, defs, "
        "and the variables of every `lower`",
    ),
    REPORTS: (
        "in `upper`, in a `lower`, nor at the top of the file",
        "names that a report may use: all of `upper` and of the top of the file, "
        "and the variables of every `lower`",
    ),
}


def unknown(
    state: State, context: Context, name: str, span: Span, kinds: tuple[Kind, ...] = tuple(Kind)
) -> None:
    """Report an unknown name with the closest visible one of ``kinds``.

    A name that a syntax error may have swallowed is passed over.
    """
    if not name.isascii():  # its characters have been reported where it was read
        return
    if name in state.missing:
        return
    flood = state.guesses > MAX_GUESSES
    names = {} if flood else visible(state, context)
    known = {n: d for n, d in names.items() if d.kind in kinds}
    guess = state.guess(name, [*known, *context.names])
    secondary: tuple[Place, ...] = ()
    if guess is not None and guess in known and guess not in context.names:
        secondary = (Place(known[guess].span, f"`{guess}` is declared here"),)
    hint = f"did you mean `{guess}`?" if guess else None
    fix = Fix(f"replace `{name}` with `{guess}`", span, guess) if guess else None
    known_elsewhere = _meant(state, context, name)
    if known_elsewhere is not None:
        hint, right = known_elsewhere
        fix = Fix(f"write `{right}`", span, right) if right else None
        secondary = ()
    where, note = READERS.get(
        context.level,
        (
            f"in `{context.level}`, in `upper`, nor at the top of the file",
            f"names that `{context.level}` may use: its own, dims, sets, params, defs, "
            "and the variables of `upper`",
        ),
    )
    if Kind.VAR not in kinds:
        listed = ", ".join(f"`{n}`" for n in list(known)[:8])
        where = "at the top of the file"
        note = (
            f"dims and sets of this file: {listed}"
            if known or flood
            else "this file has no dims and sets"
        )
    elif context.reads_only:
        where, note = READERS[TOP]
        if guess is None and len(name) <= LETTERS:
            hint = f"an index says over what it runs: `sum(... for {name} in S)`"
    state.error(
        "BLV0201",
        span,
        f"not declared {where}",
        context=context,
        secondary=secondary,
        notes=(note,),
        hint=hint,
        fix=fix,
        name=name,
    )


def _meant(state: State, context: Context, name: str) -> tuple[str, str] | None:
    """What a name that is none stands for elsewhere: the help, and what to write if it is sure."""
    if name.lower() in INFINITE:
        return "infinity is `inf`", "inf"
    if name == "e":
        return "Euler's number is `exp(1)`", ""
    sets = (axis.labels for axis in state.axes.values() if axis is not None)
    if context.reads_only and any(name in (labels or ()) for labels in sets):
        return f'labels stand in quotes: `"{name}"`', f'"{name}"'
    return None


def shape_text(axes: Axes) -> str:
    """Axes in words: ``axes (n, p)`` or ``a scalar``."""
    return f"axes {axes_text(axes)}" if axes else "a scalar"


def axes_text(axes: Axes) -> str:
    """Axes as messages write them: ``(n, p)``."""
    return "(" + ", ".join(a.name for a in axes) + ")"


def wrong_arguments(
    state: State, context: Context, node: ast.Call, signature: str, label: str, place: Span | None
) -> None:
    """Report a call that does not fit the signature of what it calls."""
    state.error(
        "BLV0218",
        node.span,
        label,
        context=context,
        secondary=[Place(place, "declared here")] if place else [],
        hint=f"it is called as `{signature}`",
        name=node.function,
    )
