"""Models from files, texts and other systems, with the data that the caller hands over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bilevelpy.diagnostics import Source
from bilevelpy.errors import ModelError, UsageError
from bilevelpy.model import TEXT, Given, Model, build, check_externs, check_names, read_model
from bilevelpy.system.storage import path_given


def load(
    path: str | Path, *, data: Any = None, externs: Mapping[str, Any] | None = None, **keywords: Any
) -> Model:
    """Read, check and bind a model file.

    Parameters
    ----------
    path
        A ``.blv`` file.
    data
        A mapping from names to arrays, or the path of a data file (.npz, .npy, .csv, .json), or a
        list of such paths. Arrays of float64 are kept, not copied: change them by
        :meth:`Model.bind`, not in place.
    externs
        Functions and modules for the model's ``extern`` declarations, by name.
    keywords
        Data by name; they go before ``data``.

    Returns
    -------
    Model

    Raises
    ------
    ModelError
        The model is wrong; lists every diagnostic. Its subclass ``DataError``: the data does not
        fit the model.
    """
    return read_model(path_given(path, "load"), _given(data, externs, keywords))


def parse(
    text: str, *, data: Any = None, externs: Mapping[str, Any] | None = None, **keywords: Any
) -> Model:
    """Check and bind a model given as text; parameters and errors are those of :func:`load`."""
    if not isinstance(text, str):
        raise UsageError(f"parse takes the text of a model, found {type(text).__name__}")
    if text.endswith(".blv") and "\n" not in text:
        raise UsageError(f"parse takes the text of a model; `load` reads the file {text}")
    return build(Source(TEXT, text), _given(data, externs, keywords))


def _given(data: Any, externs: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> Given:
    """Sort what the caller handed over: values by name, a table, one file or several."""
    check_externs(externs)
    if isinstance(data, (list, tuple)):
        if not all(isinstance(item, (str, Path)) for item in data):
            raise UsageError("data is a mapping of names to arrays, a path, or a list of paths")
        return Given(None, keywords, tuple((None, item) for item in data), externs or {})
    return Given(data, keywords, (), externs or {})


def read(
    path: str | Path,
    *,
    aux: str | Path | None = None,
    name: str | None = None,
    externs: Mapping[str, Any] | None = None,
) -> Model:
    """Read a model of another system: MPS or LP with AUX, canonical JSON, records of collections.

    Parameters
    ----------
    path
        The file; its ending says what it is.
    aux
        The AUX file of an MPS or LP file; by default the one of the same stem.
    name
        The problem to take from a collection.
    externs
        Functions for the model's ``extern`` declarations (JSON).

    Raises
    ------
    ModelError
        With the line that is malformed, or that cannot be taken over.
    """
    from bilevelpy.importers.read import read_bound, read_text

    path = path_given(path, "read")
    bound = read_bound(path, externs or {})
    if bound is not None:
        return Model(bound, (), Given(dict(bound.data.arrays), {}, (), externs or {}))
    text = read_text(path, aux, name)
    try:
        return build(Source(TEXT, text), Given())
    except ModelError as error:
        # The place is one in the text that was made of the file, which the user has never seen.
        first, *others = error.diagnostics
        note = f"this is what {path} says, written as a model of this language"
        noted = replace(first, notes=(*first.notes, note))
        raise type(error)([noted, *others], error.sources) from None


def model_of(
    model: Model | str | Path,
    data: Any,
    externs: Mapping[str, Any] | None,
    keywords: Mapping[str, Any],
    options: Sequence[str],
) -> Model:
    """The model to work on, with whatever data comes with the call; ``options`` are keywords that
    are no data, for suggestions where one is unknown.
    """
    if isinstance(model, Model):
        check_names(model.program, keywords, options)
        if data is None and not externs and not keywords:
            return model
        return model.bind(data=data, externs=externs, **keywords)
    if isinstance(model, (str, Path)):
        return read_model(model, _given(data, externs, keywords), options)
    raise UsageError(f"a model is a `Model` or the path of a file, found {type(model).__name__}")
