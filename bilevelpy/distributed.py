"""One solve over several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.model import Model
from bilevelpy.records.provenance import outline

if TYPE_CHECKING:
    from bilevelpy.lowering.sums.sharded import ShardedOracle

# Ranks wait for rank 0 as long as it takes; one that dies is noticed by its connection.
_PATIENCE = timedelta(days=30)
# Before there are connections only a clock can tell: this long may a process take to start.
_MEETING = timedelta(minutes=5)
# A launcher passes on what a terminal has sent to every process already: signals so many seconds
# apart are one.
_REPEATED = 2.0


def meet() -> None:
    """Connect the processes, before they read their data: from then on the end of one is noticed
    by the others.

    Raises
    ------
    BackendError
        They do not find each other.
    """
    import torch.distributed as dist

    try:
        dist.init_process_group("gloo", timeout=_MEETING)
    except (ValueError, RuntimeError) as error:
        reason = str(error).split("\n")[0]
        raise BackendError(f"the processes of the run do not find each other: {reason}") from error


@contextmanager
def shared(model: Model) -> Iterator[bool]:
    """Divide the evaluations of ``model`` among all processes, which have met.

    Yields True on rank 0, which solves; the other ranks have done their work when they get False.
    For the rest of the process, rank 0 takes the signals INT and TERM between two exchanges only,
    and the others leave them to rank 0.

    Raises
    ------
    UsageError
        The ranks have different models or data, or there is nothing to divide.
    BackendError
        A process was lost.
    """
    import torch.distributed as dist

    from bilevelpy.lowering.defined_start import begin_where_defined
    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.lowering.sums.sharded import (
        ShardedOracle,
        ShardedStreamedOracle,
        lost,
        serve,
    )
    from bilevelpy.lowering.sums.shares import Share
    from bilevelpy.lowering.sums.streaming import StreamedOracle, is_streamed

    rank, count = dist.get_rank(), dist.get_world_size()
    outlines: list[dict[str, str]] = [{}] * count
    try:
        with lost():
            group = dist.new_group(timeout=_PATIENCE, backend="gloo")
            dist.all_gather_object(outlines, outline(model.bound), group)
        first = outlines[0]
        for name in first:
            other = [r for r in range(count) if outlines[r].get(name) != first[name]]
            if other:
                raise UsageError(
                    f"{name} of rank {other[0]} is not that of rank 0: every process of a run "
                    "needs the same model and the same data"
                )
        if rank:
            _on_signals(signal.SIG_IGN)
            whole = StreamedOracle if is_streamed(model.bound) else TorchOracle
            serve(Share(whole(model.bound), rank, count), group)
            yield False
            return
        make = ShardedStreamedOracle if is_streamed(model.bound) else ShardedOracle
        oracle = make(model.bound, group)
        _on_signals(_Interruption(oracle))
        try:
            begin_where_defined(oracle)
            model.cache["oracle"] = oracle
            yield True
        finally:
            oracle.stop()
    finally:
        dist.destroy_process_group()


class _Interruption:
    """What a signal does to rank 0: the run ends like one that Ctrl-C ends, once a signal."""

    def __init__(self, oracle: ShardedOracle) -> None:
        self.oracle = oracle
        self.last = -math.inf

    def __call__(self, number: int, frame: object) -> None:
        now = time.monotonic()
        if now - self.last >= _REPEATED:
            self.last = now
            self.oracle.interrupt()


def _on_signals(handler: Any) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)
