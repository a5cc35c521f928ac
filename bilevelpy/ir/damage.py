"""What is wrong with a document that no program can be made of, in words of our own."""

from __future__ import annotations


class Damage(ValueError):
    """What a document says that cannot be."""


def told(error: Exception) -> str:
    """An exception of reading as a phrase; Python's words about its own types help nobody."""
    if isinstance(error, Damage):
        return str(error)
    if isinstance(error, KeyError):
        return f"an entry has no `{error.args[0]}`"
    if isinstance(error, RecursionError):
        return "its expressions are nested too deeply"
    return "a value is not of the kind that belongs there"
