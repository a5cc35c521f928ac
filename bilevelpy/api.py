"""The Python interface: thin functions from a model to its structure, a decision, a certified
result.

torch and cvxpy are loaded inside the functions that need them.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import UsageError
from bilevelpy.loading import load as load
from bilevelpy.loading import model_of
from bilevelpy.loading import parse as parse
from bilevelpy.loading import read as read
from bilevelpy.model import Model
from bilevelpy.options import SolveOptions, dtype_name, names_of
from bilevelpy.system.deadline import reading
from bilevelpy.system.garbage import undisturbed
from bilevelpy.system.storage import path_given

if TYPE_CHECKING:
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.compiled import Oracle
    from bilevelpy.dispatcher import Decision
    from bilevelpy.result import Result


def compile(model: Model | str | Path) -> Oracle:
    """The bound model as functions of two flat vectors: values, gradients, products, hypergradient.

    Built once for a model; every call is counted in ``counts``.

    Raises
    ------
    BackendError
        Where the leader reads shadow prices: they belong to responses, not to any two vectors.
    """
    from bilevelpy.compiled import Oracle
    from bilevelpy.errors import BackendError
    from bilevelpy.numerics.rows.priced import reads_prices
    from bilevelpy.solving import check_unchanged, oracle, structure

    bound = given_model(model)
    check_unchanged(bound)
    if reads_prices(bound.program):
        raise BackendError(
            "`dual(...)` in the upper level has no value in a function of the variables alone: "
            "`solve` takes such models"
        )
    return Oracle(oracle(bound), lambda: structure(bound, 0))


def analyze(model: Model | str | Path, *, seed: int = 0) -> Structure:
    """The facts that decide how the model is solved, each with its evidence and reason.

    ``seed`` chooses the points at which what cannot be proved is observed.

    Raises
    ------
    ModelError
        One of its assumptions is refuted (BLV0504); of a path also what :func:`load` raises.
    """
    from bilevelpy.solving import check_unchanged, structure

    bound = given_model(model)
    check_unchanged(bound)
    return structure(bound, seed)


def dispatch(
    structure: Structure | Model | str | Path, *, backend: str = "auto", force: bool = False
) -> Decision:
    """Which backend is to solve a model of this structure (of a model: :func:`analyze` finds it),
    and why not the others.

    ``backend`` asks for one by name.

    Raises
    ------
    BackendError
        No backend takes the model (BLV0601), or the one asked for rejects it (BLV0602) and
        ``force`` is not set.
    """
    from bilevelpy.analysis.structure import Structure
    from bilevelpy.dispatcher import dispatch as decide

    if isinstance(structure, Model | str | Path):
        structure = analyze(structure)
    if not isinstance(structure, Structure):
        raise UsageError(f"dispatch takes a structure or a model, found {structure!r:.80}")
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

    path = path_given(path, "export")
    bound = given_model(model, data, externs, keywords).bound
    written, files = write(bound, to, path, Options.of(options or {}))
    for text in files.warnings:
        warnings.warn(text, UserWarning, stacklevel=2)
    return written


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
    start: Mapping[str, Any] | Result | None = None,
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
        Limits: outer iterations, seconds of wall time (all that is done here, reading included).
    seed
        Of everything random.
    start
        Values of variables, by name, to start from, or an earlier result.
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
    of torch, and BLAS's own where arrays are large; afterwards all is as it was. Up to 256 MB of
    freed arrays stay with the process from the first solve on (glibc's ``MALLOC_TRIM_THRESHOLD_``
    in the environment chooses otherwise).

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
    with undisturbed():
        from bilevelpy.lowering.programs.freed import keep_freed
        from bilevelpy.lowering.programs.threads import few_threads
        from bilevelpy.solving import Request, run
        from bilevelpy.solving.starts import named_values

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
        dtype_name(dtype),
    )
    with reading(began, settings.time_limit):
        bound = given_model(model, data, externs, keywords)
    request = Request(
        named_values(start), callback, progress, checkpoint, resume, verify,
        names_of(watch, "watch"), stop_by, patience,
    )  # fmt: skip
    keep_freed()
    # Another device, and single precision, are torch's.
    threads = nullcontext() if settings.begins_on_device else few_threads(bound.bound)
    with threads, bound.alone() as model:
        return run(model, settings, request, began)


def certify(
    model: Model | str | Path,
    answer: Mapping[str, Any] | Result | str | Path,
    *,
    data: Any = None,
    externs: Mapping[str, Any] | None = None,
    tol: float = 1e-6,
    time_limit: float | None = None,
    seed: int = 0,
    **keywords: Any,
) -> Result:
    """Examine a point from elsewhere: another solver's, a paper's, code of one's own.

    The point comes back as it is, with its objectives and its certificate: whether y is the
    follower's best answer to x, and whether x is stationary (``kind`` "local"), or the best there
    is ("global") where a global search would be chosen for the model: that search begins with the
    point, and ends with it or with a better one (in ``certificate.details``, "better").

    Parameters
    ----------
    model, data, externs, keywords
        As in :func:`solve`.
    answer
        Values of variables by name (``"w"``, or ``"fit.w"`` where levels share it), a result, or a
        file with either (.json, .npz), or the solution that another solver has printed for an
        exported model (.sol). Without the followers' values their best response to x is computed.
    tol, seed
        As in :func:`solve`.
    time_limit
        Seconds of wall time.

    Returns
    -------
    Result
        With ``status`` "converged" where the certificate holds, else "stalled"; ``backend`` is the
        method whose checks were made.

    Raises
    ------
    ModelError, DataError, UsageError
        The model, its data, or the answer is wrong: unknown names, shapes, variables that lack.
    BackendError
        No method takes the model.
    """
    with undisturbed():
        from bilevelpy.lowering.programs.threads import few_threads
        from bilevelpy.solving.given import certify as examined

    began = time.perf_counter()
    limit = float("inf") if time_limit is None else time_limit
    settings = SolveOptions(tol=tol, time_limit=limit, seed=seed)
    with reading(began, limit):
        bound = given_model(model, data, externs, keywords)
    if isinstance(answer, str | Path):
        from bilevelpy.records.saved import values_in

        answer = values_in(Path(answer), bound.bound, "answer")
    with few_threads(bound.bound), bound.alone() as own:
        return examined(own, answer, settings, began)


# What `solve` takes besides data; for suggestions where a keyword is unknown.
SOLVE_OPTIONS = [
    p.name for p in inspect.signature(solve).parameters.values() if p.kind is p.KEYWORD_ONLY
]


def given_model(
    model: Model | str | Path,
    data: Any = None,
    externs: Mapping[str, Any] | None = None,
    keywords: Mapping[str, Any] | None = None,
) -> Model:
    """The model to work on, with whatever data comes with the call."""
    return model_of(model, data, externs, keywords or {}, SOLVE_OPTIONS)
