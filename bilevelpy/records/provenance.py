"""Where a result comes from: versions, hashes of model and data, seed, options."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import numpy as np

from bilevelpy import __version__
from bilevelpy.ir.mapped import blocks, is_mapped

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.options import SolveOptions

_LIBRARIES = ("numpy", "scipy", "torch", "cvxpy", "sympy", "lark")


def provenance(
    bound: BoundProgram, data_hash: Mapping[str, str], options: SolveOptions, backend: str
) -> dict[str, Any]:
    """What somebody needs to get the same numbers again."""
    return {
        "versions": {"bilevelpy": __version__, **_versions()},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "model_hash": text_hash(bound),
        "data_hash": dict(data_hash),
        "data_origin": dict(bound.data.origins),
        "seed": options.seed,
        "options": {
            "backend": backend,
            "tol": options.tol,
            "max_iter": options.max_iter,
            "time_limit": options.time_limit,
            "force": options.force,
            "backend_options": dict(options.backend_options),
        },
    }


def text_hash(bound: BoundProgram) -> str:
    """One hash of all texts that the model was read from, includes among them."""
    digest = hashlib.blake2b(digest_size=16)
    for source in bound.program.sources.values():
        content = source.text.encode()
        digest.update(f"{len(content)}:".encode() + content)
    return digest.hexdigest()


def data_hashes(bound: BoundProgram) -> dict[str, str]:
    """A hash of each bound array: of its shape and values, not of a file."""
    return {name: _array_hash(value) for name, value in sorted(bound.data.arrays.items())}


def outline(bound: BoundProgram) -> dict[str, str]:
    """What tells a model with its data from others without a pass over files: :func:`data_hashes`
    and the hash of the text, but for mapped arrays their type and shape alone.
    """
    found = {"the text": text_hash(bound)}
    for name, value in sorted(bound.data.arrays.items()):
        seen = f"{value.dtype} {value.shape}" if is_mapped(value) else _array_hash(value)
        found[f"`{name}`"] = seen
    return found


def _array_hash(value: Any) -> str:
    """Hash of a dense array or of the parts of a sparse one."""
    digest = hashlib.blake2b(digest_size=16)
    parts = (
        (value.indptr, value.indices, value.data)
        if hasattr(value, "indptr")
        else (np.asarray(value),)
    )
    digest.update(str(tuple(value.shape)).encode())
    for part in parts:
        digest.update(str(part.dtype).encode())
        if part.flags.c_contiguous and not is_mapped(part):
            digest.update(part.reshape(-1).data)
            continue
        for block in blocks(part):
            digest.update(np.ascontiguousarray(block).reshape(-1).data)
    return digest.hexdigest()


@cache
def _versions() -> Mapping[str, str]:
    """Versions of the libraries that do the numbers."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
