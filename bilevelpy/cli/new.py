"""``bilevelpy new``: a commented model to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bilevelpy.cli.console import say
from bilevelpy.cli.guard import DONE
from bilevelpy.cli.templates import TEMPLATES
from bilevelpy.errors import UsageError
from bilevelpy.options import did_you_mean
from bilevelpy.system import storage


def new(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The model's name; NAME.blv is written.")
    ],
    template: Annotated[
        str, typer.Option("--template", "-t", metavar="T", help=f"One of {', '.join(TEMPLATES)}.")
    ] = "toy",
) -> int:
    """Write a commented model that runs as it is; an existing file is never overwritten."""
    from bilevelpy.syntax.tokens import KEYWORDS

    path = Path(name if name.endswith(".blv") else f"{name}.blv")
    word = path.stem
    if not (word.isascii() and word.isidentifier()) or word in KEYWORDS:
        raise UsageError(
            f"a model's name is a word of letters, digits and `_` that is not reserved: `{word}`"
        )
    if template not in TEMPLATES:
        raise UsageError(
            f"there is no template `{template}`{did_you_mean(template, list(TEMPLATES))}; "
            f"there are: {', '.join(TEMPLATES)}"
        )
    if path.exists():
        raise UsageError(f"{path} exists already")
    title = path.stem.replace("_", " ").capitalize()
    storage.write_text(path, TEMPLATES[template].format(name=path.stem, title=title))
    say(f"written: {path}\nnext: bilevelpy solve {path}")
    return DONE
