"""`include`: declarations of other files and of the standard library, each file once."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path, PurePosixPath

from bilevelpy.diagnostics import Source
from bilevelpy.sema.paths import leaves_folder
from bilevelpy.sema.scope import State, closest
from bilevelpy.syntax import ast
from bilevelpy.syntax.parser import parse
from bilevelpy.system.storage import NotUtf8, utf8_text

Loader = Callable[[str], Source]
MAX_BYTES = 4_000_000
STANDARD = "std:"


class Refused(Exception):
    """A file that is not read; the text says why."""


def read_model(path: str, root: str | None) -> Source:
    """Read a model file below ``root``; links that lead out, devices and huge files are refused
    unopened.
    """
    try:
        real = Path(path).resolve(strict=True)
        if root is not None and not real.is_relative_to(Path(root).resolve()):
            raise Refused("a link that leaves the folder of the model file")
        found = real.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Refused("not a regular file")
        if found.st_size > MAX_BYTES:
            raise Refused(f"larger than {MAX_BYTES // 1_000_000} MB")
        return Source(path, utf8_text(real.read_bytes()))
    except FileNotFoundError:
        raise Refused("there is no such file") from None
    except NotUtf8 as problem:
        raise Refused(str(problem)) from None
    except (OSError, ValueError, RuntimeError) as error:
        raise Refused(getattr(error, "strerror", None) or "it cannot be read") from None


@dataclass(slots=True)
class _Reader:
    """Files read so far and the chain of includes that leads to the current one."""

    state: State
    loader: Loader | None
    items: list[ast.Item] = field(default_factory=list)
    files: list[ast.File] = field(default_factory=list)
    done: set[str] = field(default_factory=set)


def read_all(
    state: State, source: Source, loader: Loader | None
) -> tuple[list[ast.Item], list[ast.File]]:
    """The items of ``source`` with those of its includes in their places; and the trees of all
    files.
    """
    reader = _Reader(state, loader)
    folder = None if source.name.startswith("<") else os.path.dirname(source.name) or "."
    # An explicit stack: a chain of a thousand files is no deeper than one.
    stack: list[tuple[str, str | None, list[ast.Item]]] = [
        (_key(source.name), folder, _open(reader, source, folder))
    ]
    while stack:
        key, folder, rest = stack[-1]
        if not rest:
            reader.done.add(key)
            stack.pop()
            continue
        item = rest.pop(0)
        if not isinstance(item, ast.Include):
            reader.items.append(item)
            continue
        found = _resolve(state, item, folder)
        if found is None or _key(found) in reader.done:
            continue
        chain = [k for k, _, _ in stack]
        if _key(found) in chain:
            state.error(
                "BLV0226",
                item.path_span,
                "leads back to a file that is being read",
                path=item.path,
            )
            continue
        loaded = _load(reader, item, found, folder)
        if loaded is not None:
            inner = None if found.startswith(STANDARD) else os.path.dirname(found) or "."
            stack.append((_key(found), inner, _open(reader, loaded, inner)))
    return reader.items, reader.files


def _key(path: str) -> str:
    return path if path.startswith((STANDARD, "<")) else os.path.normpath(path)


def _open(reader: _Reader, source: Source, folder: str | None) -> list[ast.Item]:
    parsed = parse(source)
    reader.state.sources[source.name] = source
    reader.state.folders[source.name] = folder
    reader.state.diagnostics.extend(parsed.diagnostics)
    reader.state.unread.extend(d.primary.span for d in parsed.diagnostics if d.primary)
    reader.files.append(parsed.file)
    return list(parsed.file.items)


def _refuse(state: State, item: ast.Include, label: str, hint: str | None = None) -> None:
    state.error("BLV0225", item.path_span, label, hint=hint, path=item.path)


def _resolve(state: State, item: ast.Include, folder: str | None) -> str | None:
    """The path of an include, or None after an error."""
    if item.path.startswith(STANDARD):
        return item.path
    reason = leaves_folder(item.path)
    if reason is not None:
        _refuse(state, item, reason, "included files stand beside the model or below it")
        return None
    if folder is None:
        _refuse(
            state,
            item,
            "this text is not a file, so nothing stands beside it",
            'the standard library is there everywhere: `include "std:losses";`',
        )
        return None
    return str(PurePosixPath(folder) / item.path.replace("\\", "/"))


def standard_names() -> list[str]:
    """The files of the standard library."""
    folder = resources.files("bilevelpy") / "stdlib"
    return sorted(f.name.removesuffix(".blv") for f in folder.iterdir() if f.name.endswith(".blv"))


def _load(reader: _Reader, item: ast.Include, path: str, folder: str | None) -> Source | None:
    if path.startswith(STANDARD):
        name = path.removeprefix(STANDARD).removesuffix(".blv")
        names = standard_names()
        if name not in names:
            guess = closest(name, names)
            listed = ", ".join(f'"std:{n}"' for n in names)
            _refuse(
                reader.state,
                item,
                "not in the standard library",
                f'did you mean "std:{guess}"?' if guess else f"the standard library has {listed}",
            )
            return None
        file = resources.files("bilevelpy") / "stdlib" / f"{name}.blv"
        return Source(path, file.read_text(encoding="utf-8"))
    try:
        return reader.loader(path) if reader.loader is not None else read_model(path, folder)
    except Refused as refusal:
        _refuse(reader.state, item, str(refusal))
    except (OSError, ValueError) as error:
        _refuse(reader.state, item, getattr(error, "strerror", None) or "it cannot be read")
    return None
