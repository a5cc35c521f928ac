"""Many solves of one model: several backends side by side, and grids of data, seeds and starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bilevelpy.api import SOLVE_OPTIONS, given_model, solve
from bilevelpy.errors import UsageError
from bilevelpy.model import Model
from bilevelpy.options import names_of

if TYPE_CHECKING:
    from bilevelpy.studies.comparison import Comparison
    from bilevelpy.studies.sweeping import Sweep


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
    from bilevelpy.studies.comparison import compared

    given = registry.names() if backends is None else names_of(backends, "backends")
    names = list(dict.fromkeys(given))
    if not names:
        raise UsageError(f"name at least one backend; there are: {', '.join(registry.names())}")
    for name in names:
        if name != "auto":
            registry.get(name)
    own = {name: options.pop(name) for name in list(options) if name not in SOLVE_OPTIONS}
    bound = given_model(model, data, options.pop("externs", None), own)
    return compared(bound.name, names, lambda name: solve(bound, backend=name, **options))


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
    callback: Callable[[Sweep], object] | None = None,
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
    callback
        Gets the table so far, every ten seconds at most: ``lambda table: table.save("t.csv")``.

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
    from bilevelpy.studies.sweeping import sweep as run

    if not isinstance(params, Mapping | None):
        raise UsageError(f"params takes names with lists of values, found {params!r:.80}")
    if not isinstance(seeds, Iterable):
        raise UsageError(f"seeds takes a list of whole numbers, found {seeds!r:.80}")
    settings = {
        "tol": tol,
        "max_iter": max_iter,
        "time_limit": float("inf") if time_limit is None else time_limit,
        "backend_options": {} if options is None else options,
    }
    return run(
        given_model(model, data, externs, keywords),
        params=params or {},
        seeds=list(seeds),
        starts=starts,
        backends=names_of(backends, "backends"),
        jobs=jobs,
        options=settings,
        callback=callback,
    )
