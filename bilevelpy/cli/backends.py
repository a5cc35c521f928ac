"""``bilevelpy backends``: what there is."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_entry, print_json
from bilevelpy.cli.guard import DONE


def backends(
    model: Annotated[
        str | None, typer.Argument(metavar="MODEL|NAME", help="A model, or one of the methods.")
    ] = None,
    data: arguments.Data = None,
    param: arguments.Param = None,
    as_json: arguments.AsJson = False,
) -> int:
    """List the solution methods, a line each; for a model, which accept it and why the others do
    not; for a method, its options with their defaults.
    """
    from bilevelpy.backends import registry

    found = {name: registry.get(name) for name in registry.names()}
    verdicts: dict[str, str] = {}
    options: dict[str, Any] = {}
    if model in found:
        found = {model: found[model]}
        # The tolerance is that of `--tol`.
        options = {f.name: f.default for f in fields(found[model].options) if f.name != "tol"}
    elif model is not None:
        from bilevelpy import api
        from bilevelpy.cli.sources import load

        structure = api.analyze(load(model, data, param))
        for name, backend in found.items():
            answer = backend.accepts(structure)
            verdicts[name] = f"accepts: {answer.reason}" if answer else f"rejects: {answer.reason}"
    if as_json:
        rows: dict[str, dict[str, Any]] = {
            n: {"title": b.title, "reference": b.reference, "verdict": verdicts.get(n)}
            for n, b in found.items()
        }
        if model in rows:
            rows[model]["options"] = options
        print_json({"backends": rows})
        return DONE
    for name, backend in found.items():
        print_entry(name, max(map(len, found)), f"{backend.title} [{backend.reference}]")
        if name in verdicts:
            print_entry("", max(map(len, found)), verdicts[name])
    if options:
        listed = ", ".join(f"{option} = {value}" for option, value in options.items())
        print_entry("", max(map(len, found)), f"options: {listed}")
    return DONE
