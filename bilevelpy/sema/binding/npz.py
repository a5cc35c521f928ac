"""NumPy files: headers first, members only when asked for, never a pickle."""

from __future__ import annotations

import lzma
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np

from bilevelpy.ir.mapped import budget
from bilevelpy.sema.binding.raw import Array

UNREADABLE = (
    OSError,
    ValueError,
    EOFError,
    KeyError,
    RuntimeError,
    MemoryError,
    OverflowError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
)
"""What broken files make readers raise (RuntimeError covers deep recursion)."""

SPARSE_PARTS = ("data", "indices", "indptr", "shape")


MAPPED = 1 << 28
"""Bytes from which on an .npy file is not read into memory."""


class FileProblem(Exception):
    """A file cannot be read; the text says why."""


class Npz:
    """An .npz file, its members read on demand."""

    def __init__(self, path: Path, limit: int) -> None:
        self.path, self.limit = path, limit
        try:
            with zipfile.ZipFile(path) as archive:
                listed = [(i.filename.removesuffix(".npy"), i) for i in archive.infolist()]
        except FileNotFoundError:
            raise FileProblem("there is no such file") from None
        except UNREADABLE as error:
            raise FileProblem(
                f"it is no .npz archive, or a damaged one ({reason(error)})"
            ) from None
        self.members = dict(listed)
        if len(self.members) < len(listed):
            names = [name for name, _ in listed]
            twice = next(name for name in names if names.count(name) > 1)
            raise FileProblem(f"it holds `{twice}` more than once")

    def names(self) -> list[str]:
        """Names of the arrays; the parts of a sparse matrix count as one."""
        found = list(self.members)
        matrices = [
            n.removesuffix("_data")
            for n in found
            if n.endswith("_data") and self._sparse(n.removesuffix("_data"))
        ]
        parts = {f"{m}_{p}" for m in matrices for p in SPARSE_PARTS}
        return [n for n in found if n not in parts] + matrices

    def get(self, name: str) -> Any:
        """An array, or a CSR matrix from its parts ``name_data``, ``name_indices``, ..."""
        if name in self.members:
            return self._read(name)
        data, indices, indptr, shape = (self._read(f"{name}_{part}") for part in SPARSE_PARTS)
        import scipy.sparse

        try:
            matrix = scipy.sparse.csr_matrix(
                (data, indices, indptr), shape=tuple(int(k) for k in shape)
            )
            matrix.check_format(full_check=True)
        except (ValueError, TypeError, IndexError) as error:
            raise FileProblem(
                f"the parts of the sparse matrix {name} do not fit together ({error})"
            ) from None
        return matrix

    def _sparse(self, name: str) -> bool:
        return all(f"{name}_{part}" in self.members for part in SPARSE_PARTS)

    def _read(self, name: str) -> Array:
        info = self.members[name]
        try:
            with zipfile.ZipFile(self.path) as archive, archive.open(info) as stream:
                return read_array(stream, info.file_size, self.limit)
        except FileProblem as problem:
            raise FileProblem(f"{name}: {problem}") from None
        except UNREADABLE as error:
            raise FileProblem(f"{name} is damaged ({reason(error)})") from None


def read_npy(path: Path, limit: int) -> Array:
    """The array of an .npy file; a large one stays there and is read where it is looked at."""
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size < min(MAPPED, budget()):
                return read_array(stream, size, limit)
            checked_header(stream, size, limit)
        return np.load(path, mmap_mode="r", allow_pickle=False)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise FileProblem("there is no such file") from None
    except UNREADABLE as error:
        raise FileProblem(f"it is damaged ({reason(error)})") from None


def checked_header(stream: IO[bytes], size: int, limit: int) -> tuple[tuple[int, ...], bool, Any]:
    """Shape, order and type of an array that the file really holds."""
    version = np.lib.format.read_magic(stream)
    header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, fortran, dtype = header(stream)
    if dtype.hasobject:
        raise FileProblem("it holds Python objects (a pickle), which are never loaded")
    wanted = math.prod(shape) * dtype.itemsize
    if wanted > limit:
        raise FileProblem(f"its {wanted:,} bytes exceed the limit of {limit:,}")
    if wanted > size:
        raise FileProblem(f"it is cut off: {wanted:,} bytes announced, at most {size:,} there")
    return shape, fortran, dtype


def read_array(stream: IO[bytes], size: int, limit: int) -> Array:
    """One array; its header must agree with ``size`` before anything is allocated."""
    shape, fortran, dtype = checked_header(stream, size, limit)
    wanted = math.prod(shape) * dtype.itemsize
    array = np.empty(math.prod(shape), dtype=dtype)
    view = array.view(np.uint8).data if wanted else memoryview(b"")
    done = 0
    while done < wanted:
        chunk = stream.read(min(1 << 22, wanted - done))
        if not chunk:
            raise FileProblem(f"it is cut off after {done:,} of {wanted:,} bytes")
        view[done : done + len(chunk)] = chunk
        done += len(chunk)
    return array.reshape(shape[::-1]).T if fortran else array.reshape(shape)


def reason(error: BaseException) -> str:
    """An exception as a short phrase."""
    if isinstance(error, SyntaxError | tokenize.TokenError):
        return "its header cannot be read"
    text = str(error).strip().splitlines()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return text[0][:160] if text else type(error).__name__
