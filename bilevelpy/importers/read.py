"""Which importer takes a file, by its ending and content."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import UsageError
from bilevelpy.importers.ampl_text import ampl_text
from bilevelpy.importers.canonical import read_document
from bilevelpy.importers.mps_aux import mps_aux_text
from bilevelpy.importers.records import is_record, record_text
from bilevelpy.ir.serial import FORMAT
from bilevelpy.system.storage import read_value

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram

MATRIX = (".mps", ".lp")


def read_bound(path: str | Path, externs: Mapping[str, Any]) -> BoundProgram | None:
    """The bound program in a canonical JSON file; None for files of another kind."""
    if Path(path).suffix.lower() != ".json" or is_record(_content(path)):
        return None
    return read_document(path, externs)


def read_text(path: str | Path, aux: str | Path | None = None, name: str | None = None) -> str:
    """The text of the model in a file that is no canonical JSON.

    Raises
    ------
    UsageError
        Where the ending is unknown, or an AUX file is missing.
    """
    place = Path(path)
    ending = Path(place.stem).suffix if place.suffix.lower() == ".gz" else place.suffix
    if ending.lower() == ".json":
        return record_text(place, name)
    if ending.lower() == ".mod":
        return ampl_text(place)
    if ending.lower() not in MATRIX:
        raise UsageError(
            f"cannot read {path}: files to import end in .mps, .lp (with .aux), .mod or .json"
        )
    beside = place.with_name(place.name.split(".")[0] + ".aux") if aux is None else Path(aux)
    if aux is None and not beside.is_file():
        raise UsageError(
            f"{path} alone is a model of one level: the AUX file that says what belongs to the "
            f"follower is missing ({beside})"
        )
    return mps_aux_text(place, beside)


def _content(path: str | Path) -> Any:
    content = read_value(path)
    if not is_record(content) and not (
        isinstance(content, dict) and content.get("format") == FORMAT
    ):
        raise UsageError(
            f'cannot read {path}: neither a model of this program (`format` "{FORMAT}") nor '
            "records with n_x, n_y, upper and lower"
        )
    return content
