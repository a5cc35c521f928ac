"""What a run carries from one iteration to the next, as plain data that a file can hold.

The states of backends are numbers, vectors, lists of them, and objects of this package that hold
one another. :func:`taken` reads the data off; a :class:`Reader` puts them into a state that
``init`` has just made. Whatever is no data (oracles, sets, options, compiled functions) is the
wiring of the state, and that of the new one stays. Objects that are shared stay shared.

Attributes that a class names in ``made_again`` are left out, as they are needed no more between two
iterations. Where attributes are not what should be kept (a factor that is soon computed again), a
class says what is by two methods::

    def carried(self) -> dict[str, Any]: ...
    def restore(self, known: Mapping[str, Any], oracle: Any) -> None: ...

A method that goes on by states with other wiring, once it has come to them, makes one of them from
its first state in ``later(oracle, state, options)``, for the data to be put into.

A file may be anybody's: no code comes out of it. Objects are of classes of this package that are
loaded already, their attributes those that the class has, vectors as long as in the new state.
"""

from __future__ import annotations

import math
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bilevelpy.lowering.domains.product import ProductSet
from bilevelpy.options import BackendOptions
from bilevelpy.result import Status

# Where the classes of states are defined.
HOMES = (
    "bilevelpy.numerics.",
    "bilevelpy.backends.",
    "bilevelpy.lowering.domains.faces",
    "bilevelpy.lowering.domains.psd",
)
WIRING = (BackendOptions, ProductSet)
# A state with more bytes than this is not kept.
LARGEST = 1 << 29
# Types of arrays that a state has.
KINDS = ("float64", "int64", "int32", "int8", "uint8", "bool")


class NotCarried(Exception):
    """A state that is not made of data and of the wiring that ``init`` makes."""


class Damaged(Exception):
    """Data that no run has left."""


class InStep(Exception):
    """The state is in the middle of a step."""


@dataclass(frozen=True, slots=True)
class Carried:
    """Data by name as a tree in JSON types; ``arrays`` are what it refers to by number."""

    tree: Mapping[str, Any]
    arrays: tuple[np.ndarray, ...]


def taken(parts: Mapping[str, Any]) -> Carried | None:
    """The data of ``parts``, not copied; None where they hold nothing but wiring, or too much."""
    taker = _Taker()
    try:
        tree = {name: taker.node(value) for name, value in parts.items()}
    except NotCarried:
        return None
    if any(node == {"wiring": True} for node in tree.values()):
        return None
    return Carried(tree, tuple(taker.arrays))


class _Taker:
    """Reads a state; objects and arrays that are met again are references to the first time."""

    def __init__(self) -> None:
        self.arrays: list[np.ndarray] = []
        self.size = 0
        self.objects: dict[int, int] = {}
        self.places: dict[int, int] = {}
        # What is known by its address must not be freed meanwhile.
        self.held: list[Any] = []

    def node(self, value: Any) -> Any:
        """A value as JSON: scalars as they are, all else as an object with one main key."""
        if value is None or type(value) in (bool, int, str):
            return value
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else {"number": repr(float(value))}
        if isinstance(value, Status):
            return {"status": value.value}
        if isinstance(value, torch.Tensor):
            return {"vector": self._place(value, value.detach().numpy())}
        if isinstance(value, np.ndarray):
            return {"array": self._place(value, value)}
        if isinstance(value, np.generic):
            return self.node(value.item())
        if isinstance(value, torch.Generator):
            return {"source": self._place(value, value.get_state().numpy())}
        if isinstance(value, (list, tuple, deque)):
            return self._row(value)
        if isinstance(value, dict):
            return {"map": [[self.node(k), self.node(v)] for k, v in value.items()]}
        return self._object(value) if is_state(type(value)) else {"wiring": True}

    def _row(self, value: Any) -> dict[str, Any]:
        known: dict[type, str] = {list: "list", tuple: "tuple", deque: "queue"}
        kind = known.get(type(value))
        if kind is None:
            return {"wiring": True}
        if len(value) > 1 and all(type(v) is float for v in value):
            return {kind: {"array": self._place(value, np.array(value, dtype=float))}}
        return {kind: [self.node(v) for v in value]}

    def _object(self, value: Any) -> dict[str, Any]:
        if id(value) in self.objects:
            return {"same": self.objects[id(value)]}
        number = self.objects[id(value)] = len(self.objects)
        self.held.append(value)
        kind = type(value)
        parts = value.carried() if hasattr(kind, "carried") else attributes(value)
        return {
            "object": number,
            "class": f"{kind.__module__}:{kind.__qualname__}",
            "with": {name: self.node(part) for name, part in parts.items()},
        }

    def _place(self, value: Any, array: np.ndarray) -> int:
        if id(value) not in self.places:
            self.size += array.nbytes
            if self.size > LARGEST or array.dtype.name not in KINDS:
                raise NotCarried
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise NotCarried
            self.places[id(value)] = len(self.arrays)
            self.held.append(value)
            self.arrays.append(array)
        return self.places[id(value)]


