"""From an exporter's files to the disk: everything is made before anything is written."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

from bilevelpy.errors import UsageError
from bilevelpy.exporters import registry
from bilevelpy.exporters.base import Files, Options
from bilevelpy.system.storage import write_atomically

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram


def export(
    bound: BoundProgram, target: str, path: str | Path, options: Options
) -> tuple[list[Path], Files]:
    """Write a bound program to ``path`` (and files beside it), each atomically.

    Returns
    -------
    (list of Path, Files)
        The files in the order they were written, the one that was asked for last, so that it is
        there only when the others are; and their contents.
    """
    exporter = registry.get(target)
    place = Path(path)
    try:
        if not place.name or str(path).endswith("/") or place.is_dir():
            raise UsageError(f"cannot write {path}: it is a directory")
        if not place.parent.is_dir():
            raise UsageError(f"cannot write {path}: there is no folder {place.parent}")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error
    files = exporter.export(bound, options, place.stem)
    written: list[Path] = []
    for ending, content in (*files.beside.items(), ("", files.main)):
        target_path = place if not ending else place.with_name(place.stem + ending)
        data = content.encode() if isinstance(content, str) else content
        write_atomically(target_path, partial(_put, data))
        written.append(target_path)
    return written, files


def _put(data: bytes, stream: IO[bytes]) -> None:
    stream.write(data)
