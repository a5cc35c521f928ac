"""Structure, decision and result as text for a terminal (80 columns where it says no more)."""

from __future__ import annotations

import io
import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from bilevelpy.analysis.structure import facts_of, place_words, value_words
from bilevelpy.cli.console import wants_color

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Fact, Structure
    from bilevelpy.dispatcher import Decision
    from bilevelpy.result import Certificate, Result

# Values of an array that are shown at its start and at its end.
_HEAD, _TAIL = 4, 1
_NOISE, _ORDINARY = 1e-13, 1e-3
_EVIDENCE = {"proved": "green", "declared": "cyan", "observed": "yellow"}
_STATUS = {"converged": "bold green", "interrupted": "bold yellow"}


class Trimmed(io.TextIOBase):
    """A stream whose lines end with their last letter: tables fill theirs with blanks."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write whole lines."""
        return self._stream.write(re.sub(r" +$", "", text, flags=re.MULTILINE))

    def flush(self) -> None:
        """What is written is the stream's to flush."""
        self._stream.flush()


class _Told(Console):
    """A console that leaves closed pipes to the command, which has an exit code for them."""

    def on_broken_pipe(self) -> None:
        """Let the error go on; rich would leave with 1."""
        raise


def console(*, errors: bool) -> Console:
    """A console for one of the two streams: plain where ``NO_COLOR`` is set, 80 columns wide off
    a terminal.
    """
    stream = sys.stderr if errors else sys.stdout
    return _Told(
        file=stream if stream.isatty() else cast("TextIO", Trimmed(stream)),
        highlight=False,
        width=None if stream.isatty() else 80,
        color_system="auto" if wants_color(stream) else None,
    )


# The facts that decide most; `explain` shows all of them.
_SHORT = ("lower class", "lower convexity", "lower modulus", "lower constraints", "upper class")


def structure_table(s: Structure, *, full: bool) -> RenderableType:
    """The facts found, each with its evidence, reason and place."""
    head = Text.assemble(
        (s.model, "bold"),
        f"  {_plural(s.dim_x, 'upper variable')}, {_plural(s.dim_y, 'lower variable')}",
        f", {s.followers} followers" if s.followers > 1 else "",
    )
    constraints = (("upper", s.upper_constraints), ("lower", s.lower_constraints))
    for level, count in constraints:
        head.append(f", {_plural(count, f'{level} constraint')}" if count else "")
    table = _grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    for name, fact in facts_of(s):
        needed = name.startswith("needs: ")
        if not (needed or name in _SHORT or (full and not _says_nothing(name, fact))):
            continue
        evidence = str(fact.evidence)
        place = place_words(fact.span, s.sources) if full else ""
        value = ("yes" if needed else value_words(fact.value), "bold")
        cell = Text.assemble(value, "  ", (evidence, _EVIDENCE.get(evidence, "")))
        cell.append(f"  {place}" if place else "", "italic dim")
        cell.append(f"\n{fact.reason}", "" if needed else "dim")
        table.add_row(name, cell)
    return Group(head, Padding(table, (0, 0, 0, 2)))


def _says_nothing(name: str, fact: Fact[Any]) -> bool:
    """Whether a fact is only the absence of something that most models lack."""
    return value_words(fact.value) == "none" and not name.endswith("constraints")


def decision_table(d: Decision, *, full: bool = True) -> RenderableType:
    """The backend chosen, why, and why not the others (their number only, unless ``full``)."""
    table = _grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(ratio=1)
    table.add_row("backend", Text(d.chosen, "bold"))
    for k, reason in enumerate(d.why):
        table.add_row("" if k else "why", Text(reason))
    # Many backends share a reason: it is said once.
    against: dict[str, list[str]] = {}
    for name, reason in d.rejected.items() if full else ():
        against.setdefault(_words(reason), []).append(name)
    if d.rejected and not full:
        others = f"{_plural(len(d.rejected), 'other')}, see `bilevelpy explain`"
        table.add_row("not", Text(others, "dim"))
    for reason, names in against.items():
        table.add_row(f"not {names[0]}", Text(reason, "dim"))
        if len(names) > 1:
            table.add_row("", Text(f"nor {', '.join(names[1:])}", "dim"))
    for warning in d.warnings:
        table.add_row(Text("warning", "yellow"), Text(str(warning)))
    return Padding(table, (0, 0, 0, 2))


