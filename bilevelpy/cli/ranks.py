"""Which process of a run this is, as ``torchrun`` tells it."""

from __future__ import annotations

import os


def world() -> int:
    """How many processes ``torchrun`` started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def rank() -> int:
    """The number of this one. Rank 0 solves and prints results."""
    return _number("RANK", 0) if world() > 1 else 0


def _number(variable: str, otherwise: int) -> int:
    try:
        return int(os.environ.get(variable, otherwise))
    except ValueError:
        return otherwise
