"""``bilevelpy import``: models of other systems as text of this language."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bilevelpy import storage
from bilevelpy.cli.console import print_diagnostics, say
from bilevelpy.cli.guard import DONE
from bilevelpy.errors import UsageError


def import_model(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="MPS or LP and AUX, canonical JSON, or records."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL.blv", help="The model to write.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The problem of a collection.")
    ] = None,
) -> int:
    """Write a model of another system as a model file."""
    from bilevelpy.diagnostics import Source
    from bilevelpy.importers.read import read_bound, read_text
    from bilevelpy.model import Given, build

    aux = [f for f in files if f.suffix.lower() == ".aux"]
    others = [f for f in files if f not in aux]
    if len(others) != 1 or len(aux) > 1:
        raise UsageError("import takes one file, or an MPS or LP file and its AUX file")
    if out.suffix.lower() != ".blv":
        raise UsageError(f"import writes a .blv file, not `{out.name}`")
    bound = read_bound(others[0], {})
    if bound is not None:
        from bilevelpy.importers.unbind import texts

        text, values = texts(bound)
        if values:
            beside = out.with_suffix(".data.json")
            storage.write_json(beside, values)
            print(beside)
    else:
        text = read_text(others[0], aux[0] if aux else None, name)
        # What is written must be a model: a fault here is told before there is a file.
        model = build(Source(str(out), text), Given())
        print_diagnostics(model.warnings, model.sources, sys.stderr)
    storage.write_text(out, text)
    print(out)
    if bound is not None and values:
        say(f"solve it with: bilevelpy solve {out} --data {beside}")
    return DONE
