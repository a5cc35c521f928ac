"""Which two factors of a sum of products are summed next, as the factors become fewer."""

from __future__ import annotations

import heapq
from bisect import insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Set
from itertools import count
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bilevelpy.ir.expr import Expr

Labels = tuple[int, ...]
Factor = tuple["Expr", Labels]
Group = frozenset[int]
Cost = tuple[int, int, int]


class Contraction:
    """Factors in the order of their keys, and the pair of them with the smallest result.

    What a pair costs depends on its labels alone, so factors with the same labels are one group,
    and groups that share a summed label wait in a heap. A text of one line can multiply thousands
    of factors: trying all pairs at every step would never end. Costs only fall while factors
    become fewer, and where one does the pair is put into the heap again.
    """

    def __init__(self, factors: Iterable[tuple[Any, Factor]], keep: Set[int]) -> None:
        self._keep = keep
        self._carriers: Counter[int] = Counter()
        self._groups: dict[Group, list[tuple[Any, int]]] = {}
        self._near: defaultdict[int, set[Group]] = defaultdict(set)
        self._factors: dict[int, Factor] = {}
        self._serial = count()
        self._heap: list[tuple[Cost, Any, Any, int, Group, Group]] = []
        for key, factor in factors:
            self._place(key, factor)
        # Groups whose pairs are new, or cost less than what the heap says.
        self._changed = set(self._groups)

    def rest(self) -> list[Factor]:
        """All factors, in order."""
        members = sorted(m for group in self._groups.values() for m in group)
        return [self._factors[number] for _, number in members]

    def carried(self, label: int) -> bool:
        """Whether a factor carries ``label``, or the result does."""
        return label in self._keep or self._carriers[label] > 0

    def take(self) -> tuple[Factor, Factor] | None:
        """The next pair, taken out; None where nothing is left to be summed."""
        for group in self._changed:
            self._offer(group)
        self._changed.clear()
        while self._heap:
            cost, first, second, _, one, other = heapq.heappop(self._heap)
            pair = self._pair(one, other)
            if pair is None or (cost, first[0], second[0]) != (
                self._cost(one, other),
                pair[0][0],
                pair[1][0],
            ):
                continue  # from before a change, after which it was put in anew
            for group, member in zip(self._of(pair), pair, strict=True):
                self._groups[group].remove(member)
                self._carriers.subtract(group)
            for group in {one, other}:
                if not self._groups[group]:
                    del self._groups[group]
                    for label in group - self._keep:
                        self._near[label].discard(group)
            return self._factors.pop(pair[0][1]), self._factors.pop(pair[1][1])
        return None

    def put(self, key: Any, factor: Factor, pair: tuple[Factor, Factor]) -> None:
        """Add what a pair has become."""
        self._place(key, factor)
        self._changed.update(frozenset(labels) for _, labels in (factor, *pair))
        for label in {label for _, labels in pair for label in labels}:
            if self._carriers[label] <= 2:  # pairs that are its only carriers cost less now
                self._changed |= self._near[label]

    def _place(self, key: Any, factor: Factor) -> None:
        group, number = frozenset(factor[1]), next(self._serial)
        self._factors[number] = factor
        insort(self._groups.setdefault(group, []), (key, number))
        self._carriers.update(group)
        for label in group - self._keep:
            self._near[label].add(group)

    def _offer(self, group: Group) -> None:
        """Put the pairs of a group and those that share a summed label into the heap."""
        others = {other for label in group - self._keep for other in self._near[label]}
        for other in others:
            pair = self._pair(group, other)
            if pair is not None:
                entry = (self._cost(group, other), *pair, next(self._serial), group, other)
                heapq.heappush(self._heap, entry)

    def _pair(self, one: Group, other: Group) -> tuple[tuple[Any, int], tuple[Any, int]] | None:
        """The first members of two groups, or the first two of one."""
        mine, theirs = self._groups.get(one, []), self._groups.get(other, [])
        if one == other:
            return (mine[0], mine[1]) if len(mine) > 1 else None
        if not mine or not theirs:
            return None
        first, second = sorted((mine[0], theirs[0]))
        return first, second

    def _of(self, pair: tuple[tuple[Any, int], tuple[Any, int]]) -> tuple[Group, Group]:
        one, other = (frozenset(self._factors[number][1]) for _, number in pair)
        return one, other

    def _cost(self, one: Group, other: Group) -> Cost:
        """Labels of the result, labels that are summed (the more the better), and rank."""
        left = [
            label
            for label in one | other
            if label in self._keep or self._carriers[label] > (label in one) + (label in other)
        ]
        gone = len((one & other) - self._keep) - len((one & other).intersection(left) - self._keep)
        return len(left), -gone, max(len(one), len(other))
