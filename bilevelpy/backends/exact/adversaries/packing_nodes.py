"""Nodes of the tree over stages, those that wait, and what the leader's rows say of them."""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Node:
    """Decided stages: ``worth`` of their items in every capacity, ``loss`` of the leader alone."""

    bound: int
    stage: int
    left: int
    worth: Array
    loss: int
    activity: Array
    chosen: tuple[int, ...]


@dataclass(slots=True)
class Open:
    """Nodes that are left: the best child of the last one, else that with the least bound. From so
    many on, those that come go first: each has an array.
    """

    waiting: list[Node]
    most: int
    _heap: list[tuple[int, int, int, Node]] = field(default_factory=list)
    _count: int = 0

    def __bool__(self) -> bool:
        return bool(self.waiting or self._heap)

    @property
    def least(self) -> int:
        """The least bound."""
        bounds = [node.bound for node in self.waiting]
        return min(bounds + [entry[0] for entry in self._heap[:1]])

    def put(self, nodes: list[Node]) -> None:
        """The children of a node."""
        nodes.sort(key=lambda node: -node.bound)
        if len(self._heap) < self.most:
            for node in nodes[:-1]:
                self._count += 1
                heapq.heappush(self._heap, (node.bound, -node.stage, self._count, node))
            nodes = nodes[-1:]
        self.waiting += nodes

    def take(self) -> Node:
        """The next one."""
        return self.waiting.pop() if self.waiting else heapq.heappop(self._heap)[3]


@dataclass(frozen=True, slots=True)
class LeaderRows:
    """The leader's rows: what options move them by, and how far they may still go from a stage."""

    moves: list[list[Array]]
    start: Array
    least: Array
    most: Array
    lower: Array
    upper: Array

    def allow(self, stage: int, activity: Array) -> bool:
        """Whether all of them may still hold."""
        return bool(
            (activity + self.least[stage] <= self.upper).all()
            and (activity + self.most[stage] >= self.lower).all()
        )
