"""Options that several commands share, and how their text becomes arguments of the API."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Annotated, Any

import typer

from bilevelpy.errors import UsageError
from bilevelpy.system.storage import JsonProblem, loads, written_number

ModelFile = Annotated[str, typer.Argument(metavar="MODEL", help="A model file.")]
Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data", metavar="FILE|NAME=FILE", help="Data (.npz, .npy, .csv, .json); may be repeated."
    ),
]
Param = Annotated[
    list[str] | None,
    typer.Option(
        "--param", metavar="NAME=VALUE", help="A number, or a list in JSON; may be repeated."
    ),
]
ExternOption = Annotated[
    list[str] | None,
    typer.Option(
        "--extern",
        metavar="NAME=FILE.py:OBJECT",
        help="Run FILE.py and hand its OBJECT to the model; may be repeated.",
    ),
]
OptionOption = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="KEY=VALUE", help="An option of the backend; may be repeated."
    ),
]
BackendName = Annotated[
    str, typer.Option(metavar="NAME", help="One of `bilevelpy backends`, or auto.")
]
Tolerance = Annotated[float, typer.Option(metavar="T", help="Relative tolerance.")]
Iterations = Annotated[int, typer.Option(metavar="N", help="Outer iterations at most.")]
Seconds = Annotated[float | None, typer.Option(metavar="S", help="Seconds at most.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

# A plain name before the `=`; a path such as `a=b/c.npz` needs the other form `./a=b/c.npz`.
_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)


# Formats of figures.
FIGURES = (".png", ".svg", ".pdf")


def check_target(path: Path | None, *endings: str) -> None:
    """Refuse a file that could not be written before the work for it, not after it."""
    if path is None:
        return
    if path.suffix.lower() not in endings:
        raise UsageError(f"`{path.name}` must end in {' or '.join(endings)}")
    if not path.absolute().parent.is_dir():
        raise UsageError(f"cannot write {path}: its directory does not exist")


def assignment(text: str, option: str, example: str) -> tuple[str, str]:
    """Name and value of ``NAME=VALUE``."""
    match = _NAMED.fullmatch(text)
    if match is None or not match[2]:
        raise UsageError(f"{option} takes {example}, found `{text}`")
    return match[1], match[2]


def files(texts: Sequence[str] | None) -> tuple[tuple[str | None, str], ...]:
    """The files of ``--data``, each with the one name that it holds if that is said."""
    found: list[tuple[str | None, str]] = []
    for text in texts or ():
        match = _NAMED.fullmatch(text)
        found.append((match[1], match[2]) if match is not None else (None, text))
    return tuple(found)


def params(texts: Sequence[str] | None) -> dict[str, Any]:
    """The values of ``--param``: numbers, or anything that JSON can say."""
    values: dict[str, Any] = {}
    for text in texts or ():
        name, value = assignment(text, "--param", "NAME=VALUE")
        if name in values:
            raise UsageError(f"--param gives `{name}` twice")
        number = written_number(value)
        try:
            values[name] = loads(value) if number is None else number
        except JsonProblem as error:
            raise UsageError(f"--param {name}: {error}") from None
        except ValueError:
            raise UsageError(
                f"--param {name} takes a number, or a list or table in JSON; found `{value}`"
            ) from None
    return values


def options(texts: Sequence[str] | None) -> dict[str, str]:
    """The values of ``--option``; the backend knows their types."""
    return dict(assignment(text, "--option", "KEY=VALUE") for text in texts or ())


def externs(texts: Sequence[str] | None) -> dict[str, Any]:
    """The objects of ``--extern``. This runs Python code; a model file can never do that."""
    return {name: _object(value) for name, value in (_extern(text) for text in texts or ())}


def _extern(text: str) -> tuple[str, str]:
    return assignment(text, "--extern", "NAME=FILE.py:OBJECT")


def _object(place: str) -> Any:
    """The object called by ``FILE.py:OBJECT``."""
    file, colon, name = place.rpartition(":")
    path = Path(file)
    if not colon or path.suffix != ".py" or not name.isidentifier():
        raise UsageError(f"--extern takes NAME=FILE.py:OBJECT, found `{place}`")
    if not path.is_file():
        raise UsageError(f"cannot read {path}: no such file")
    # Compiled from what the file says now: a cached one is told apart by seconds and sizes alone.
    loader = SourceFileLoader(f"bilevelpy_extern_{path.stem}", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    try:
        exec(loader.source_to_code(path.read_bytes(), str(path)), module.__dict__)
    except (Exception, SystemExit) as error:
        raise UsageError(f"{path} failed: {type(error).__name__}: {error}") from error
    if not hasattr(module, name):
        raise UsageError(f"{path} defines no `{name}`")
    return getattr(module, name)
