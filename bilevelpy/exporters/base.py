"""What an exporter is, and what it gets and returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

from bilevelpy.errors import UsageError
from bilevelpy.options import did_you_mean

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


FORMS = ("sos1", "indicators", "big-m", "strong-duality", "products", "complements")


@dataclass(frozen=True, slots=True)
class Options:
    """What a user may choose; every exporter takes those that mean something to it.

    ``reformulation``: "sos1", "indicators", "big-m", "strong-duality", "products" (slack times
    multiplier), "complements"; every format has its own default.
    ``dual_bound``: bound of multipliers that the model does not bound, for big-M and strong
    duality. ``epsilon``:
    right-hand side of products of slack and multiplier (Scholtes); 0 keeps them exact. ``force``:
    write optimality conditions of followers that are not known to be convex, with a warning.
    """

    reformulation: str | None = None
    dual_bound: float | None = None
    epsilon: float = 0.0
    force: bool = False

    def form(self, target: str, *choices: str) -> str:
        """The reformulation that was asked for, or the first of the target's choices."""
        if self.reformulation is None:
            return choices[0]
        if self.reformulation not in choices:
            raise UsageError(
                f"{target} has no reformulation `{self.reformulation}`; "
                f"it takes {', '.join(choices)}"
            )
        return self.reformulation

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options from names and values (texts from a command line, too)."""
        known = [f.name for f in fields(cls)]
        values: dict[str, Any] = {}
        for name, value in given.items():
            key = name.replace("-", "_")
            if key not in known:
                hint = did_you_mean(key, known)
                raise UsageError(
                    f"export has no option `{name}`{hint}; there are {', '.join(known)}"
                )
            values[key] = _parsed(key, value)
        return cls(**values)


def _parsed(name: str, value: Any) -> Any:
    if value is None and name in ("reformulation", "dual_bound"):
        return None
    if name == "reformulation":
        if value not in FORMS:
            raise UsageError(f"reformulation is one of {', '.join(FORMS)}, not `{value}`")
        return value
    if name == "force":
        if isinstance(value, str):
            if value.lower() not in ("true", "false", "yes", "no", "1", "0"):
                raise UsageError(f"force is true or false, not `{value}`")
            return value.lower() in ("true", "yes", "1")
        return bool(value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is a number, not `{value}`") from None
    if not (0 <= number < float("inf")) or (name == "dual_bound" and number == 0):
        raise UsageError(f"{name} is a positive number, not {value}")
    return number


@dataclass(frozen=True, slots=True)
class Files:
    """What an exporter made, before anything is written.

    ``main`` is the content of the file that was asked for; ``beside`` maps endings (``.aux``) to
    the contents of further files with the same stem. Text or bytes. ``warnings`` are said to the
    user.
    """

    main: str | bytes
    beside: Mapping[str, str | bytes] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@runtime_checkable
class Exporter(Protocol):
    """One target format.

    ``suffix`` is the usual ending of its files; ``consumer`` the command that reads one (``{file}``
    stands for it); ``title`` says in a line what it is.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    suffix: ClassVar[str]
    consumer: ClassVar[str]

    def export(self, bound: BoundProgram, options: Options, stem: str) -> Files:
        """The files for a bound program; ``stem`` is the name of the main one without its ending.

        Raises
        ------
        ExportError
            Where the format cannot express the model; nothing has been written then.
        """
