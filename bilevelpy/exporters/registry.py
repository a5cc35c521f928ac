"""Exporters by name: the built-in ones, imported on first use, and plugins of the group
``bilevelpy.exporters``.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points

from bilevelpy.errors import ExportError, UsageError
from bilevelpy.exporters.base import Exporter
from bilevelpy.options import did_you_mean

GROUP = "bilevelpy.exporters"

# name -> "module:class"
BUILTIN = {
    "json": "bilevelpy.exporters.canonical_json:CanonicalJson",
    "mps-aux": "bilevelpy.exporters.matrices.mps_aux:MpsAux",
    "lp": "bilevelpy.exporters.matrices.lp:Lp",
    "mps": "bilevelpy.exporters.matrices.mps:Mps",
    "pyomo": "bilevelpy.exporters.python.pyomo_script:PyomoScript",
    "nl": "bilevelpy.exporters.nl:Nl",
    "gams-emp": "bilevelpy.exporters.languages.gams_emp:GamsEmp",
    "gams-mpec": "bilevelpy.exporters.languages.gams:GamsMpec",
    "ampl": "bilevelpy.exporters.languages.ampl:Ampl",
    "cvxpy": "bilevelpy.exporters.python.cvxpy_script:CvxpyScript",
    "blvpy": "bilevelpy.exporters.python.blvpy_script:BlvpyScript",
    "casadi": "bilevelpy.exporters.python.casadi_script:CasadiScript",
    "sympy": "bilevelpy.exporters.python.sympy_script:SympyScript",
    "blv": "bilevelpy.exporters.blv:Blv",
    "bileveljump": "bilevelpy.exporters.languages.bileveljump:BilevelJump",
    "torch": "bilevelpy.exporters.graphs.torch_graph:TorchGraph",
    "onnx": "bilevelpy.exporters.graphs.onnx_graph:OnnxGraph",
    "latex": "bilevelpy.exporters.latex.model:Latex",
}


@cache
def _plugins() -> dict[str, EntryPoint]:
    """Entry points by name; two of one name, or one of a built-in's, are an error."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in BUILTIN or point.name in found:
            other = BUILTIN.get(point.name) or found[point.name].value
            package = point.dist.name if point.dist is not None else "an unknown package"
            raise ExportError(
                f"exporter `{point.name}` is defined twice: by {other} and by {point.value} "
                f"of package {package}"
            )
        found[point.name] = point
    return found


def names() -> list[str]:
    """All exporters that can be named, built-in ones first."""
    return [*BUILTIN, *sorted(_plugins())]


@cache
def _load(name: str) -> Exporter | None:
    if name in BUILTIN:
        module, _, attribute = BUILTIN[name].partition(":")
        made: Exporter = getattr(import_module(module), attribute)()
        return made
    try:
        loaded = _plugins()[name].load()
        made = loaded() if isinstance(loaded, type) else loaded
        for attribute in ("name", "title", "suffix", "consumer", "export"):
            getattr(made, attribute)
    except Exception as error:
        warnings.warn(
            f"exporter `{name}` cannot be loaded: {type(error).__name__}: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return None
    return made


def get(name: str) -> Exporter:
    """The exporter of that name.

    Raises
    ------
    UsageError
        Where there is none; the message lists what there is.
    ExportError
        Where it is a plugin that cannot be loaded.
    """
    known = names()
    if name not in known:
        raise UsageError(
            f"no exporter is called `{name}`{did_you_mean(name, known)}; "
            f"there are: {', '.join(known)}"
        )
    found = _load(name)
    if found is None:
        raise ExportError(f"exporter `{name}` cannot be loaded (see the warning before)")
    return found
