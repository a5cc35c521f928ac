"""``bilevelpy test``: solve models and check the answers that they state."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_json
from bilevelpy.cli.guard import DONE, UNSOLVED
from bilevelpy.cli.sources import load, model_files
from bilevelpy.errors import BilevelError, ModelError
from bilevelpy.options import SolveOptions

if TYPE_CHECKING:
    from bilevelpy.expectations import Outcome


NO_DATA = "no data"
# Nothing but missing data is wrong with the model.
_UNBOUND = ("BLV0401", "BLV0408", "BLV0421")


@dataclass(frozen=True, slots=True)
class Row:
    """One model: how it ended, which expectations hold, and what went wrong."""

    model: str
    status: str
    seconds: float
    outcomes: Sequence[Outcome] = ()
    message: str = ""

    @property
    def skipped(self) -> bool:
        """Whether the model has no data of its own to be solved with."""
        return self.status == NO_DATA

    @property
    def passed(self) -> bool:
        """Converged, and every expectation holds."""
        return self.status == "converged" and all(o.passed for o in self.outcomes)


def run_tests(
    paths: Annotated[
        list[str], typer.Argument(metavar="PATH", help="Model files, or directories of them.")
    ],
    backend: Annotated[str, typer.Option(metavar="NAME", help="Solve with this backend.")] = "auto",
    tol: arguments.Tolerance = 1e-6,
    time_limit: Annotated[
        float | None, typer.Option(metavar="S", help="Seconds at most, for each model.")
    ] = None,
    as_json: arguments.AsJson = False,
) -> int:
    """Solve models with their default data and check their `expect` lines.

    Exit code 1 unless all pass; models that have no data of their own are named and left out.
    """
    limit = math.inf if time_limit is None else time_limit
    options = SolveOptions(backend=backend, tol=tol, time_limit=limit)
    rows = []
    for path in model_files(paths):
        row = _run(path, options)
        rows.append(row)
        if not as_json:
            _show(row)
    skipped = sum(row.skipped for row in rows)
    failed = sum(not row.passed and not row.skipped for row in rows)
    if as_json:
        found = [_as_dict(row) for row in rows]
        print_json({"models": found, "failed": failed, "skipped": skipped})
    else:
        without = f", {skipped} without data" if skipped else ""
        print(f"\n{len(rows) - failed - skipped} of {len(rows)} passed{without}")
    return UNSOLVED if failed else DONE


def _run(path: str, options: SolveOptions) -> Row:
    """Solve one model; whatever is wrong with it becomes its row."""
    began = time.perf_counter()
    try:
        model = load(path, None, None)
        from bilevelpy.expectations import outcomes
        from bilevelpy.solving import Request, run

        result = run(model, options, Request(progress=False), began)
    except BilevelError as error:
        found = error.diagnostics if isinstance(error, ModelError) else []
        first = found[0].message if found else str(error)
        unbound = bool(found) and all(d.code in _UNBOUND for d in found)
        return Row(
            str(path),
            NO_DATA if unbound else "refused",
            time.perf_counter() - began,
            (),
            first.splitlines()[0],
        )
    except Exception as error:  # a fault of ours in one model must not hide the others
        message = f"internal error: {type(error).__name__}: {error}"
        return Row(path, "failed", time.perf_counter() - began, (), message)
    message = "" if result.success else result.message
    checked = outcomes(model.bound, result)
    return Row(path, result.status.value, time.perf_counter() - began, checked, message)


def _show(row: Row) -> None:
    """A line for the model, and one for everything that is wrong with it."""
    count = len(row.outcomes)
    expectations = f"{count} expectation{'' if count == 1 else 's'}" if count else "no expectations"
    verdict = "skip" if row.skipped else "pass" if row.passed else "FAIL"
    print(f"{verdict}  {row.model}  {row.status}, {expectations}, {row.seconds:.2f} s", flush=True)
    if row.message:
        print(f"      {row.message}")
    for outcome in row.outcomes:
        if not outcome.passed:
            print(f"      {outcome.text}  found {outcome.found:.10g}")


def _as_dict(row: Row) -> dict[str, object]:
    """A row in JSON types."""
    found = [{**asdict(o), "passed": o.passed} for o in row.outcomes]
    return {
        "model": row.model,
        "status": row.status,
        "passed": row.passed,
        "seconds": row.seconds,
        "expectations": found,
        "message": row.message,
    }
