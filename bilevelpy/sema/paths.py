"""Paths in model files: they stay inside the folder tree of the file that names them."""

from __future__ import annotations

import re


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
