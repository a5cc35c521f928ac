"""From exceptions to messages and exit codes: no user error ends in a Python traceback."""

from __future__ import annotations

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import ParamSpec

import typer

from bilevelpy.cli.console import complain, print_diagnostics, print_json, say
from bilevelpy.cli.ranks import rank
from bilevelpy.errors import BilevelError, ModelError

DONE, UNSOLVED, WRONG, INTERRUPTED = 0, 1, 2, 130

P = ParamSpec("P")


def guarded(command: Callable[P, int], *, shared: bool = False) -> Callable[P, None]:
    """Run ``command`` and leave with the exit code that it returns, or with that of its exception.

    A command that was asked for ``--json`` prints its errors as one object too. Of the processes of
    ``torchrun`` rank 0 alone runs it, unless it is ``shared`` among them.
    """

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        if rank() and not shared:  # else every answer is printed, and every file written, twice
            raise typer.Exit(DONE)
        try:
            code = command(*args, **kwargs)
            if not sys.stdout.closed:  # a server closes what it has answered through
                sys.stdout.flush()
        except BrokenPipeError:
            code = _quiet()
        except KeyboardInterrupt:
            say("interrupted")
            code = INTERRUPTED
        except BilevelError as error:
            _report(error, as_json=bool(kwargs.get("as_json")))
            code = WRONG
        except (typer.Exit, typer.Abort, typer.BadParameter):
            raise
        except (MemoryError, RecursionError) as error:
            complain(str(error) or f"{type(error).__name__}: the model or its data is too large")
            code = WRONG
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.ENOSPC:
                _quiet()  # what is still buffered cannot be written either
                complain("cannot write the output: no space left on the device")
            else:
                _internal(error)
            code = WRONG
        raise typer.Exit(code)

    return run


def _quiet() -> int:
    """Nobody reads any more (``bilevelpy ... | head``): say nothing, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return DONE


def _report(error: BilevelError, *, as_json: bool) -> None:
    """An error of the user's, on standard error, and as an object if that is what standard output
    is for.
    """
    if rank():  # what is wrong with the model every process says, what is wrong with one only it
        say(f"rank {rank()}:")
    found = error.diagnostics if isinstance(error, ModelError) else []
    sources = error.sources if isinstance(error, ModelError) else {}
    if found:
        print_diagnostics(found, sources, sys.stderr)
    elif str(error).startswith("error["):
        say(str(error))  # a refusal that shows its place in the model
    else:
        complain(str(error))
    if as_json and not rank():
        from bilevelpy.diagnostics.render import to_json

        message = found[0].message if found else str(error)
        diagnostics = [to_json(d, sources) for d in found]
        print_json({"error": type(error).__name__, "message": message, "diagnostics": diagnostics})


def _internal(error: Exception) -> None:
    """A mistake of ours: what happened and where, in two lines; the whole story on request."""
    if os.environ.get("BILEVELPY_TRACEBACK"):
        traceback.print_exception(error)
        return
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    complain(f"internal error: {type(error).__name__}: {error}{place}")
    say("  A fault of bilevelpy, please report it; BILEVELPY_TRACEBACK=1 shows where it happened.")
