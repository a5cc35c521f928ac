"""The comment at the top of an exported text: where it comes from and what was done."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from bilevelpy.exporters.naming import differing
from bilevelpy.importers import blv_text

if TYPE_CHECKING:
    from bilevelpy.ir.program import Program
    from bilevelpy.reductions.linearization.mixed import Mixed

SHOWN = 500
"""Names that are listed at most; a table of every name would be longer than the model."""


# Names that `reductions.rewriting.lift` gives; what a model declares never ends in a number alone.
KINK = re.compile(r"(kink|huber)\.\d+")
KINKS = (
    "kink.1 and so on stand for abs, max and min, huber.1 and so on for residuals of huber within "
    "its bend; rows epigraph.1 and so on hold them"
)


def one_line(text: str) -> str:
    """Text that cannot leave its comment."""
    return blv_text.one_line(text).replace("*/", "* /")


def header(program: Program, what: str, lines: Iterable[str] = ()) -> list[str]:
    """What every exported text begins with."""
    title = f' "{one_line(program.title)}"' if program.title else ""
    return [f"{program.name}{title}", what, *lines]


def mixed_lines(mixed: Mixed) -> list[str]:
    """The constants of big-M and the warnings."""
    lines = [f"WARNING: {w}" for w in mixed.kkt.warnings]
    if mixed.constants:
        lines.append("big-M: slack <= P (1 - z), multiplier <= D z. P follows from the bounds of")
        lines.append(
            "variables. A multiplier at its D means that D is too small and the optimum wrong."
        )
        lines += [
            f"  {one_line(n)}: P = {p:.17g}, D = {d:.17g}" for n, p, d in mixed.constants[:SHOWN]
        ]
    elif mixed.multiplier_limits:
        lines.append("every multiplier is bounded. One at its bound means that the bound is too")
        lines.append("small and the optimum wrong.")
        names = mixed.columns.names
        lines += [
            f"  |{one_line(names[j])}| <= {d:.17g}" for j, d in mixed.multiplier_limits[:SHOWN]
        ]
    return lines


def name_lines(originals: Iterable[str], names: Iterable[str]) -> list[str]:
    """Names that the format does not allow as they are."""
    originals = list(originals)
    further = [o for o in originals if KINK.fullmatch(o)]
    first = [KINKS] if further else []
    pairs = differing(originals, names)
    if not pairs:
        return first
    shown = [f"  {made} = {one_line(original)}" for made, original in pairs[:SHOWN]]
    more = [f"  and {len(pairs) - SHOWN} more"] if len(pairs) > SHOWN else []
    return [*first, "names of the model:", *shown, *more]


def commented(lines: Iterable[str], mark: str) -> list[str]:
    """Lines as comments."""
    return [
        f"{mark} {one_line(line) if not line.startswith('  ') else line}".rstrip() for line in lines
    ]
