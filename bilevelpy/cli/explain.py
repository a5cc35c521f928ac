"""``bilevelpy explain``: the structure found and the backend chosen, or the page about a code."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_json
from bilevelpy.cli.guard import DONE
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.options import did_you_mean

if TYPE_CHECKING:
    from bilevelpy.ir.program import BoundProgram
    from bilevelpy.model import Model

_CODE = re.compile(r"(?:BLV)?(\d+)", re.IGNORECASE)


def explain(
    subject: Annotated[
        str, typer.Argument(metavar="MODEL|CODE", help="A model file, or a code such as BLV0301.")
    ],
    data: arguments.Data = None,
    param: arguments.Param = None,
    extern: arguments.ExternOption = None,
    backend: Annotated[str, typer.Option(metavar="NAME", help="Ask about this backend.")] = "auto",
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the points at which facts are observed.")
    ] = 0,
    as_json: arguments.AsJson = False,
) -> int:
    """Show what is known about a model, which backend is chosen and why; or what a diagnostic code
    means.
    """
    code = _CODE.fullmatch(subject)
    if code is not None:
        return _explain_code(f"BLV{code[1]}", as_json)
    from bilevelpy import analysis, api
    from bilevelpy.cli.sources import load

    model = load(subject, data, param, extern)
    structure = api.analyze(model, seed=seed)
    decision: Any = None
    refusal = ""
    try:
        decision = api.dispatch(structure, backend=backend)
    except BackendError as error:
        refusal = str(error)
    if as_json:
        chosen = (
            decision.to_json() if decision is not None else {"backend": None, "message": refusal}
        )
        print_json({**analysis.to_json(structure), "decision": chosen})
        return DONE
    from bilevelpy.backends import registry
    from bilevelpy.cli.tables import console, decision_table, structure_table
    from bilevelpy.lowering.programs.memory import memory_words
    from bilevelpy.system.garbage import imports_done

    imports_done()
    needs = registry.get(decision.chosen).cost(structure).memory if decision is not None else 0.0
    screen = console(errors=False)
    screen.print(structure_table(structure, full=True))
    screen.print()
    screen.print(decision_table(decision) if decision is not None else refusal, markup=False)
    screen.print(f"\nmemory: {memory_words(_evaluated(model), needs)}", markup=False)
    return DONE


def _evaluated(model: Model) -> BoundProgram:
    """The program that evaluations run: with statistics in the place of rows in files."""
    from bilevelpy.solving.facts import oracle

    try:
        return oracle(model).bound
    except BackendError:
        return model.bound


def _explain_code(code: str, as_json: bool) -> int:
    """The page about ``code``."""
    from bilevelpy.diagnostics import CATALOG

    entry = CATALOG.get(code)
    if entry is None:
        raise UsageError(f"there is no code {code}{did_you_mean(code, list(CATALOG))}")
    page = error_page(code)
    if as_json:
        print_json(
            {"code": code, "severity": entry.severity, "message": entry.template, "page": page}
        )
    else:
        print(page if page is not None else f"{entry.severity}[{code}]: {entry.template}")
    return DONE


def error_page(code: str) -> str | None:
    """The page about a diagnostic code (Markdown), or None where there is none."""
    name = f"{code}.md"
    packaged = files("bilevelpy") / "docs_errors" / name
    if packaged.is_file():
        return packaged.read_text(encoding="utf-8")
    # An editable install and a checkout have the pages where they are edited.
    page = Path(__file__).parents[2] / "docs" / "errors" / name
    return page.read_text(encoding="utf-8") if page.is_file() else None
