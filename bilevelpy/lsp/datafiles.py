"""What the data files of a model hold, by their headers: no array is read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from bilevelpy.sema.paths import leaves_folder

SUFFIXES = (".npz", ".npy", ".csv", ".json")
# A file that is larger is not opened for a suggestion, except archives, whose headers are small.
MAX_BYTES = 2_000_000
# Files of a folder that are offered at most.
MOST = 200


@dataclass(frozen=True, slots=True)
class Entry:
    """A name in a data file, and its shape in words (empty where only reading would tell)."""

    name: str
    shape: str
    file: str


def beside(model: str) -> list[Path]:
    """The data files of the model's stem in its folder: ``ridge.npz`` of ``ridge.blv``."""
    path = Path(model)
    return [p for s in SUFFIXES if (p := path.with_suffix(s)).is_file()]


def listed(model: str) -> list[str]:
    """The data files of the model's folder and one level below, as a model would write them."""
    folder = Path(model).parent
    found: list[str] = []
    try:
        for path in sorted(folder.glob("*")) + sorted(folder.glob("*/*")):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found.append(path.relative_to(folder).as_posix())
            if len(found) >= MOST:
                break
    except OSError:
        pass  # a folder that cannot be listed offers nothing
    return found


def below(model: str, written: str) -> Path | None:
    """The file that a model means by ``written``, if it may read it."""
    if leaves_folder(written) is not None:
        return None
    path = Path(model).parent / written
    return path if path.is_file() else None


def entries(paths: Iterable[Path]) -> list[Entry]:
    """The names in all ``paths``; files that vanished or are damaged hold none."""
    found: dict[str, Entry] = {}
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            continue
        for entry in _entries(str(path), status.st_mtime_ns, status.st_size):
            found.setdefault(entry.name, entry)
    return list(found.values())


@lru_cache(maxsize=64)
def _entries(name: str, _changed: int, size: int) -> tuple[Entry, ...]:
    """The names in one file, read again only when it has changed."""
    path = Path(name)
    suffix = path.suffix.lower()
    try:
        if suffix == ".npz":
            return tuple(_archive(path))
        if suffix == ".npy" or size > MAX_BYTES:
            return (Entry(path.stem, "", path.name),)
        if suffix == ".csv":
            with path.open(encoding="utf-8-sig") as stream:
                head = stream.readline(100_000)
            return tuple(
                Entry(c.strip().strip('"'), "a column", path.name) for c in head.split(",")
            )
        import json

        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return tuple(Entry(str(k), "", path.name) for k in content)
    except (OSError, ValueError, EOFError, RecursionError, zipfile.BadZipFile):
        pass  # no suggestions from a file that cannot be read; binding it says what is wrong
    return ()


def _archive(path: Path) -> Iterable[Entry]:
    """Names and shapes in an .npz archive, by the headers of its members."""
    from numpy.lib import format as npy

    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist()[:500]:
            with archive.open(info) as stream:
                version = npy.read_magic(stream)
                read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                shape, _, _ = read(stream)
            words = f"({', '.join(map(str, shape))})" if shape else "a number"
            yield Entry(os.path.splitext(info.filename)[0], words, path.name)
