"""``bilevelpy import``: models of other systems as text of this language."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from bilevelpy.cli.console import print_diagnostics, say
from bilevelpy.cli.guard import DONE
from bilevelpy.errors import UsageError
from bilevelpy.system import storage

# Values of an array that JSON holds at most; larger ones go into a .npz file.
INLINE = 5_000


def import_model(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="MPS or LP and AUX, canonical JSON, AMPL, or records."),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="MODEL.blv", help="The model to write.")],
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="The problem of a collection.")
    ] = None,
) -> int:
    """Write a model of another system as a model file."""
    from bilevelpy.diagnostics import Source
    from bilevelpy.importers.read import read_bound, read_text
    from bilevelpy.ir.serial import digest
    from bilevelpy.model import Given, build

    aux = [f for f in files if f.suffix.lower() == ".aux"]
    others = [f for f in files if f not in aux]
    if len(others) != 1 or len(aux) > 1:
        raise UsageError("import takes one file, or an MPS or LP file and its AUX file")
    if out.suffix.lower() != ".blv":
        raise UsageError(f"import writes a .blv file, not `{out.name}`")
    bound = read_bound(others[0], {})
    beside: list[Path] = []
    if bound is not None:
        from bilevelpy.importers.unbind import texts

        text, values = texts(bound)
        again = build(Source(str(out), text), Given(data=values))
        if digest(again.bound) != digest(bound):
            raise UsageError(f"cannot import {others[0]}: its text does not give the model in it")
        for path in _write_data(out, values):
            beside.append(path)
            print(path)
    else:
        text = read_text(others[0], aux[0] if aux else None, name)
        # What is written must be a model: a fault here is told before there is a file.
        model = build(Source(str(out), text), Given())
        print_diagnostics(model.warnings, model.sources, sys.stderr)
    storage.write_text(out, text)
    print(out)
    if beside:
        options = " ".join(f"--data {path}" for path in beside)
        say(f"solve it with: bilevelpy solve {out} {options}")
    return DONE


def _write_data(out: Path, values: dict[str, Any]) -> list[Path]:
    """The data of a model beside its text: large arrays in a ``.npz`` file, the rest as JSON."""
    import numpy as np

    large = {n: v for n, v in values.items() if isinstance(v, np.ndarray) and v.size > INLINE}
    small = {n: v for n, v in values.items() if n not in large}
    written: list[Path] = []
    if large:
        written.append(out.with_suffix(".data.npz"))
        storage.write_atomically(
            written[-1], lambda f: np.savez_compressed(f, allow_pickle=False, **large)
        )
    if small:
        written.append(out.with_suffix(".data.json"))
        storage.write_json(written[-1], small)
    return written
