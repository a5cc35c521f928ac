"""The Typer application: commands and where they live, nothing else."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bilevelpy import __version__
from bilevelpy.cli import (
    backends,
    certify,
    check,
    compare,
    explain,
    export,
    fmt,
    import_,
    lsp,
    new,
    report,
    solve,
    sweep,
    test,
)
from bilevelpy.cli.console import say
from bilevelpy.cli.guard import INTERRUPTED, guarded
from bilevelpy.system.garbage import wait_until_loaded

app = typer.Typer(
    name="bilevelpy",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # help without rich: its import takes longer than the rest
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"bilevelpy {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Bilevel optimization from a model file to a certified answer.

    Exit codes: 0 done; 1 no solution certified, or problems found; 2 the model, its data or the
    command line is wrong, or no backend takes the model; 130 interrupted.
    """


app.command("solve")(guarded(solve.solve, shared=True))
app.command("certify")(guarded(certify.certify))
app.command("check")(guarded(check.check))
app.command("explain")(guarded(explain.explain))
app.command("compare")(guarded(compare.compare))
app.command("sweep")(guarded(sweep.sweep))
app.command("fmt")(guarded(fmt.fmt))
app.command("test")(guarded(test.run_tests))
app.command("new")(guarded(new.new))
app.command("backends")(guarded(backends.backends))
app.command("export")(guarded(export.export))
app.command("import")(guarded(import_.import_model))
app.command("exporters")(guarded(export.exporters))
app.command("lsp")(guarded(lsp.lsp))
app.command("report")(guarded(report.report))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    # Streams that are closed from the start (`1>&-`) are None: nobody reads.
    sys.stdout, sys.stderr = (
        s if s is not None else Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        for s in (sys.stdout, sys.stderr)
    )
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character gets a substitute, not a crash.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if arguments is None:  # the process is ours alone
        wait_until_loaded()
        _own_output()
        if isinstance(sys.stderr, io.TextIOWrapper):
            words = sys.stderr
            sys.stderr = _Words(words.buffer, words.encoding, "replace", line_buffering=True)
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if given[:1] == ["check"] and len(given) > 1 and not any(a[:1] == "-" for a in given):
            # What hooks and editors run all the time: a parser of options, a sixth of the time
            # that a check takes, has nothing to do here.
            guarded(check.check)(given[1:])
        code = app(args=given, standalone_mode=True)
    except typer.Exit as leaving:
        if leaving.exit_code == INTERRUPTED:
            _forget()
        return leaving.exit_code
    except KeyboardInterrupt:
        return _cut_short()
    except SystemExit as leaving:
        # Typer's own end of an interruption, outside of a command: while options were read.
        if isinstance(getattr(leaving.__context__, "__cause__", None), KeyboardInterrupt):
            return _cut_short()
        if leaving.code == INTERRUPTED:
            _forget()
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return code if isinstance(code, int) else 0


def _own_output() -> None:
    """Standard output for results alone, by a descriptor of its own: what solvers print there
    themselves (HiGHS does, from C, whatever it is told) goes to standard error.
    """
    shown = sys.stdout
    try:
        if shown.fileno() != 1:
            return
        own = os.fdopen(
            os.dup(1), "w", 1 if shown.isatty() else -1, encoding=shown.encoding, errors="replace"
        )
        os.dup2(2, 1)
        sys.stdout = own
    except OSError:  # one of the two is closed
        return


class _Words(io.TextIOWrapper):
    """Standard error, whose reader may leave (``2>&1 | head``): a run and its files do not depend
    on that.
    """

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            return len(text)


def _cut_short() -> int:
    """One line, and the exit code of an interruption."""
    say("interrupted")
    _forget()
    return INTERRUPTED


def _forget() -> None:
    """Python remembers an interruption inside of ``exec`` of a text (dataclasses are made so), and
    ends by the signal whatever the exit code is; the next ``exec`` of one begins anew.
    """
    exec("")
