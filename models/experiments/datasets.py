"""The data sets of the experiments, from a folder of files; bad files are told before any run."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags, issparse

from bilevelpy.errors import UsageError

# Where a file that is missing comes from.
ORIGINS = {
    "mnist.npz": "MNIST (LeCun, Cortes, Burges; CC BY-SA 3.0): X_train, y_train, X_test, y_test",
    "fashion_mnist.npz": "Fashion-MNIST (Zalando; MIT): X_train, y_train, X_test, y_test",
    "a9a.npz": "a9a (UCI Adult, binary form of LIBSVM): CSR parts X_train_*, X_test_*, y_*",
    "covtype.npz": "Covertype (UCI): X, y, low, top",
    "omniglot28.npz": "Omniglot (Lake; MIT) at 28 x 28: images as packed bits, background",
    "research_use/ijcnn1.npz": "ijcnn1 (LIBSVM collection): X_train, y_train, X_test, y_test",
    "research_use/w8a.npz": "w8a (LIBSVM collection): CSR parts X_train_*, y_train",
    "research_use/news20.npz": "20 Newsgroups, by-date split, word counts: CSR parts, y_*",
}


class Arrays(dict[str, NDArray]):
    """The arrays of a file; one that is missing is told with what the file should hold."""

    def __init__(self, path: Path, content: dict[str, NDArray], holds: str) -> None:
        super().__init__(content)
        self.path, self.holds = path, holds

    def __missing__(self, key: str) -> NDArray:
        raise UsageError(f"{self.path} has no array `{key}`; it should hold {self.holds}")


def read(folder: Path, name: str) -> Arrays:
    """The arrays of a file; what is missing says where it comes from."""
    path = folder / name
    if not path.is_file():
        raise UsageError(f"there is no {path}: {ORIGINS[name]}; --data names the folder")
    if not zipfile.is_zipfile(path):
        raise UsageError(f"{path} is damaged, or not an .npz file")
    try:
        # A stream of our own: NumPy does not close the file where its content is damaged.
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {key: content[key] for key in content.files}
            return Arrays(path, arrays, ORIGINS[name])
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is damaged, or holds no plain arrays: {error}") from error


def sparse(arrays: Arrays, part: str) -> csr_matrix:
    """A CSR matrix from its three arrays and its shape."""
    names = ("data", "indices", "indptr", "shape")
    data, indices, pointers, sizes = (arrays[f"{part}_{name}"] for name in names)
    try:
        shape = tuple(int(n) for n in sizes)
        found = csr_matrix((data.astype(float), indices, pointers), shape=shape)
        found.check_format()
    except (TypeError, ValueError) as error:
        raise UsageError(f"{arrays.path}: {part}_* is no CSR matrix: {error}") from error
    return found


def check_labels(name: str, y: NDArray, classes: int, first: int = 0) -> NDArray:
    """``classes`` labels from ``first`` on, each present; anything else is an error that names
    it.
    """
    if y.ndim != 1 or y.dtype.kind not in "biuf":
        raise UsageError(f"{name}: labels are a row of numbers, found {y.dtype} {y.shape}")
    found, known = np.unique(y).tolist(), range(first, first + classes)
    if not set(found) <= set(known):
        raise UsageError(f"{name}: labels run from {first} to {known[-1]}, found {found[:8]}")
    missing = sorted(set(known) - set(found))
    if missing:
        raise UsageError(f"{name}: no row has the label {', '.join(map(str, missing[:5]))}")
    return y


def check_signs(name: str, y: NDArray) -> NDArray:
    """Labels -1 and 1, both present; anything else is an error that names it."""
    found = np.unique(y).tolist()
    if found != [-1, 1]:
        raise UsageError(f"{name}: labels are -1 and 1, and there are both; found {found[:8]}")
    return y


def check_rows(name: str, X: Any, y: NDArray, needed: int) -> None:
    """A label for each row, and as many rows as are needed."""
    if X.ndim != 2 or y.ndim != 1 or X.shape[0] != len(y):
        raise UsageError(f"{name}: needs a row of X for each label, found {X.shape} and {y.shape}")
    if len(y) < needed:
        raise UsageError(f"{name}: needs {needed} rows, found {len(y)}")


def tf_idf(train: csr_matrix, *others: csr_matrix) -> list[csr_matrix]:
    """Term frequency times log((1 + rows) / (1 + document frequency)) + 1, rows of length 1."""
    frequency = np.asarray((train > 0).sum(axis=0)).ravel()
    weight = diags(np.log((1 + train.shape[0]) / (1 + frequency)) + 1)
    found = []
    for counts in (train, *others):
        rows = counts @ weight
        norms = np.sqrt(np.asarray(rows.multiply(rows).sum(axis=1)).ravel())
        scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        found.append(csr_matrix(diags(scale) @ rows))
    return found


def shuffled(rows: int, seed: int) -> NDArray:
    """A random order of the rows; seed 0 is the given one."""
    return np.arange(rows) if seed == 0 else np.random.default_rng(seed).permutation(rows)


def fingerprint(data: Mapping[str, Any]) -> str:
    """One hash of all the arrays of a data set."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(data.items()):
        parts = (value.data, value.indices, value.indptr) if issparse(value) else (value,)
        digest.update(name.encode())
        for part in parts:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
