"""Names that a format allows: close to the model's, unique, and never longer than it takes."""

from __future__ import annotations

import re
from collections.abc import Iterable


class Namer:
    """Gives every name of a model one of a format.

    Parameters
    ----------
    allowed
        Characters that may stand anywhere, as the inside of a regular-expression class.
    first
        Characters that may stand first (the same by default); others get a letter in front.
    limit
        Longest name.
    reserved
        Words that name something in the format.
    fold
        Whether the format does not tell upper from lower case.
    """

    def __init__(
        self,
        allowed: str,
        first: str | None = None,
        *,
        limit: int = 255,
        reserved: Iterable[str] = (),
        fold: bool = False,
        brackets: tuple[str, str] = ("(", ")"),
    ) -> None:
        self._other = re.compile(f"[^{allowed}]")
        self._first = re.compile(f"[{first or allowed}]")
        self._limit = limit
        self._fold = fold
        self._brackets = brackets
        self._taken = {self._key(word) for word in reserved}

    def name(self, text: str) -> str:
        """A name for ``text``; a second call with the same text gives another one."""
        opened = text.replace("[", self._brackets[0]).replace("]", self._brackets[1])
        made = self._other.sub("_", opened)
        if not made or not self._first.match(made[0]):
            made = f"n_{made}"
        made = made[: self._limit]
        number = 1
        unique = made
        while self._key(unique) in self._taken:
            number += 1
            tail = f"_{number}"
            unique = made[: self._limit - len(tail)] + tail
        self._taken.add(self._key(unique))
        return unique

    def names(self, texts: Iterable[str]) -> tuple[str, ...]:
        """A name for each."""
        return tuple(self.name(t) for t in texts)

    def _key(self, word: str) -> str:
        return word.lower() if self._fold else word


def identifiers(reserved: Iterable[str] = (), *, fold: bool = False, limit: int = 255) -> Namer:
    """Names of letters, digits and underscores: ``w[3]`` becomes ``w_3``."""
    return Namer(
        "A-Za-z0-9_", "A-Za-z", limit=limit, reserved=reserved, fold=fold, brackets=("_", "")
    )


def differing(originals: Iterable[str], names: Iterable[str]) -> list[tuple[str, str]]:
    """(name in the file, name in the model) where they differ."""
    return [(n, o) for o, n in zip(originals, names, strict=True) if o != n]


def printable(name: str) -> str:
    """A name that cannot leave its line."""
    return "".join(c if c.isprintable() else " " for c in name)


def number(value: float) -> str:
    """A number with all its digits, without a trailing ``.0``."""
    text = repr(float(value))
    return text[:-2] if text.endswith(".0") else text
