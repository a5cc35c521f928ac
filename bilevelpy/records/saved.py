"""Results read back from what ``Result.save`` wrote, and values of variables from files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy.errors import UsageError
from bilevelpy.result import Certificate, Record, Result, Status
from bilevelpy.system import storage

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


def load_result(path: str | Path) -> Result:
    """Read a result that :meth:`Result.save` wrote. Its ``decision`` is a plain mapping.

    Raises
    ------
    UsageError
        There is no such file, or it holds no saved result.
    """
    arrays: dict[str, np.ndarray] = {}
    if storage.path_given(path, "load_result").suffix.lower() == ".npz":
        arrays, content = storage.read_npz(path)
    else:
        content = storage.read_json(path)
    try:
        return result_of(content, arrays)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"cannot read {path}: it does not hold a saved result") from error


def values_in(path: Path, bound: BoundProgram, option: str) -> dict[str, Any]:
    """Values of variables by name: of a saved result, of names and values in .npz or .json, or of
    a solution (.sol, .txt) that another solver has printed.

    Raises
    ------
    UsageError
        Where the file cannot be read, or is of another kind; ``option`` says what it was given for.
    """
    kind = path.suffix.lower()
    if kind == ".json":
        return _flat(storage.read_json(path))
    if kind in (".sol", ".txt"):
        from bilevelpy.exporters.solution import read_solution

        return dict(read_solution(path, bound))
    if kind != ".npz":
        raise UsageError(f"{option} takes a .npz, .json or .sol file, found `{path.name}`")
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as content:
            values = {name: content[name] for name in content.files if name != storage.META}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or 'not an .npz file'}") from error
    except Exception as error:
        raise UsageError(
            f"cannot read {path}: it is damaged, or not an .npz file of numbers"
        ) from error
    # A saved result has `upper/lam` and `lower/fit/w`, and prices, with which nothing starts.
    return {
        name.removeprefix("upper/").removeprefix("lower/").replace("/", "."): v
        for name, v in values.items()
        if not name.startswith("duals/")
    }


def _flat(content: dict[str, Any]) -> dict[str, Any]:
    """Names and values; those of a saved result have a level around them."""
    if not {"upper", "lower", "status"} <= content.keys():
        return content
    values = dict(content["upper"])
    for follower, variables in content["lower"].items():
        values |= {f"{follower}.{name}": value for name, value in variables.items()}
    return values


def result_of(content: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> Result:
    """A result from its :meth:`~Result.parts`; where they are none, a KeyError, a TypeError, a
    ValueError or an AttributeError.
    """
    upper = {name: _array(value) for name, value in content["upper"].items()}
    lower = {k: {n: _array(v) for n, v in vs.items()} for k, vs in content["lower"].items()}
    duals = {name: _array(value) for name, value in content["duals"].items()}
    for key, value in arrays.items():
        kind, *names = key.split("/")
        if kind == "lower":
            lower.setdefault(names[0], {})[names[1]] = value
        else:
            (upper if kind == "upper" else duals)[names[0]] = value
    certificate = content["certificate"]
    if certificate is not None:
        certificate["reasons"] = tuple(certificate["reasons"])
        for name in _NUMBERS & certificate.keys():
            certificate[name] = storage.number(certificate[name])
        certificate = Certificate(**certificate)
    return Result(
        model=content["model"],
        status=Status(content["status"]),
        message=content["message"],
        F=storage.number(content["objective"]["upper"]),
        f={k: storage.number(v) for k, v in content["objective"]["lower"].items()},
        upper=upper,
        lower=lower,
        reports={k: _report(v) for k, v in content["reports"].items()},
        certificate=certificate,
        backend=content["backend"],
        decision=content["decision"],
        iterations=content["iterations"],
        counts=content["counts"],
        time=content["time"],
        history=[record_of(record) for record in content["history"]],
        provenance=content["provenance"],
        duals=duals,
        warnings=tuple(content["warnings"]),
    )


def record_of(content: Mapping[str, Any]) -> Record:
    """A record from its JSON; what is none is a TypeError, a ValueError or an AttributeError."""
    numbers = {name: storage.number(content[name]) for name in _NUMBERS & content.keys()}
    rest = {
        "iteration": int(content["iteration"]),
        "counts": {name: int(count) for name, count in content["counts"].items()},
        "reports": {n: storage.number(v) for n, v in content.get("reports", {}).items()},
        "x": tuple(storage.number(v) for v in content.get("x", ())),
    }
    return Record(**{**content, **numbers, **rest})


# Fields of certificates and records that are numbers, in which NaN and infinities were replaced.
_NUMBERS = {
    "lower_gap",
    "lower_gap_relative",
    "lower_stationarity",
    "lower_feasibility",
    "upper_feasibility",
    "hypergradient_norm",
    "lower_residual",
    "time",
    "F",
    "f",
}


def _array(value: Any) -> np.ndarray:
    """Nested lists back to an array; None was NaN, "inf" an infinity."""
    raw = np.array(value, dtype=object)
    return np.array([storage.number(v) for v in raw.ravel()], dtype=float).reshape(raw.shape)


def _report(value: Any) -> Any:
    """A report: a number, or an array of numbers."""
    return _array(value) if isinstance(value, list) else storage.number(value)
