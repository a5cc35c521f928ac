"""Both objectives of a bound program at batches of their data, as oracles.

An oracle of a batch has ``free + K * (sum over the rows of the batch)`` in the place of an
objective, with K the number of batches: its mean over the batches is the objective, and the same
holds for gradients, Hessian-vector and cross products. Evaluations count as the fraction of a pass
that they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from bilevelpy.errors import BackendError
from bilevelpy.ir.evaluate import Interpreter
from bilevelpy.ir.expr import Expr
from bilevelpy.ir.sparse import is_sparse
from bilevelpy.ir.types import Axis
from bilevelpy.ir.walk import postorder
from bilevelpy.lowering.programs.graph import compile_expressions
from bilevelpy.lowering.programs.named import NamedPrograms
from bilevelpy.lowering.programs.slots import DataTensors, Slot
from bilevelpy.lowering.protocol import Counts
from bilevelpy.lowering.sums.batch_oracle import BatchOracle
from bilevelpy.lowering.sums.batches import RUN, Partition, Positions, RowSource, length
from bilevelpy.lowering.sums.sampling import batch_axis, sample, sample_terms

if TYPE_CHECKING:
    import torch

    from bilevelpy.ir.program import Data, Level

Function = Callable[..., Tensor]

# Rows of all batches are kept, cut out once, up to this many bytes.
KEEP = 1 << 28
_COUNTED = ("F", "f", "grad_F", "grad_f", "hvp", "jvp", "lower_solves")


class Sum:
    """One sum over a data axis, as a function of the variables for given rows."""

    def __init__(self, oracle: NamedPrograms, axis: Axis, terms: Sequence[Expr]) -> None:
        bound = oracle.bound
        builder, data = bound.program.builder, bound.data
        self.axis, self.size = axis, data.sizes[axis]
        self.sampled = sample(builder, terms, axis, batch_axis(axis))
        run = Interpreter(data)
        run.run(self.sampled.constants.values())
        constants = {name: run.known(node) for name, node in self.sampled.constants.items()}
        self.source = RowSource(self.sampled, data, constants)
        known = {**data.arrays, **constants, **self.source.arrays}
        sparse = frozenset(n for n, a in known.items() if is_sparse(a))
        variables = tuple(
            builder.var(*p.key, p.variable.axes)
            for p in (*oracle.upper.pieces, *oracle.lower.pieces)
        )
        compiled = compile_expressions(builder, (self.sampled.value,), variables, sparse)
        self._forward = compiled.module.forward
        self._externs = bound.program.externs
        self._dtype, self._device = oracle.dtype, oracle.device
        self._moving = [k for k, s in enumerate(compiled.slots) if self._is_moving(s)]
        self._slots = [compiled.slots[k] for k in self._moving]
        fixed = [s for k, s in enumerate(compiled.slots) if k not in set(self._moving)]
        values = iter(self._tensors(self.source.whole).resolve(fixed, self._externs))
        moving = set(self._moving)
        self._values = [None if k in moving else next(values) for k in range(len(compiled.slots))]

    def _is_moving(self, slot: Slot) -> bool:
        nodes = any(self.sampled.is_dynamic(n) for n in slot.nodes)
        return nodes or any(a is self.sampled.batch for a in slot.axes)

    def _tensors(self, data: Data) -> DataTensors:
        return DataTensors(data, self._dtype, self._device)

    def at(self, rows: Positions) -> Function:
        """The sum over ``rows`` as a function of the variables' tensors."""
        resolved = self._tensors(self.source.data(rows)).resolve(self._slots, self._externs)
        values = list(self._values)
        for k, value in zip(self._moving, resolved, strict=True):
            values[k] = value
        forward = self._forward
        return lambda *variables: forward(*values, *variables)


