"""Meaning: syntax trees to checked programs, with every error of a file at once.

``check`` is the entry: ``include`` joins files, ``collect`` finds declarations, ``order`` sorts
them, ``declare`` and ``levels`` elaborate them, ``warnings`` looks at the result. ``expressions``
become IR on the ``values`` and ``scope`` that all of them share. ``bind`` gives a program its data.
"""

from bilevelpy.sema.check import CheckResult, check

__all__ = ["CheckResult", "check"]
