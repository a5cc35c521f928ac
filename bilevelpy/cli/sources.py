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
