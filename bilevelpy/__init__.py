"""bilevelpy: a modelling language for bilevel optimization.

The public names below are loaded when they are first used, so that ``import bilevelpy`` costs next
to nothing. Every other module of the package is private.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in `typing`, whose import would cost more than all the rest

__version__ = "0.1.0"

# name -> module that defines it; also the list of the public API (a test compares it with
# docs/api.md).
_HOME = {
    "load": "bilevelpy.loading",
    "parse": "bilevelpy.loading",
    "analyze": "bilevelpy.api",
    "dispatch": "bilevelpy.api",
    "compile": "bilevelpy.api",
    "solve": "bilevelpy.api",
    "certify": "bilevelpy.api",
    "compare": "bilevelpy.studies.api",
    "sweep": "bilevelpy.studies.api",
    "export": "bilevelpy.api",
    "read": "bilevelpy.loading",
    "load_result": "bilevelpy.records.saved",
    "Comparison": "bilevelpy.studies.comparison",
    "Sweep": "bilevelpy.studies.sweeping",
    "Model": "bilevelpy.model",
    "Oracle": "bilevelpy.compiled",
    "Result": "bilevelpy.result",
    "Certificate": "bilevelpy.result",
    "Record": "bilevelpy.result",
    "Status": "bilevelpy.result",
    "Structure": "bilevelpy.analysis.structure",
    "Decision": "bilevelpy.dispatcher",
    "BilevelError": "bilevelpy.errors",
    "ModelError": "bilevelpy.errors",
    "DataError": "bilevelpy.errors",
    "BackendError": "bilevelpy.errors",
    "ExportError": "bilevelpy.errors",
    "UsageError": "bilevelpy.errors",
    "NotConverged": "bilevelpy.errors",
}

__all__ = [  # noqa: RUF022 - in the order of docs/api.md
    "load",
    "parse",
    "analyze",
    "dispatch",
    "compile",
    "solve",
    "certify",
    "compare",
    "sweep",
    "backends",
    "exporters",
    "export",
    "read",
    "load_result",
    "Comparison",
    "Sweep",
    "Model",
    "Oracle",
    "Result",
    "Certificate",
    "Record",
    "Status",
    "Structure",
    "Decision",
    "BilevelError",
    "ModelError",
    "DataError",
    "BackendError",
    "ExportError",
    "UsageError",
    "NotConverged",
    "__version__",
]

if TYPE_CHECKING:
    from typing import Any

    from bilevelpy.analysis.structure import Structure
    from bilevelpy.api import analyze, certify, compile, dispatch, export, solve
    from bilevelpy.compiled import Oracle
    from bilevelpy.dispatcher import Decision
    from bilevelpy.errors import (
        BackendError,
        BilevelError,
        DataError,
        ExportError,
        ModelError,
        NotConverged,
        UsageError,
    )
    from bilevelpy.loading import load, parse, read
    from bilevelpy.model import Model
    from bilevelpy.records.saved import load_result
    from bilevelpy.result import Certificate, Record, Result, Status
    from bilevelpy.studies.api import compare, sweep
    from bilevelpy.studies.comparison import Comparison
    from bilevelpy.studies.sweeping import Sweep

    def backends() -> list[str]:
        """List the names of the installed backends."""

    def exporters() -> list[str]:
        """List the names of the installed exporters."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in ("backends", "exporters"):  # packages that can be called, see there
        return importlib.import_module(f"bilevelpy.{name}")
    # Not of the API: `%load_ext bilevelpy` looks for it here.
    home = "bilevelpy.notebook" if name == "load_ipython_extension" else _HOME.get(name)
    if home is None:
        raise AttributeError(f"module 'bilevelpy' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
