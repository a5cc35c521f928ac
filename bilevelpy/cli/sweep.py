"""``bilevelpy sweep``: one model for many values, seeds and starts."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_json, say
from bilevelpy.cli.guard import DONE, INTERRUPTED, UNSOLVED
from bilevelpy.errors import UsageError
from bilevelpy.system.storage import JsonProblem, loads, written_number

if TYPE_CHECKING:
    from bilevelpy.studies.sweeping import Sweep


def sweep(
    model: arguments.ModelFile,
    param: Annotated[
        list[str] | None,
        typer.Option(
            "--param", metavar="NAME=A,B,C", help="Values to sweep over, in JSON; may be repeated."
        ),
    ] = None,
    data: arguments.Data = None,
    extern: arguments.ExternOption = None,
    backends: Annotated[str, typer.Option(metavar="A,B", help="Backends, or auto.")] = "auto",
    seeds: Annotated[str, typer.Option(metavar="N,M", help="Seeds.")] = "0",
    starts: Annotated[
        int, typer.Option(metavar="K", help="The declared start, and K - 1 random ones.")
    ] = 1,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Processes at a time; one a core by default.")
    ] = None,
    option: arguments.OptionOption = None,
    tol: arguments.Tolerance = 1e-6,
    max_iter: arguments.Iterations = 500,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds at most, for each run.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the table (.csv, .json).")
    ] = None,
    as_json: arguments.AsJson = False,
) -> int:
    """Solve a model for every combination of values, seeds, starts and backends; one table.

    Exit code 1 unless every run is solved and certified; 130 where Ctrl-C ends it: the table of the
    complete runs is printed and saved.
    """
    arguments.check_target(out, ".csv", ".json")
    grid = _grid(param)
    from bilevelpy.cli.sources import load
    from bilevelpy.studies import api as many

    def keep(table: Sweep) -> None:
        """What is complete outlives the process; what cannot be written is told at the end."""
        if out is not None:
            with contextlib.suppress(UsageError):
                table.save(out)

    # The first values bind the model; whether every other one fits is found out by its run.
    loaded = load(model, data, None, extern, {name: values[0] for name, values in grid.items()})
    table = many.sweep(
        loaded,
        params=grid,
        seeds=[_seed(text) for text in seeds.split(",")],
        starts=starts,
        backends=[name.strip() for name in backends.split(",") if name.strip()],
        jobs=jobs,
        tol=tol,
        max_iter=max_iter,
        time_limit=time_limit,
        options=arguments.options(option),
        callback=keep,
    )
    if as_json:
        print_json(table.as_dict())
    else:
        print(table)
    if out is not None:
        table.save(out)
        say(f"written: {out}")
    if table.interrupted:
        return INTERRUPTED
    return DONE if table.success else UNSOLVED


def _grid(texts: Sequence[str] | None) -> dict[str, list[Any]]:
    """``cap=10,20,50`` as a list; ``w=[1, 2],[3, 4]`` as a list of vectors."""
    grid: dict[str, list[Any]] = {}
    for text in texts or ():
        name, value = arguments.assignment(text, "--param", "NAME=A,B,C")
        if name in grid:
            raise UsageError(f"--param gives `{name}` twice")
        try:
            grid[name] = loads(f"[{value}]")
        except JsonProblem as error:
            raise UsageError(f"--param {name}: {error}") from None
        except ValueError:
            numbers = [written_number(part.strip()) for part in value.split(",")]  # JSON has no inf
            if None in numbers:
                raise UsageError(
                    f"--param {name} takes values in JSON with commas between, found `{value}`"
                ) from None
            grid[name] = numbers
    return grid


def _seed(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"--seeds takes whole numbers, found `{text}`") from None
