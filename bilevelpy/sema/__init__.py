"""Meaning: syntax trees to checked programs, with every error of a file at once."""

from bilevelpy.sema.check import CheckResult, check

__all__ = ["CheckResult", "check"]
