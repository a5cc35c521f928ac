"""Options of a solve, checked when they are made."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from typing import Any

from bilevelpy.errors import UsageError

# Names that a message lists.
LISTED = 24


def did_you_mean(name: str, known: list[str]) -> str:
    """`` (did you mean `x`?)`` for the closest known name, or an empty string."""
    close = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def near_or_all(name: str, known: list[str]) -> str:
    """As :func:`did_you_mean`; where nothing is close, all that there is, if that is few."""
    listed = f"; there are: {', '.join(known)}" if 0 < len(known) <= LISTED else ""
    return did_you_mean(name, known) or listed


def names_of(value: Any, argument: str) -> tuple[str, ...]:
    """The names in an argument that takes several; a text is one name, not its letters."""
    try:
        found = (value,) if isinstance(value, str) else tuple(value)
    except TypeError:
        found = (value,)
    if not all(isinstance(name, str) for name in found):
        raise UsageError(f"{argument} takes a list of names, found {value!r}")
    return found


def dtype_name(wanted: Any) -> str:
    """The name of a type that NumPy, PyTorch or the caller names."""
    if wanted is float:
        return "float64"
    return str(getattr(wanted, "__name__", wanted)).removeprefix("torch.")


# What the options of a solve are made of (NumPy's numbers are registered as the abstract types,
# which take longer to ask than the usual ones).
_KINDS: tuple[tuple[str, tuple[type, ...], str], ...] = (
    ("backend", (str,), "the name of a backend"),
    ("backend_options", (dict, Mapping), "a mapping of names to values"),
    ("tol", (float, Real), "a number"),
    ("max_iter", (int, Integral), "a whole number"),
    ("time_limit", (float, Real), "a number of seconds"),
    ("seed", (int, Integral), "a whole number"),
)


DTYPES = ("float64", "float32")


def is_switch(value: Any) -> bool:
    """Whether a value is True or False, Python's or NumPy's: a text such as "no" would count as
    True.
    """
    return value is True or value is False or type(value).__name__ in ("bool", "bool_")


@dataclass(frozen=True, slots=True)
class SolveOptions:
    """What ``solve`` takes besides the model.

    ``tol`` is relative: the projected hypergradient is compared with ``tol`` times its own scale at
    the start and the upper value, the lower residual likewise. ``backend_options`` belong to the
    chosen backend. With another ``device`` or ``dtype`` the run begins there, and is finished and
    certified in float64 on the CPU.
    """

    backend: str = "auto"
    tol: float = 1e-6
    max_iter: int = 500
    time_limit: float = float("inf")
    seed: int = 0
    force: bool = False
    backend_options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    dtype: str = "float64"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            known = " or ".join(DTYPES)
            raise UsageError(f"dtype takes {known}, found {self.dtype!r}")
        for name, kinds, wanted in _KINDS:
            value = getattr(self, name)
            if not isinstance(value, kinds) or isinstance(value, bool):
                called = "options" if name == "backend_options" else name
                raise UsageError(f"{called} takes {wanted}, found {value!r}")
        if not is_switch(self.force):
            raise UsageError(f"force takes True or False, found {self.force!r}")
        if self.seed < 0:
            raise UsageError(f"seed must not be negative, found {self.seed!r}")
        if not 0 < self.tol < 1:
            raise UsageError(f"tol must lie between 0 and 1, found {self.tol!r}")
        if self.max_iter < 0:
            raise UsageError(f"max_iter must not be negative, found {self.max_iter!r}")
        if not self.time_limit > 0:
            raise UsageError(f"time_limit must be positive (seconds), found {self.time_limit!r}")

    @property
    def begins_on_device(self) -> bool:
        """Whether more than float64 on the CPU is asked for."""
        return self.device != "cpu" or self.dtype != "float64"

    def within(self, seconds: float) -> SolveOptions:
        """The same with ``time_limit = seconds``."""
        return self if seconds == self.time_limit else replace(self, time_limit=seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """Base of the option classes of backends: frozen, with a default for every field.

    ``tol`` is the relative tolerance of the run, set by the driver from :class:`SolveOptions`.
    """

    tol: float = 1e-6

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], backend: str) -> BackendOptions:
        """Build from names and values (strings from a command line are converted); unknown names
        are errors.
        """
        known = {f.name: f for f in fields(cls)}
        converted: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                listing = ", ".join(sorted(known)) or "none"
                hint = did_you_mean(name, list(known))
                raise UsageError(
                    f"backend `{backend}` has no option `{name}`{hint}; it has: {listing}"
                )
            converted[name] = _convert(value, known[name].default, f"{backend}.{name}")
        if not 0 < converted.get("tol", 0.5) < 1:
            raise UsageError(f"tol must lie between 0 and 1, found {converted['tol']!r}")
        return cls(**converted)


def _convert(value: Any, default: Any, where: str) -> Any:
    """Bring a command-line string to the type of the option's default; other types are errors, and
    so is what is no number.
    """
    if not isinstance(value, str) or isinstance(default, str):
        if getattr(value, "ndim", None) == 0:  # a number of NumPy
            value = value.item()
        kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
        wanted = kinds.get(type(default), (object,))
        right = isinstance(value, wanted) and isinstance(value, bool) is isinstance(default, bool)
        if not right or value != value:
            raise UsageError(
                f"option `{where}` takes {type(default).__name__} values, found {value!r}"
            )
        return value
    try:
        if isinstance(default, bool):
            return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[
                value.lower()
            ]
        if isinstance(default, int):
            return int(value)
        return float(value)
    except (KeyError, ValueError) as error:
        raise UsageError(
            f"option `{where}` takes {type(default).__name__} values, found {value!r}"
        ) from error
