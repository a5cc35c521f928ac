"""``bilevelpy export`` and ``bilevelpy exporters``: models for other systems."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_json, say
from bilevelpy.cli.guard import DONE, UNSOLVED
from bilevelpy.cli.sources import load
from bilevelpy.errors import UsageError


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
            help="reformulation=sos1|indicators|big-m, dual_bound, epsilon, force.",
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

    exporter = registry.get(to)
    options = Options.of(arguments.options(option))
    bound = load(model, data, param).bound
    written, files = write(bound, to, out, options)
    for text in files.warnings:
        say(f"warning: {text}")
    report = None
    if verify:
        from bilevelpy.exporters.verify import verify as check

        report = check(bound, to, written[-1])
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
        print(f"{name.ljust(width)}  {exporter.title}")
    return DONE
