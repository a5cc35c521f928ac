"""Files that are either complete or absent, and JSON that every reader takes."""

from __future__ import annotations

import codecs
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bilevelpy.errors import UsageError

if TYPE_CHECKING:
    import numpy as np

# The key of a .npz file that holds, as JSON text, whatever is not an array.
META = "meta"
# Bytes of the arrays of a file up to which it is compressed.
LARGE = 1 << 22
# Bytes of a text that are read from what is no file: it may have no end.
ENDLESS = 1 << 28

_NUMBER = re.compile(
    r"[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?|inf(?:inity)?)", re.IGNORECASE | re.ASCII
)


class JsonProblem(ValueError):
    """A JSON text that Python reads in a way of its own, or fails on with words of its own."""


class NotUtf8(ValueError):
    """A file that is no text in UTF-8; the words say what it is."""


def path_given(value: Any, what: str) -> Path:
    """A caller's path; anything else is an error that names ``what`` takes it."""
    if isinstance(value, str | os.PathLike) and not isinstance(os.fspath(value), bytes):
        return Path(value)
    raise UsageError(f"{what} takes the path of a file, found {value!r:.80}")


def write_atomically(path: str | Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` fill a file beside ``path`` and put it in its place: an interruption leaves the
    old one.

    Problems of the file system are the user's to solve, hence
    :class:`~bilevelpy.errors.UsageError`.
    """
    target = Path(path)
    temporary: str | None = None
    try:
        if target.is_dir():
            raise UsageError(f"cannot write {target}: it is a directory")
        if target.exists() and not target.is_file():
            # A device or a pipe takes what is written; a file in its place would be its end.
            with target.open("wb") as stream:
                write(stream)
            return
        # A link goes on pointing at its file.
        place = Path(os.path.realpath(target))
        handle, temporary = tempfile.mkstemp(prefix=f".{place.name[:100]}.", dir=place.parent)
        with os.fdopen(handle, "wb") as stream:
            write(stream)
        # mkstemp makes private files; a new one is as readable as any other file that the user
        # makes, and one that takes the place of another keeps its mode.
        os.chmod(temporary, _mode(place))
        os.replace(temporary, place)
        temporary = None
    except OSError as error:
        raise UsageError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def _mode(target: Path) -> int:
    """The mode of a file that is there, else that of new files."""
    try:
        return stat.S_IMODE(target.stat().st_mode)
    except FileNotFoundError:
        return 0o666 & ~_umask()


def _umask() -> int:
    """The process's file mode mask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def plain(value: Any) -> Any:
    """``value`` as JSON types: arrays as lists, NaN as None, infinities as "inf" and "-inf"."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (set, frozenset)):
        return sorted(plain(v) for v in value)
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return float(value) if math.isfinite(value) else ("inf" if value > 0 else "-inf")
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return str(value)
    if hasattr(value, "tolist"):  # NumPy arrays and scalars, without importing NumPy here
        return value.tolist() if _is_plain(value) else plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"no JSON form for {type(value).__name__}")


def _is_plain(array: Any) -> bool:
    """Whether every entry of an array is a JSON number already: no need to visit each."""
    if array.dtype.kind == "f":
        return bool((abs(array) < math.inf).all())
    return array.dtype.kind in "iub"


def number(value: Any) -> float:
    """The number that :func:`plain` wrote: the inverse for a scalar."""
    return math.nan if value is None else float(value)


def written_number(word: str) -> float | None:
    """The number that every reader sees in a word; None for other words. Python's own reading is
    wider (``1_000``, digits of other scripts), where other readers stop in the middle.
    """
    return float(word) if _NUMBER.fullmatch(word) else None


def loads(text: str | bytes) -> Any:
    """The value of a JSON text.

    Raises
    ------
    JsonProblem
        Where an object has a key twice (Python would keep the last value without a word), or what
        Python has limits for.
    ValueError
        Where it is not JSON.
    """
    try:
        return json.loads(text, object_pairs_hook=_object)
    except (json.JSONDecodeError, JsonProblem):
        raise
    except RecursionError:
        raise JsonProblem("its lists and objects are nested too deeply") from None
    except UnicodeDecodeError:
        raise JsonProblem("it is not UTF-8 text; save it as UTF-8") from None
    except ValueError:  # what is left is Python's limit for whole numbers
        raise JsonProblem("it holds a whole number of thousands of digits") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        again = next(name for name in names if names.count(name) > 1)
        raise JsonProblem(f"it has the key {json.dumps(again[:40])} twice in one object")
    return found


def dumps(value: Any, *, indent: int | None = None) -> str:
    """JSON text of any value that :func:`plain` takes."""
    return json.dumps(plain(value), indent=indent, allow_nan=False, ensure_ascii=False)


def write_json(path: str | Path, value: Any) -> None:
    """Write ``value`` as JSON, atomically."""
    write_text(path, dumps(value, indent=1) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write ``text`` in UTF-8, atomically; line ends stay as they are."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def write_npz(path: str | Path, arrays: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Write arrays and, as JSON text, ``meta`` into one file, atomically. No pickles.

    Files are compressed, but for large ones: digits hardly shrink, and it takes long.
    """
    import numpy as np

    content: dict[str, Any] = {k: np.asarray(v) for k, v in arrays.items()}
    save = np.savez_compressed if sum(a.nbytes for a in content.values()) <= LARGE else np.savez
    content[META] = np.array(dumps(meta))
    write_atomically(path, lambda stream: save(stream, **content))


def read_npz(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Arrays and ``meta`` of a file written by :func:`write_npz`."""
    import zipfile
    import zlib

    import numpy as np

    try:
        # A stream of our own: NumPy does not close the file where its content is damaged.
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files if name != META}
            meta = json.loads(str(content[META]))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or 'not an .npz file'}") from error
    except (
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        EOFError,
        RecursionError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UsageError(
            f"cannot read {path}: it is damaged, or not a file that bilevelpy wrote"
        ) from error
    if not isinstance(meta, dict):
        raise UsageError(f"cannot read {path}: it is damaged, or not a file that bilevelpy wrote")
    return arrays, meta


def read_value(path: str | Path) -> Any:
    """The value in a JSON file."""
    try:
        return loads(Path(path).read_bytes())
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except JsonProblem as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except ValueError as error:
        raise UsageError(f"cannot read {path}: it is not JSON ({error})") from error


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file."""
    value = read_value(path)
    if not isinstance(value, dict):
        raise UsageError(f"cannot read {path}: it does not hold one object")
    return value


def open_text(path: str | Path, what: str) -> str:
    """The text of a file called ``what`` in messages. Bytes that are not UTF-8 become U+FFFD."""
    try:
        with Path(path).open("rb") as stream:
            whole = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
            content = stream.read() if whole else stream.read(ENDLESS + 1)
    except OSError as error:
        raise UsageError(f"cannot read the {what} {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UsageError(f"cannot read the {what} {str(path)!r}: not a path") from error
    wide = wide_encoding(content)
    if wide is not None:
        raise UsageError(f"cannot read the {what} {path}: it is {wide} text; save it as UTF-8")
    if b"\0" in content[:8192]:
        raise UsageError(f"cannot read the {what} {path}: it is a binary file")
    if not whole and len(content) > ENDLESS:
        raise UsageError(f"cannot read the {what} {path}: it has no end within {ENDLESS:,} bytes")
    return content.decode("utf-8", errors="replace")


def utf8_text(content: bytes) -> str:
    """The text of a file in UTF-8, with or without its mark, lines ended by a line feed.

    Raises
    ------
    NotUtf8
        Where it is none; the words say what it is.
    """
    wide = wide_encoding(content)
    if wide is not None:
        raise NotUtf8(f"it is {wide} text; save it as UTF-8")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotUtf8("it is not UTF-8 text; save it as UTF-8") from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def wide_encoding(content: bytes) -> str | None:
    """What bytes seem to be text in, "UTF-16" or "UTF-32": by a mark, or by zeros between."""
    for name, marks in (
        ("UTF-32", (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)),
        ("UTF-16", (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)),
    ):
        if content.startswith(marks):
            return name
    head = content[:1024]
    even, odd = head[::2], head[1::2]
    # Letters of most languages' keywords and numbers have a zero byte there.
    plain, zeros = (even, odd) if odd.count(0) > even.count(0) else (odd, even)
    return "UTF-16" if zeros and zeros.count(0) == len(zeros) and 0 not in plain else None
