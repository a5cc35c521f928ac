"""Paths in model files: regular files inside the folder tree of the file that names them."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path


class Forbidden(Exception):
    """The path leaves the model's folder or is no regular file; the text says which."""


def leaves_folder(path: str) -> str | None:
    """Why ``path`` may not be read from a model file, judged by its text alone; None if it may."""
    parts = re.split(r"[/\\]", path)
    if not path.strip() or "\0" in path:
        return "an empty path" if not path.strip() else "not a path"
    if path.startswith(("/", "\\", "~")) or re.match(r"[A-Za-z]:", path):
        return "an absolute path"
    depth = 0
    for part in parts:
        depth += -1 if part == ".." else 0 if part in ("", ".") else 1
        if depth < 0:
            return "leaves the folder of the model file"
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", path):
        return "not a path"
    return None


def inside(folder: str | os.PathLike[str], path: str) -> Path:
    """The file that a model in ``folder`` means by ``path``, symbolic links resolved."""
    reason = leaves_folder(path)
    if reason:
        raise Forbidden(reason)
    try:
        root = Path(folder).resolve()
        target = (root / path).resolve()
        if not target.is_relative_to(root):
            raise Forbidden("it leads out of the folder by a symbolic link")
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except (OSError, RuntimeError, ValueError) as error:
        raise Forbidden(f"it cannot be followed ({error})") from None
    if not stat.S_ISREG(mode):
        raise Forbidden("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
    return target
