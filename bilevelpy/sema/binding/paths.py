"""Which files a model may read: regular files below its own folder, nothing else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bilevelpy.sema.paths import leaves_folder


class Forbidden(Exception):
    """The path leaves the model's folder or is no regular file; the text says which."""


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
