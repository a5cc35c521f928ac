"""``bilevelpy export`` and ``bilevelpy exporters``: models for other systems."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_entry, print_json, say
from bilevelpy.cli.guard import DONE, UNSOLVED
from bilevelpy.cli.sources import load
from bilevelpy.errors import UsageError

if TYPE_CHECKING:
    from bilevelpy.exporters.verify import Report
    from bilevelpy.model import Model

OURS = 60.0
"""Seconds for our own optimum, which a consumer's is compared with."""
# Values of F that differ by less than this, relative to 1 + |F|, are the same.
AGREEMENT = 1e-4


def export(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="A model file.")] = None,
    to: Annotated[
        str | None, typer.Option("--to", metavar="FORMAT", help="One of `bilevelpy exporters`.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write.")
    ] = None,
    data: arguments.Data = None,
    param: arguments.Param = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="KEY=VALUE",
            help="reformulation=sos1|indicators|big-m|strong-duality|products, dual_bound, "
            "epsilon, force.",
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Run a consumer and check its answer.")
    ] = False,
    listing: Annotated[bool, typer.Option("--list", help="List the formats.")] = False,
    as_json: arguments.AsJson = False,
) -> int:
    """Write a model for another system."""
    if listing:
        return exporters(as_json=as_json)
    if model is None or to is None or out is None:
        raise UsageError("export takes MODEL --to FORMAT --out FILE; `export --list` shows formats")
    from bilevelpy.exporters import registry
    from bilevelpy.exporters.base import Options
    from bilevelpy.exporters.write import export as write
    from bilevelpy.system.garbage import imports_done

    imports_done()
    exporter = registry.get(to)
    options = Options.of(arguments.options(option))
    loaded = load(model, data, param)
    bound = loaded.bound
    written, files = write(bound, to, out, options)
    for text in files.warnings:
        say(f"warning: {text}")
    report = None
    if verify:
        from bilevelpy.exporters.verify import verify as check

        report = compared(loaded, check(bound, to, written[-1]))
    if as_json:
        found = None if report is None else report.as_dict()
        print_json({"files": written, "warnings": files.warnings, "verified": found})
    else:
        for path in written:
            print(path)
        say(f"read it with: {exporter.consumer.format(file=out, stem=out.with_suffix(''))}")
        if report is not None:
            say(report.message)
    return DONE if report is None or report.passed is not False else UNSOLVED


def compared(model: Model, report: Report) -> Report:
    """A consumer's optimum beside ours, where there is one."""
    if report.F is None or report.passed is not True:
        return report
    from dataclasses import replace

    from bilevelpy import api

    if not model.program.lowers:
        # Our methods are for followers; the file was checked against the model at its point.
        return replace(report, message=f"{report.message}; ours: none for a model of one level")
    ours = api.solve(model, time_limit=OURS, progress=False)
    if not ours.success or ours.F is None:
        return replace(report, message=f"{report.message}; ours: {ours.status}, nothing to compare")
    better = float(ours.F - report.F) * (-1 if model.program.upper.sense == "maximize" else 1)
    told = f"{report.message}; ours: F = {ours.F:.9g} by `{ours.backend}`"
    if abs(better) <= AGREEMENT * (1 + abs(float(ours.F))):
        return replace(report, message=f"{told}, the same")
    if better > 0:
        return replace(report, message=f"{told}, theirs is better")
    if report.is_global:
        return replace(report, passed=False, message=f"{told}, which the file has lost")
    return replace(report, message=f"{told}; theirs is a local optimum")


def exporters(as_json: arguments.AsJson = False) -> int:
    """List the export formats, a line each."""
    from bilevelpy.exporters import registry

    found = {name: registry.get(name) for name in registry.names()}
    if as_json:
        rows = {
            n: {"title": e.title, "suffix": e.suffix, "consumer": e.consumer}
            for n, e in found.items()
        }
        print_json({"exporters": rows})
        return DONE
    width = max(len(n) for n in found)
    for name, exporter in found.items():
        print_entry(name, width, exporter.title)
    return DONE