def result_table(r: Result, labels: Mapping[str, Sequence[str]] | None = None) -> RenderableType:
    """The answer: status, objectives, variables, reports, certificate.

    ``labels`` are the names of the entries of ``level.variable``, where they have names.
    """
    seconds = r.time.get("total", 0.0)
    head = Text.assemble(
        (r.model, "bold"),
        "  ",
        (r.status.value, _STATUS.get(r.status.value, "bold red")),
        f"  ({r.backend}, {_plural(r.iterations, 'iteration')}, {seconds:.2f} s)",
    )
    table = _grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    table.add_row("objective", "upper", number(r.F))
    for name, objective in r.f.items():
        table.add_row("", name, number(objective))
    first = "variables"
    # Beside numbers of ordinary size, what is left of rounding is nothing.
    noise = _NOISE if abs(r.F) > _ORDINARY else 0.0
    groups = [("", r.upper)] + [(f"{k}.", vs) for k, vs in r.lower.items()]
    for prefix, variables in groups:
        for name, value in variables.items():
            called = (labels or {}).get(f"{prefix}{name}", ())
            shown = array(value, called, noise)
            table.add_row(first, f"{prefix}{name}{shape(value)}", shown)
            first = ""
    first = "reports"
    for name, report in r.reports.items():
        values = np.asarray(report)
        table.add_row(first, f"{name}{shape(values)}", array(values))
        first = ""
    parts: list[RenderableType] = [
        head,
        Padding(Text(r.message), (0, 0, 0, 2)),
        Padding(table, (0, 0, 0, 2)),
    ]
    if r.certificate is not None:
        parts.append(Padding(certificate_table(r.certificate), (0, 0, 0, 2)))
    parts += [Padding(Text(f"warning: {w}", "yellow"), (0, 0, 0, 2)) for w in r.warnings]
    return Group(*parts)


def certificate_table(c: Certificate) -> RenderableType:
    """What was recomputed at the answer, and what it says in words."""
    table = _grid()
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    style = "bold green" if c.kind != "none" else "bold red"
    table.add_row("certificate", Text(c.kind, style), "")
    numbers = [
        ("lower gap", c.lower_gap),
        ("lower stationarity", c.lower_stationarity),
        ("lower feasibility", c.lower_feasibility),
        ("upper feasibility", c.upper_feasibility),
        ("hypergradient", c.hypergradient_norm),
    ]
    for name, value in numbers:
        relative = f"   ({c.lower_gap_relative:.1e} of f)" if name == "lower gap" and value else ""
        table.add_row("", name, f"{residual(value)}{relative}")
    if c.directional_check is not None:
        table.add_row("", "finite difference", f"{residual(c.directional_check)} relative mismatch")
    reasons = Group(*(Padding(Text(f"- {reason}"), (0, 0, 0, 13)) for reason in c.reasons))
    return Group(table, reasons)


def shape(value: np.ndarray) -> str:
    """``[3, 4]``, nothing for a scalar."""
    return f"[{', '.join(map(str, value.shape))}]" if value.ndim else ""


def array(value: np.ndarray, labels: Sequence[str] = (), noise: float = 0.0) -> str:
    """A scalar, or the first values of an array with their labels, its last one, and its range."""
    flat = np.asarray(value, dtype=float).ravel()
    flat = np.where(np.abs(flat) < noise, 0.0, flat)
    if value.ndim == 0:
        return number(float(flat[0]))
    shown = [f"{v:.4g}" for v in flat]
    if labels:
        shown = [f"{label} = {v}" for label, v in zip(labels, shown, strict=True)]
    between = "   " if labels else "  "
    if flat.size <= _HEAD + _TAIL + 1:
        return between.join(shown)
    parts = [*shown[:_HEAD], "...", *shown[-_TAIL:]]
    return f"{between.join(parts)}\nin [{flat.min():.4g}, {flat.max():.4g}]"


def number(value: float) -> str:
    """Ten digits: enough to compare two solves."""
    return f"{value:.10g}"


def residual(value: float) -> str:
    """Two digits are enough for a residual."""
    return "0" if value == 0 else ("not known" if math.isnan(value) else f"{value:.1e}")


def _words(reason: Any) -> str:
    """A reason as text, whatever carries it."""
    if isinstance(reason, Mapping):
        return str(reason.get("reason", reason))
    return str(getattr(reason, "reason", reason))


def _plural(count: int, noun: str) -> str:
    """``1 iteration``, ``2 iterations``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _grid() -> Table:
    """A table without lines, as wide as the console."""
    return Table.grid(padding=(0, 2, 0, 0), expand=True)
