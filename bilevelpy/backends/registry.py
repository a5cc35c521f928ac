"""Backends by name: the built-in ones, imported on first use, and plugins of the group
``bilevelpy.backends``.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bilevelpy.backends.base import Backend
from bilevelpy.errors import BackendError, UsageError
from bilevelpy.options import did_you_mean
from bilevelpy.system.garbage import undisturbed

GROUP = "bilevelpy.backends"

# name -> "module:class"
BUILTIN = {
    "direct": "bilevelpy.backends.implicit.direct:Direct",
    "aid": "bilevelpy.backends.implicit.aid:AID",
    "qnbo": "bilevelpy.backends.implicit.qnbo:QNBO",
    "nbo": "bilevelpy.backends.implicit.nbo:NBO",
    "itd": "bilevelpy.backends.unrolled.itd:ITD",
    "bagdc": "bilevelpy.backends.implicit.bagdc:BAGDC",
    "pzobo": "bilevelpy.backends.zeroth_order.pzobo:PZOBO",
    "f2ba": "bilevelpy.backends.value_function.f2ba:F2BA",
    "pbgd": "bilevelpy.backends.value_function.pbgd:PBGD",
    "bome": "bilevelpy.backends.value_function.bome:BOME",
    "meha": "bilevelpy.backends.value_function.meha:MEHA",
    "bda": "bilevelpy.backends.unrolled.bda:BDA",
    "slbamm": "bilevelpy.backends.implicit.slbamm:SLBAMM",
    "bvfsm": "bilevelpy.backends.value_function.bvfsm:BVFSM",
    "zo": "bilevelpy.backends.zeroth_order.zo:ZO",
    "kkt": "bilevelpy.backends.constrained.kkt:KKT",
    "blocc": "bilevelpy.backends.constrained.blocc:BLOCC",
    "gaffa": "bilevelpy.backends.constrained.gaffa:GAFFA",
    "lvhba": "bilevelpy.backends.constrained.lvhba:LVHBA",
    "exact": "bilevelpy.backends.exact.backend:Exact",
    "nlp": "bilevelpy.backends.nlp.backend:NLP",
    "conic": "bilevelpy.backends.constrained.conic:Conic",
    "saba": "bilevelpy.backends.stochastic.saba:SABA",
    "srba": "bilevelpy.backends.stochastic.srba:SRBA",
    "soba": "bilevelpy.backends.stochastic.soba:SOBA",
    "ma_soba": "bilevelpy.backends.stochastic.ma_soba:MASOBA",
    "fsla": "bilevelpy.backends.stochastic.fsla:FSLA",
    "amigo_sgd": "bilevelpy.backends.stochastic.amigo_sgd:AmIGOSGD",
    "stocbio": "bilevelpy.backends.stochastic.stocbio:StocBiO",
    "nsbo": "bilevelpy.backends.stochastic.nsbo:NSBO",
    "f2sa": "bilevelpy.backends.stochastic.f2sa:F2SA",
    "fdehbo": "bilevelpy.backends.stochastic.fdehbo:FdeHBO",
    "pzobo_s": "bilevelpy.backends.stochastic.pzobo_s:PZOBOS",
}


@cache
def _plugins() -> dict[str, EntryPoint]:
    """Entry points by name; two of one name, or one of a built-in's, are an error."""
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = BUILTIN.get(point.name) or (
            found[point.name].value if point.name in found else None
        )
        if other is not None and other != point.value:
            raise BackendError(
                f"backend `{point.name}` is defined twice: by {other} and by {_origin(point)}"
            )
        found[point.name] = point
    return found


def _origin(point: EntryPoint) -> str:
    package = point.dist.name if point.dist is not None else "an unknown package"
    return f"{point.value} of package {package}"


def names() -> list[str]:
    """All backends that can be named, built-in ones first."""
    return [*BUILTIN, *sorted(n for n in _plugins() if n not in BUILTIN)]


@cache
def _builtin(name: str) -> Backend[Any]:
    module, _, attribute = BUILTIN[name].partition(":")
    with undisturbed():
        made: Backend[Any] = getattr(import_module(module), attribute)()
    return made


@cache
def _plugin(name: str) -> Backend[Any] | None:
    """Load a plugin; a broken one is a warning that names it, and None."""
    point = _plugins()[name]
    try:
        loaded = point.load()
        made: Backend[Any] = loaded() if isinstance(loaded, type) else loaded
        for attribute in ("name", "title", "options", "accepts", "init", "step", "measure"):
            getattr(made, attribute)
    except Exception as error:
        message = (
            f"backend `{name}` ({_origin(point)}) cannot be loaded: {type(error).__name__}: {error}"
        )
        warnings.warn(message, RuntimeWarning, stacklevel=3)
        return None
    return made


def get(name: str) -> Backend[Any]:
    """The backend of that name.

    Raises
    ------
    UsageError
        Where there is none; the message lists what there is.
    BackendError
        Where it is a plugin that cannot be loaded.
    """
    if name in BUILTIN:
        return _builtin(name)
    if name in _plugins():
        found = _plugin(name)
        if found is None:
            raise BackendError(f"backend `{name}` cannot be loaded (see the warning before)")
        return found
    known = names()
    raise UsageError(
        f"no backend is called `{name}`{did_you_mean(name, known)}; there are: {', '.join(known)}"
    )


def all_backends() -> list[Backend[Any]]:
    """Every backend that loads, in the order of :func:`names`."""
    found = [_builtin(n) if n in BUILTIN else _plugin(n) for n in names()]
    return [b for b in found if b is not None]
