"""``bilevelpy fmt``: one layout for all models."""

from __future__ import annotations

import difflib
import sys
from typing import Annotated

import typer

from bilevelpy.cli.console import print_diagnostics, say
from bilevelpy.cli.guard import DONE, UNSOLVED, WRONG
from bilevelpy.cli.sources import model_files, refuse
from bilevelpy.errors import UsageError
from bilevelpy.system import storage


def fmt(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Model files, or directories of them.")
    ],
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit 1 if something would.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Change nothing; print what would.")] = False,
) -> int:
    """Format model files in place. There are no options of style; a file with errors stays as it
    is.
    """
    from bilevelpy.model import read_source
    from bilevelpy.syntax.format import format_source

    changed, broken = 0, 0
    unread: list[UsageError] = []
    for path in model_files(models, unread):
        try:
            source = read_source(path)
        except UsageError as error:  # must not keep the other files from being formatted
            unread.append(error)
            continue
        formatted = format_source(source.text, source.name)
        if formatted.text is None:
            print_diagnostics(formatted.diagnostics, {source.name: source}, sys.stderr)
            broken += 1
            continue
        if formatted.text == source.text:
            continue
        changed += 1
        if diff:
            _print_diff(path, source.text, formatted.text)
        if check:
            say(f"would reformat {path}")
        if not (check or diff):
            storage.write_text(path, formatted.text)
            say(f"reformatted {path}")
    refuse(unread)
    if broken:
        return WRONG
    return UNSOLVED if changed and check else DONE


def _print_diff(path: str, old: str, new: str) -> None:
    """A unified diff on standard output."""
    lines = difflib.unified_diff(
        old.splitlines(keepends=True),
        new.splitlines(keepends=True),
        f"{path} (now)",
        f"{path} (formatted)",
    )
    for line in lines:
        sys.stdout.write(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n")
