"""The Python interface: thin functions from a model to its structure, a decision, a certified
result.

torch and cvxpy are loaded inside the functions that need them.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.diagnostics import Source
from bilevelpy.errors import BackendError, ModelError, UsageError
from bilevelpy.model import TEXT, Given, Model, build, check_names, read_model
from bilevelpy.options import SolveOptions, names_of

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.comparison import Comparison
    from bilevelpy.compiled import Oracle
    from bilevelpy.dispatcher import Decision
    from bilevelpy.result import Result
    from bilevelpy.sweeping import Sweep


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
    return read_model(path, _given(data, externs, keywords))


def parse(
    text: str, *, data: Any = None, externs: Mapping[str, Any] | None = None, **keywords: Any
) -> Model:
    """Check and bind a model given as text; otherwise as :func:`load`."""
    return build(Source(TEXT, text), _given(data, externs, keywords))


def _given(data: Any, externs: Mapping[str, Any] | None, keywords: Mapping[str, Any]) -> Given:
    """Sort what the caller handed over: values by name, a table, one file or several."""
    if isinstance(data, (list, tuple)):
        if not all(isinstance(item, (str, Path)) for item in data):
            raise UsageError("data is a mapping of names to arrays, a path, or a list of paths")
        return Given(None, keywords, tuple((None, item) for item in data), externs or {})
    return Given(data, keywords, (), externs or {})


def compile(model: Model | str | Path) -> Oracle:
    """The bound model as functions of two flat vectors: values, gradients, products, hypergradient.

    Built once for a model; every call is counted in ``counts``.
    """
    from bilevelpy.compiled import Oracle
    from bilevelpy.solving import check_unchanged, oracle

    bound = _model(model)
    check_unchanged(bound)
    return Oracle(oracle(bound))


def analyze(model: Model | str | Path, *, seed: int = 0) -> Structure:
    """The facts that decide how the model is solved, each with its evidence and reason.

    ``seed`` chooses the points at which what cannot be proved is observed.
    """
    from bilevelpy.solving import check_unchanged, structure

    bound = _model(model)
    check_unchanged(bound)
    return structure(bound, seed)


def dispatch(structure: Structure, *, backend: str = "auto", force: bool = False) -> Decision:
    """Which backend is to solve a model of this structure, and why not the others.

    ``backend`` asks for one by name; where it rejects the model this raises ``BackendError``,
    unless ``force`` is set.
    """
    from bilevelpy.dispatcher import dispatch as decide

    return decide(structure, backend=backend, force=force)


def export(
    model: Model | str | Path,
    *,
    to: str,
    path: str | Path,
    data: Any = None,
    externs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> list[Path]:
    """Write a model for another system.

    Parameters
    ----------
    model, data, externs, keywords
        As in :func:`solve`.
    to
        A name of :func:`exporters`.
    path
        The file to write; some formats put further files of the same stem beside it.
    options
        ``reformulation`` ("sos1", "indicators", "big-m"), ``dual_bound``, ``epsilon``, ``force``.

    Returns
    -------
    list of Path
        The files, the one that was asked for last. Each is complete or absent.

    Raises
    ------
    ExportError
        The format cannot express the model; nothing was written.
    """
    import warnings

    from bilevelpy.exporters.base import Options
    from bilevelpy.exporters.write import export as write

    bound = _model(model, data, externs, keywords).bound
    written, files = write(bound, to, path, Options.of(options or {}))
    for text in files.warnings:
        warnings.warn(text, UserWarning, stacklevel=2)
    return written


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


def solve(
    model: Model | str | Path,
    *,
    data: Any = None,
    externs: Mapping[str, Any] | None = None,
    backend: str = "auto",
    tol: float = 1e-6,
    max_iter: int = 500,
    time_limit: float | None = None,
    seed: int = 0,
    start: Mapping[str, Any] | None = None,
    callback: Callable[[Any], Any] | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    resume: bool = False,
    options: Mapping[str, Any] | None = None,
    watch: Iterable[str] = (),
    stop_by: str | None = None,
    patience: int = 20,
    verify: bool = True,
    force: bool = False,
    device: str = "cpu",
    dtype: Any = "float64",
    **keywords: Any,
) -> Result:
    """Solve a model and certify the answer.

    Returns for every outcome of the mathematics (see ``Result.status``).

    Parameters
    ----------
    model
        A :class:`Model`, or the path of a model file.
    data, externs, keywords
        As in :func:`load`; for a :class:`Model` they replace what was bound.
    backend
        A name of :func:`backends`, or "auto".
    tol
        Relative tolerance of the projected hypergradient and of the lower problem.
    max_iter, time_limit
        Limits: outer iterations, seconds of wall time.
    seed
        Of everything random.
    start
        Values of variables, by name, to start from.
    callback
        Called once per outer iteration with a read-only state; a true return value stops the run.
    progress
        A line on standard error: True, False, or None (on a terminal only).
    checkpoint, resume
        A file that the run is saved to now and then; with ``resume`` the run goes on from it as if
        it had not been ended (``max_iter`` and ``time_limit`` count anew where they have ended it),
        or from its point alone where other options are given. It is refused where model or data
        have changed.
    options
        Options of the chosen backend.
    watch
        Names of reports to record along the run, in ``history``; "max test_accuracy" or
        "min test_loss" also say, in ``warnings``, when the best value was passed.
    stop_by, patience
        "max test_accuracy": end the run when that report has not become better for ``patience``
        iterations, and return the point where it was best, whatever ended the run.
    verify
        False skips the certificate; the status is then never "converged".
    force
        Use ``backend`` even where it rejects the model.
    device, dtype
        "cuda" (or "cuda:1", ...) or float32: the run begins there with a tolerance of 1e-4, and is
        finished and certified in float64 on the CPU.

    Runs by NumPy (all below eight threads of torch, and those on less than 160 MB) use one thread
    of torch, and BLAS's own where arrays are large; afterwards all is as it was.

    Returns
    -------
    Result

    Raises
    ------
    ModelError, DataError, UsageError
        The model, its data or an option is wrong.
    BackendError
        No backend accepts the model, or the backend failed.
    """
    from bilevelpy.lowering.threads import few_threads
    from bilevelpy.solving import Request, run

    began = time.perf_counter()
    settings = SolveOptions(
        backend,
        tol,
        max_iter,
        float("inf") if time_limit is None else time_limit,
        seed,
        force,
        {} if options is None else options,
        device,
        _dtype(dtype),
    )
    bound = _model(model, data, externs, keywords)
    request = Request(
        {} if start is None else start,
        callback,
        progress,
        checkpoint,
        resume,
        verify,
        names_of(watch, "watch"),
        stop_by,
        patience,
    )
    # Another device, and single precision, are torch's.
    alone = settings.device == "cpu" and settings.dtype == "float64"
    with few_threads(bound.bound) if alone else nullcontext():
        return run(bound, settings, request, began)


def _dtype(wanted: Any) -> str:
    """The name of a type that NumPy, PyTorch or the caller names."""
    if wanted is float:
        return "float64"
    return str(getattr(wanted, "__name__", wanted)).removeprefix("torch.")


def compare(
    model: Model | str | Path,
    *,
    backends: Iterable[str] | None = None,
    data: Any = None,
    **options: Any,
) -> Comparison:
    """Solve a model with several backends and put the answers side by side.

    Parameters
    ----------
    model, data
        As in :func:`solve`.
    backends
        Names, "auto" among them if wanted; all that accept the model by default. One that rejects
        it is listed with its reason.
    options
        As in :func:`solve`, for every backend; data by name too.

    Raises
    ------
    UsageError
        Where a name is unknown, or no backend is named: before the first solve.
    """
    from bilevelpy.backends import registry
    from bilevelpy.comparison import Comparison

    names = (
        registry.names()
        if backends is None
        else list(dict.fromkeys(names_of(backends, "backends")))
    )
    if not names:
        raise UsageError(f"name at least one backend; there are: {', '.join(registry.names())}")
    for name in names:
        if name != "auto":
            registry.get(name)
    results: dict[str, Result] = {}
    refused: dict[str, str] = {}
    own = {name: options.pop(name) for name in list(options) if name not in _SOLVE_OPTIONS}
    bound = _model(model, data, options.pop("externs", None), own)
    for name in names:
        if any(r.status == "interrupted" for r in results.values()):
            refused[name] = "not run: interrupted"
            continue
        try:
            results[name] = solve(bound, backend=name, **options)
        except BackendError as error:
            refused[name] = str(error)
    return Comparison(bound.name, results, refused)


def sweep(
    model: Model | str | Path,
    *,
    params: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0,),
    starts: int = 1,
    backends: Sequence[str] = ("auto",),
    jobs: int | None = None,
    data: Any = None,
    externs: Mapping[str, Any] | None = None,
    tol: float = 1e-6,
    max_iter: int = 500,
    time_limit: float | None = None,
    options: Mapping[str, Any] | None = None,
    **keywords: Any,
) -> Sweep:
    """Solve a model for every combination of data values, seeds, starts and backends.

    Parameters
    ----------
    model, data, externs, keywords
        As in :func:`solve`.
    params
        Names of params to lists of values; their combinations are the grid.
    seeds
        Of everything random, random starts among it.
    starts
        1: the declared start values. More: random starts besides, uniform in bounded domains and
        normal around the declared values elsewhere. ``Sweep.best()`` is the best run.
    backends
        Names, "auto" among them.
    jobs
        Processes at a time; by default one a core where joblib is installed (the extra
        ``parallel``), else one. A ``joblib`` context of the caller (Ray, Dask) is kept.
    tol, max_iter, time_limit, options
        As in :func:`solve`, for each run.

    Returns
    -------
    Sweep
        A run that its values make impossible, or whose process was ended from outside, is a row of
        the table with the reason. Ctrl-C ends the sweep with the runs that were complete.

    Raises
    ------
    UsageError
        A name is unknown, or nothing is to be run.
    """
    from bilevelpy.sweeping import sweep as run

    settings = {
        "tol": tol,
        "max_iter": max_iter,
        "time_limit": float("inf") if time_limit is None else time_limit,
        "backend_options": {} if options is None else options,
    }
    return run(
        _model(model, data, externs, keywords),
        params=params or {},
        seeds=seeds,
        starts=starts,
        backends=names_of(backends, "backends"),
        jobs=jobs,
        options=settings,
    )


# What `solve` takes besides data; for suggestions where a keyword is unknown.
_SOLVE_OPTIONS = [
    p.name for p in inspect.signature(solve).parameters.values() if p.kind is p.KEYWORD_ONLY
]


def _model(
    model: Model | str | Path,
    data: Any = None,
    externs: Mapping[str, Any] | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> Model:
    """The model to work on, with whatever data comes with the call."""
    keywords = keywords or {}
    if isinstance(model, Model):
        check_names(model.program, keywords, _SOLVE_OPTIONS)
        if data is None and not externs and not keywords:
            return model
        return model.bind(data=data, externs=externs, **keywords)
    if isinstance(model, (str, Path)):
        return read_model(model, _given(data, externs, keywords), _SOLVE_OPTIONS)
    raise UsageError(f"a model is a `Model` or the path of a file, found {type(model).__name__}")
