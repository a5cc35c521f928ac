"""Sets whose elements would go together if one were declared within the other."""

from __future__ import annotations

from bilevelpy.ir.types import Axis, AxisKind


def kin_hint(one: Axis, other: Axis) -> str | None:
    """How the declaration is written, where one set lists labels that the other has; None where
    their labels differ or come from the data.
    """
    for part, whole in ((one, other), (other, one)):
        if not all(a.kind is AxisKind.LABELS and a.labels for a in (part, whole)):
            continue
        if set(part.labels or ()) <= set(whole.labels or ()):
            # The ends of listed pairs are sets of their own, which have no name in the model.
            pairs, dot, _ = part.name.rpartition(".")
            if "." not in whole.name:
                within = f"{whole.name} * {whole.name}" if dot else whole.name
                named = f"`set {pairs if dot else part.name} within {within} = ...`"
                return f"{named} makes these labels elements of {whole.name}"
    return None