class Reader:
    """Puts the data of an earlier run into the parts of a new one, one after the other.

    Raises
    ------
    NotCarried
        Where ``init`` has not made all that the state needs.
    Damaged
        Where the data are not those of such a state.
    """

    def __init__(self, known: Carried) -> None:
        self.known = known
        self._objects: dict[int, Any] = {}
        self._vectors: dict[int, torch.Tensor] = {}
        self._sources: dict[int, torch.Generator] = {}
        self._used: set[int] = set()

    def read(self, name: str, fresh: Any = None, oracle: Any = None) -> Any:
        """The part of that name, in the place of ``fresh``, whose objects are filled."""
        try:
            return self._value(self.known.tree[name], fresh, oracle)
        except (NotCarried, Damaged):
            raise
        except Exception as error:  # whatever a wrong file leads to
            raise Damaged(f"`{name}` is not what a run has left") from error

    def _value(self, node: Any, fresh: Any, oracle: Any) -> Any:
        found = self._found(node, fresh, oracle)
        if not _are_alike(fresh, found):
            raise Damaged("parts of the state are of another kind or size")
        return found

    def _found(self, node: Any, fresh: Any, oracle: Any) -> Any:
        if node is None or isinstance(node, (bool, int, float, str)):
            return node
        (kind, content), *rest = node.items()
        if kind == "number":
            return float(content)
        if kind == "status":
            return Status(content)
        if kind == "vector":
            if content not in self._vectors:
                # A vector of its own, aligned like any other: sums round by where they begin.
                self._vectors[content] = torch.from_numpy(self._array(content)).clone()
            return self._vectors[content]
        if kind == "array":
            return self._array(content).copy(order="K")
        if kind == "source":
            return self._source(content, fresh)
        if kind in ("list", "tuple", "queue"):
            return self._row(kind, content, fresh, oracle)
        if kind == "map":
            old = fresh if isinstance(fresh, dict) else {}
            return {k: self._value(v, old.get(k), oracle) for k, v in content}
        if kind == "same":
            return self._objects[content]
        if kind == "object":
            return self._object(content, dict(rest), fresh, oracle)
        if kind == "wiring" and fresh is not None:
            return fresh
        if kind == "wiring":
            raise NotCarried("it needs what is made later in a run")
        raise Damaged(f"there is no `{kind}`")

    def _array(self, place: int) -> np.ndarray:
        if not 0 <= place < len(self.known.arrays):
            raise Damaged("an array is missing")
        return self.known.arrays[place]

    def _source(self, place: int, fresh: Any) -> torch.Generator:
        if place not in self._sources:
            made = fresh if isinstance(fresh, torch.Generator) else torch.Generator()
            made.set_state(torch.from_numpy(self._array(place).copy()))
            self._sources[place] = made
        return self._sources[place]

    def _row(self, kind: str, content: Any, fresh: Any, oracle: Any) -> Any:
        if isinstance(content, dict):
            values = self._array(content["array"]).astype(float).tolist()
        else:
            old = list(fresh) if isinstance(fresh, (list, tuple, deque)) else []
            old += [None] * (len(content) - len(old))
            values = [self._value(n, f, oracle) for n, f in zip(content, old, strict=False)]
        if kind == "queue":
            if not isinstance(fresh, deque):
                raise NotCarried("it needs a queue that is made later in a run")
            return deque(values, fresh.maxlen)
        return tuple(values) if kind == "tuple" else values

    def _object(self, number: int, rest: Mapping[str, Any], fresh: Any, oracle: Any) -> Any:
        kind: Any = _class(rest["class"])
        base = fresh if type(fresh) is kind else None
        frozen = hasattr(kind, "__dataclass_params__") and kind.__dataclass_params__.frozen
        if base is not None and not frozen and id(base) not in self._used:
            target = base
            self._used.add(id(base))
        else:
            target = object.__new__(kind)
            for name, value in _all_attributes(base).items():
                object.__setattr__(target, name, value)
        self._objects[number] = target
        around = getattr(base, "oracle", None) or oracle
        own = hasattr(kind, "carried")
        old = {} if base is None else base.carried() if own else attributes(base)
        if own:  # the class looks at its numbers itself
            old = {n: v for n, v in old.items() if is_state(type(v))}
        parts = {n: self._value(v, old.get(n), around) for n, v in rest["with"].items()}
        if own:
            target.restore(parts, around)
            return target
        allowed = _slots(kind) | old.keys()
        for name, value in parts.items():
            if name not in allowed:
                raise Damaged(f"`{kind.__name__}` has no `{name}`")
            object.__setattr__(target, name, value)
        return target


