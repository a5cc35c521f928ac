"""Model and start values as a command line names them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.cli import arguments
from bilevelpy.cli.console import complain
from bilevelpy.errors import UsageError

if TYPE_CHECKING:
    from bilevelpy.model import Model


def model_files(paths: Sequence[str], unread: list[UsageError] | None = None) -> list[str]:
    """Model files among ``paths`` and below those that are directories; one without any is a
    mistake, which goes into ``unread`` where that is given.
    """
    found: list[str] = []
    for path in paths:
        below = sorted(map(str, Path(path).rglob("*.blv"))) if Path(path).is_dir() else [path]
        if not below:
            empty = UsageError(f"there is no model (*.blv) in {path}")
            if unread is None:
                raise empty
            unread.append(empty)
        found += below
    return found


def refuse(unread: Sequence[UsageError]) -> None:
    """End with what could not be read, if anything: the other files have had their turn."""
    for error in unread[:-1]:
        complain(str(error))
    if unread:
        raise unread[-1]


def load(
    model: str,
    data: Sequence[str] | None,
    param: Sequence[str] | None,
    extern: Sequence[str] | None = None,
    values: Mapping[str, Any] | None = None,
) -> Model:
    """Read and bind a model with the values of ``--data``, ``--param`` and ``--extern``; ``values``
    are further params by name.
    """
    from bilevelpy.model import Given, read_model

    keywords = {**arguments.params(param), **(values or {})}
    given = Given(None, keywords, arguments.files(data), arguments.externs(extern))
    return read_model(model, given)


def start_values(path: Path | None) -> dict[str, Any]:
    """The values in ``--start``: a saved result, or names and values in .npz or .json."""
    if path is None:
        return {}
    from bilevelpy import storage

    if path.suffix.lower() == ".json":
        return _flat(storage.read_json(path))
    if path.suffix.lower() != ".npz":
        raise UsageError(f"--start takes a .npz or .json file, found `{path.name}`")
    import numpy as np

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
