"""Canonical JSON files of this package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import UsageError
from bilevelpy.ir.restore import decode
from bilevelpy.system.storage import read_json

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


def read_document(path: str | Path, externs: Mapping[str, Any]) -> BoundProgram:
    """The bound program in a file; large arrays come from the ``.npz`` beside it."""
    content = read_json(path)
    arrays: dict[str, Any] = {}
    beside = content.get("arrays")
    if beside is not None:
        arrays = _arrays(Path(path), str(beside))
    try:
        return decode(content, arrays, externs)
    except UsageError as error:
        raise UsageError(f"cannot read {path}: {error}") from error


def _arrays(path: Path, name: str) -> dict[str, Any]:
    import zipfile
    import zlib

    import numpy as np

    if Path(name).name != name:
        raise UsageError(f"cannot read {path}: its arrays stand beside it, not in {name}")
    place = path.with_name(name)
    try:
        with open(place, "rb") as stream, np.load(stream, allow_pickle=False) as content:
            return {key: content[key] for key in content.files}
    except OSError as error:
        raise UsageError(f"cannot read {place}: {error.strerror or error}") from error
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UsageError(f"cannot read {place}: it is damaged") from error
