"""Models in the formats of other systems, one target a file.

Targets are the modules that ``registry`` names, by kinds in folders: ``matrices``, ``languages``,
``python``, ``graphs``, ``latex``. ``*_loops`` and ``*_tables`` hold what a target writes of large
models. Shared: ``parts`` and ``conditions`` (what a text consists of), ``families``
and ``loops`` (rows of one shape), ``expressions``, ``naming``, ``header``; ``write`` puts files on
the disk, ``verify`` and ``consumers`` read them back.

The package is callable: ``bilevelpy.exporters()`` lists the names, while
``bilevelpy.exporters.base`` is what the writer of an exporter imports.
"""

from __future__ import annotations

import sys
from types import ModuleType


class _Package(ModuleType):
    """A module that can be called: see :mod:`bilevelpy.backends`."""

    def __call__(self) -> list[str]:
        """The names of the installed exporters."""
        from bilevelpy.exporters import registry

        return registry.names()


sys.modules[__name__].__class__ = _Package
