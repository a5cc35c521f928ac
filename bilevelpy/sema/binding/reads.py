"""Defaults that a model reads from a file beside it."""

from __future__ import annotations

from pathlib import Path

from bilevelpy.ir.program import Param, Read
from bilevelpy.sema.binding.convert import convert
from bilevelpy.sema.binding.npz import FileProblem, Npz, read_npy
from bilevelpy.sema.binding.raw import Given, Grid, Long
from bilevelpy.sema.binding.sources import MODEL_LIMIT, TEXT_LIMIT, column, whole
from bilevelpy.sema.binding.state import close_to
from bilevelpy.sema.binding.textfiles import read_csv, read_json
from bilevelpy.sema.paths import Forbidden, inside


class ReadProblem(Exception):
    """A read fails: the diagnostic's code, label, help and values."""

    def __init__(self, code: str, label: str, hint: str | None = None, **values: object) -> None:
        self.code, self.label, self.hint, self.values = code, label, hint, values
        super().__init__(code)


def read_default(read: Read, param: Param) -> Given:
    """The value that ``file``, ``csv`` or ``json`` of a model means."""
    folder = read.folder if read.folder is not None else "."
    try:
        path = inside(folder, read.path)
    except Forbidden as why:
        raise ReadProblem(
            "BLV0413",
            str(why),
            "copy the file beside the model, or bind it by name from outside",
            path=f'"{read.path}"',
        ) from None
    origin = f'{read.path}["{read.key}"]' if read.key is not None else read.path
    try:
        return Given(_content(read, path, param), origin)
    except FileProblem as problem:
        raise ReadProblem("BLV0411", "read here", file=read.path, reason=problem) from None


def _content(read: Read, path: Path, param: Param) -> Grid | Long:
    suffix = path.suffix.lower()
    if read.format == "csv" or (read.format == "file" and suffix == ".csv"):
        table = read_csv(path, TEXT_LIMIT)
        if read.key is None:
            return whole(table, param)
        _known(read, "column", list(table.header or ()))
        return column(table, read.key, param)
    if read.format == "json" or suffix == ".json":
        content = read_json(path, TEXT_LIMIT)
        if read.key is not None:
            _known(read, "key", list(content) if isinstance(content, dict) else [])
            content = content[read.key]
        return convert(content, words=True)
    if suffix == ".npz":
        file = Npz(path, MODEL_LIMIT)
        names = file.names()
        key = (
            read.key
            if read.key is not None
            else (param.name if param.name in names or len(names) != 1 else names[0])
        )
        _known(read, "array", names, key)
        return convert(file.get(key))
    if suffix == ".npy":
        return convert(read_npy(path, MODEL_LIMIT))
    raise FileProblem("its name ends in none of .npz, .npy, .csv, .json")


def _known(read: Read, what: str, names: list[str], key: str | None = None) -> None:
    key = read.key if key is None else key
    assert key is not None
    if key in names:
        return
    similar = close_to(key, names)
    hint = (
        f"did you mean `{similar}`?" if similar else f"it holds: {', '.join(names[:8]) or 'none'}"
    )
    raise ReadProblem("BLV0412", "read here", hint, file=read.path, key=f'{what} "{key}"')
