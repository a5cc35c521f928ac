"""``bilevelpy check``: every error of the models, without solving anything."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bilevelpy.cli import arguments
from bilevelpy.cli.console import print_diagnostics, print_json, say
from bilevelpy.cli.guard import DONE, UNSOLVED
from bilevelpy.cli.sources import model_files, refuse
from bilevelpy.errors import DataError, UsageError
from bilevelpy.system import storage

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Diagnostic, Fix, Source
    from bilevelpy.model import Given

# A fix may uncover another mistake; more rounds than this mean that fixes undo each other.
_ROUNDS = 10


class Format(StrEnum):
    """Forms of output."""

    FULL = "full"
    CONCISE = "concise"
    JSON = "json"
    GITHUB = "github"


def check(
    models: Annotated[
        list[str], typer.Argument(metavar="MODEL", help="Model files, or directories of them.")
    ],
    data: arguments.Data = None,
    param: arguments.Param = None,
    output: Annotated[
        Format, typer.Option("--format", help="How problems are shown.")
    ] = Format.FULL,
    fix: Annotated[
        bool, typer.Option("--fix", help="Apply the fixes that need no decision.")
    ] = False,
) -> int:
    """Report every error of the models; with data, check that it fits.

    Exit code 1 where there is an error; warnings alone exit 0. Files that cannot be read do not
    keep the others from being checked; the code is 2 then.
    """
    from bilevelpy.model import Given

    with_data = (
        Given(None, arguments.params(param), arguments.files(data)) if data or param else None
    )
    found: list[Diagnostic] = []
    sources: dict[str, Source] = {}
    unread: list[UsageError] = []
    read = 0
    for path in model_files(models, unread):
        try:
            if fix:
                _apply_fixes(path)
            diagnostics, texts = _check(path, with_data)
        except UsageError as error:  # must not hide what the other files hold
            unread.append(error)
            continue
        found += diagnostics
        sources |= texts
        read += 1
    if read:
        _show(found, sources, output)
    if output is Format.FULL and read and not found:
        say(f"{read} model{'s' if read > 1 else ''} checked, no problems")
    refuse(unread)
    return UNSOLVED if any(d.severity == "error" for d in found) else DONE


def _check(path: str, given: Given | None) -> tuple[Sequence[Diagnostic], Mapping[str, Source]]:
    """The diagnostics of one file, those of its data included."""
    from bilevelpy.model import bind_program, check_names, read_source
    from bilevelpy.sema import check as check_text

    result = check_text(read_source(path))
    found = list(result.diagnostics)
    if given is not None and result.program is not None:
        check_names(result.program, given.keywords)
        try:
            bind_program(result.program, given)
        except DataError as error:
            return [*found, *error.diagnostics], {**result.sources, **error.sources}
    return found, result.sources


def _show(found: Sequence[Diagnostic], sources: Mapping[str, Source], output: Format) -> None:
    """Print to standard output: for this command the diagnostics are the result."""
    from bilevelpy.diagnostics.render import render_concise, render_github, to_json

    if output is Format.FULL:
        print_diagnostics(found, sources, sys.stdout)
    elif output is Format.JSON:
        print_json({"diagnostics": [to_json(d, sources) for d in found]})
    else:
        render = render_concise if output is Format.CONCISE else render_github
        for diagnostic in found:
            print(render(diagnostic, sources))


def _apply_fixes(path: str) -> None:
    """Apply machine-applicable fixes until none is left."""
    from bilevelpy.model import read_source
    from bilevelpy.sema import check as check_text

    applied = 0
    for _ in range(_ROUNDS):
        source = read_source(path)
        if "\ufffd" in source.text:
            return  # not UTF-8: writing it back would change more than the mistake
        fixes = [
            d.fix
            for d in check_text(source).diagnostics
            if d.fix and d.fix.span.file == source.name
        ]
        text, count = _fixed(source.text, fixes)
        if not count:
            break
        applied += count
        storage.write_text(path, text)
    if applied:
        say(f"{Path(path)}: {applied} fix{'es' if applied > 1 else ''} applied")


def _fixed(text: str, fixes: Sequence[Fix]) -> tuple[str, int]:
    """``text`` with those fixes that do not overlap, from the end to the start so that offsets stay
    right.
    """
    count, limit = 0, len(text) + 1
    for fix in sorted(set(fixes), key=lambda f: (f.span.start, f.span.end), reverse=True):
        if fix.span.end <= limit and fix.span.start < limit:
            text = text[: fix.span.start] + fix.replacement + text[fix.span.end :]
            limit, count = fix.span.start, count + 1
    return text, count
