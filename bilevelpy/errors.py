"""The exceptions of the package.

::

    BilevelError
    ├── ModelError      the text of a model is wrong; carries every diagnostic
    │   └── DataError   the model is right, the data bound to it is not
    ├── BackendError    a backend failed or refuses the model
    │   └── MissingEngine  the package that it works with is not installed
    ├── ExportError     a format cannot express the model
    ├── UsageError      a wrong option, name or argument of the API or the command line
    └── NotConverged    raised by ``Result.raise_for_status()`` only
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bilevelpy.diagnostics import Diagnostic, Source


class BilevelError(Exception):
    """Base of every exception that bilevelpy raises on purpose."""


class ModelError(BilevelError):
    """The model is wrong; ``diagnostics`` lists every error, ``sources`` holds the texts they point
    at.
    """

    def __init__(
        self, diagnostics: Sequence[Diagnostic], sources: Mapping[str, Source] | None = None
    ) -> None:
        self.diagnostics = list(diagnostics)
        self.sources = dict(sources or {})
        super().__init__(self.render())

    def render(self) -> str:
        """All diagnostics as plain text, in full form."""
        from bilevelpy.diagnostics.render import render_full

        return "\n".join(render_full(d, self.sources) for d in self.diagnostics)

    def _render_traceback_(self) -> list[str]:
        # IPython shows this instead of a Python traceback: the error is in the model, not in the
        # caller.
        return self.render().splitlines()


class DataError(ModelError):
    """The data does not fit: missing names, wrong shapes, NaN, values outside a domain."""


class BackendError(BilevelError):
    """A backend failed, or was asked for a model that it does not accept: ``reason`` is why, in a
    few words.
    """

    def __init__(self, message: str = "", reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class MissingEngine(BackendError):
    """A backend works with a package that is not installed; the message names it."""


class ExportError(BilevelError):
    """A target format cannot express the model."""


class UsageError(BilevelError):
    """An unknown option, backend or name, or a value out of range."""


class NotConverged(BilevelError):
    """The result carries no certificate; raised by ``Result.raise_for_status()``."""