def wiring(state: Any) -> tuple[type, ...]:
    """The classes that say what a state works with."""
    inner = getattr(state, "inner", state)
    return type(state), type(inner), type(getattr(inner, "response", None))


def is_state(kind: type) -> bool:
    """Whether objects of a class are part of a state, and not of its wiring."""
    if not f"{kind.__module__}.".startswith(HOMES) or issubclass(kind, WIRING):
        return False
    if hasattr(kind, "carried"):
        return True
    return not any(hasattr(kind, name) for name in ("value_grad_f", "grad_f", "check_deadline"))


def attributes(value: Any) -> dict[str, Any]:
    """The attributes of an object by name, but for those that its class makes again."""
    again = getattr(type(value), "made_again", ())
    return {n: part for n, part in _all_attributes(value).items() if n not in again}


def _all_attributes(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    slots = {n: getattr(value, n) for n in sorted(_slots(type(value))) if hasattr(value, n)}
    return slots | getattr(value, "__dict__", {})


def _slots(kind: type) -> set[str]:
    found: set[str] = set()
    for base in kind.__mro__:
        slots = base.__dict__.get("__slots__", ())
        found |= {slots} if isinstance(slots, str) else set(slots)
    return found - {"__weakref__", "__dict__"}


def _class(name: str) -> type:
    """A class of states by module and name; it must be loaded."""
    module, _, attribute = name.partition(":")
    kind = getattr(sys.modules.get(module), attribute, None)
    if not isinstance(kind, type) or kind.__module__ != module or not is_state(kind):
        raise Damaged(f"there is no state of class {name}")
    return kind


def _are_alike(fresh: Any, found: Any) -> bool:
    """Whether a value may take the place of another one: of its class, and numbers of its size."""
    if fresh is None or found is None or found is fresh:
        return True
    if isinstance(fresh, (torch.Tensor, np.ndarray)):
        return (
            type(found) is type(fresh) and found.dtype == fresh.dtype and found.shape == fresh.shape
        )
    if isinstance(fresh, (bool, str)):
        return isinstance(found, type(fresh))
    if isinstance(fresh, (int, float)):
        return isinstance(found, (int, float)) and not isinstance(found, bool)
    return type(found) is type(fresh)
