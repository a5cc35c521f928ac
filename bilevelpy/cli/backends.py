"""``bilevelpy backends``: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_entry, print_json
from bilevelpy.cli.guard import DONE


def backends(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="Say which of them take this model.")
    ] = None,
    data: arguments.Data = None,
    param: arguments.Param = None,
    as_json: arguments.AsJson = False,
) -> int:
    """List the solution methods, a line each; for a model, which accept it and why the others do
    not.
    """
    from bilevelpy.backends import registry

    found = {name: registry.get(name) for name in registry.names()}
    verdicts: dict[str, str] = {}
    if model is not None:
        from bilevelpy import api
        from bilevelpy.cli.sources import load

        structure = api.analyze(load(model, data, param))
        for name, backend in found.items():
            answer = backend.accepts(structure)
            verdicts[name] = f"accepts: {answer.reason}" if answer else f"rejects: {answer.reason}"
    if as_json:
        rows = {
            n: {"title": b.title, "reference": b.reference, "verdict": verdicts.get(n)}
            for n, b in found.items()
        }
        print_json({"backends": rows})
        return DONE
    for name, backend in found.items():
        print_entry(name, max(map(len, found)), f"{backend.title} [{backend.reference}]")
        if name in verdicts:
            print_entry("", max(map(len, found)), verdicts[name])
    return DONE
