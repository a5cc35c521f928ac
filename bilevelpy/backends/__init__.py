"""Algorithms behind one protocol, one a file; :mod:`bilevelpy.backends.registry` finds them.

The package is callable: ``bilevelpy.backends()`` lists the names, while ``bilevelpy.backends.base``
is what the writer of a backend imports.
"""

from __future__ import annotations

import sys
from types import ModuleType


class _Package(ModuleType):
    """A module that can be called.

    Python binds a subpackage to its name in the parent, so that the public function of this name
    has to be the subpackage itself.
    """

    def __call__(self) -> list[str]:
        """The names of the installed backends."""
        from bilevelpy.backends import registry

        return registry.names()


sys.modules[__name__].__class__ = _Package