class SampledObjective:
    """An objective as a part that is always evaluated, and sums over data axes.

    Raises
    ------
    BackendError
        Where no term is a sum over one of ``axes``.
    """

    def __init__(self, oracle: NamedPrograms, objective: Expr, axes: Sequence[Axis]) -> None:
        builder = oracle.bound.program.builder
        free, sums = sample_terms(builder, objective, axes)
        self.rest = tuple(free)  # the terms that are no sums
        self.free = oracle.function((builder.add(free),)) if free else None
        self.sums = [Sum(oracle, axis, terms) for axis, terms in sums.items()]
        self._kept: dict[tuple[int, int], Function] = {}
        self.partitions: list[Partition] = []
        self._keep = False

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of the axes that are sampled."""
        return tuple(s.axis.name for s in self.sums)

    @property
    def elements(self) -> int:
        """The length of the longest axis that is sampled."""
        return max((s.size for s in self.sums), default=1)

    @property
    def bytes(self) -> int:
        """Bytes of the data that batches are cut from, in float64."""
        return sum(s.size * s.source.row_bytes for s in self.sums)

    @property
    def count(self) -> int:
        """Number of batches: that of the axis with the most; shorter ones go round."""
        return max((len(p) for p in self.partitions), default=1)

    def divide(self, batch: int, rng: torch.Generator | None) -> None:
        """Cut every axis into batches of about ``batch`` elements (of the longest axis)."""
        count = max(1, round(self.elements / max(1, batch)))
        self._kept.clear()
        self.partitions = []
        for s in self.sums:
            stored = s.source.stored_row_bytes
            run = max(1, RUN // stored) if stored else 1
            size = max(1, -(-s.size // count))
            self.partitions.append(Partition(s.size, size, run=run, rng=rng))
        self._keep = self.bytes <= KEEP and not any(s.source.mapped for s in self.sums)

    def divide_evenly(self, bytes_: int) -> None:
        """Cut every axis, in order, into blocks of at most about so many bytes."""
        self._kept.clear()
        self._keep = False
        self.partitions = [
            Partition(s.size, max(1, bytes_ // s.source.row_bytes)) for s in self.sums
        ]

    def parts(self) -> Iterator[Function]:
        """Functions that add up to the objective: what is no sum, and the sums block by block."""
        if self.free is not None:
            yield self.free
        for k, partition in enumerate(self.partitions):
            for j in range(len(partition)):
                yield self._sum(k, j)

    def batch(self, j: int) -> Function:
        """``free + sum_a K_a * (rows of batch j)``."""
        parts = [(float(len(p)), self._sum(k, j % len(p))) for k, p in enumerate(self.partitions)]
        return _weighted(self.free, parts)

    def subset(self, rows: int, rng: torch.Generator) -> tuple[Function, float]:
        """The objective on about ``rows`` elements (of the longest axis) instead of all, and the
        fraction of a pass that it takes.
        """
        count = max(1, round(self.elements / max(1, rows)))
        parts, seen = [], 0
        for s in self.sums:
            stored = s.source.stored_row_bytes
            run = max(1, RUN // stored) if stored else 1
            taken = Partition(s.size, max(1, -(-s.size // count)), run=run, rng=rng).rows(0)
            parts.append((s.size / length(taken), s.at(taken)))
            seen += length(taken)
        return _weighted(self.free, parts), seen / max(1, sum(s.size for s in self.sums))

    def share(self, j: int) -> float:
        """The fraction of all rows that batch ``j`` holds."""
        total = sum(s.size for s in self.sums)
        seen = sum(length(p.rows(j % len(p))) for p in self.partitions)
        return seen / total if total else 1.0

    def _sum(self, k: int, j: int) -> Function:
        if not self._keep:
            return self.sums[k].at(self.partitions[k].rows(j))
        if (k, j) not in self._kept:
            self._kept[k, j] = self.sums[k].at(self.partitions[k].rows(j))
        return self._kept[k, j]


def _weighted(free: Function | None, parts: Sequence[tuple[float, Function]]) -> Function:
    """``free + sum_k weight_k part_k``."""

    def value(*variables: Tensor) -> Tensor:
        total = free(*variables) if free is not None else None
        for weight, part in parts:
            term = weight * part(*variables)
            total = term if total is None else total + term
        assert total is not None
        return total

    return value


class Meter:
    """Evaluations in fractions of a pass; whole passes are added to the counts of an oracle."""

    def __init__(self, counts: Counts) -> None:
        self.counts = counts
        self.passes = dict.fromkeys(_COUNTED, 0.0)

    def add(self, name: str, amount: float) -> None:
        """Count ``amount`` passes."""
        before = int(self.passes[name] + 1e-9)
        self.passes[name] += amount
        done = int(self.passes[name] + 1e-9) - before
        if done:
            setattr(self.counts, name, getattr(self.counts, name) + done)


class _Share:
    """Stands in for counts: what is added to one of them counts as a fraction of a pass."""

    def __init__(self, meter: Meter, upper: float, lower: float) -> None:
        object.__setattr__(self, "_meter", meter)
        object.__setattr__(self, "_shares", {"F": upper, "grad_F": upper})
        object.__setattr__(self, "_rest", lower)

    def __getattr__(self, name: str) -> int:
        return 0

    def __setattr__(self, name: str, value: float) -> None:
        self._meter.add(name, value * self._shares.get(name, self._rest))  # type: ignore[attr-defined]


class SampledOracle:
    """Batches of the lower and of the upper objective.

    Parameters
    ----------
    oracle
        The compiled program.
    batch
        Rows of a batch, lower and upper; 0: a 256th of the axis, at least 64.
    rng
        Shuffles the rows into batches.
    """

    def __init__(
        self,
        oracle: NamedPrograms,
        *,
        batch: int = 0,
        upper_batch: int = 0,
        rng: torch.Generator | None = None,
    ) -> None:
        self.oracle = oracle
        self.lower, self.upper = sampled_objectives(oracle.by_rows or oracle)
        if not self.lower.sums:
            raise BackendError("the lower objective is no sum over a data axis")
        self.lower.divide(batch or automatic(self.lower.elements), rng)
        self.upper.divide(upper_batch or batch or automatic(self.upper.elements), rng)
        self.meter = Meter(oracle.counts)

    @property
    def counts(self) -> tuple[int, int]:
        """Numbers of lower and upper batches."""
        return self.lower.count, self.upper.count

    def subset(self, rows: int, rng: torch.Generator) -> BatchOracle:
        """The problem on about ``rows`` lower elements, and as large a part of the upper ones."""
        part = rows / max(1, self.lower.elements)
        f, below = self.lower.subset(rows, rng)
        F, above = self.upper.subset(max(1, round(part * self.upper.elements)), rng)
        return BatchOracle(self.oracle, F, f, _Share(self.meter, above, below))

    def at(self, j: int, i: int) -> BatchOracle:
        """Lower batch ``j`` and upper batch ``i``."""
        share = _Share(self.meter, self.upper.share(i), self.lower.share(j))
        return BatchOracle(self.oracle, self.upper.batch(i), self.lower.batch(j), share)


def automatic(size: int) -> int:
    """Rows of a batch: long ones on long axes keep the number of batches, and with it the memory
    of variance reduction, bounded.
    """
    return min(size, max(64, -(-size // 256)))


def sampled_objectives(oracle: NamedPrograms) -> tuple[SampledObjective, SampledObjective]:
    """Lower and upper objective of an oracle, split once for it."""
    program = oracle.bound.program
    below = _own(program.lowers)
    return (
        SampledObjective(oracle, oracle.f_expr, candidates(oracle, oracle.f_expr, below)),
        SampledObjective(
            oracle, oracle.F_expr, candidates(oracle, oracle.F_expr, below | _own([program.upper]))
        ),
    )


def _own(levels: Sequence[Level]) -> frozenset[Axis]:
    return frozenset(a for level in levels for v in level.variables for a in v.axes)


def candidates(oracle: NamedPrograms, objective: Expr, own: frozenset[Axis]) -> list[Axis]:
    """Axes that data carries and no variable of the level, the longest first."""
    sizes = oracle.bound.data.sizes
    found = dict.fromkeys(
        a for node in postorder(objective) for a in node.axes if a not in own and sizes[a] > 1
    )
    return sorted(found, key=lambda a: (-sizes[a], a.name))
