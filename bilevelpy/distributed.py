"""One solve over several processes, as ``torchrun`` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from bilevelpy.errors import BackendError, UsageError
from bilevelpy.model import Model
from bilevelpy.provenance import text_hash

# Ranks wait for rank 0 as long as it takes; one that dies is noticed by its connection.
_PATIENCE = timedelta(days=30)


def world() -> int:
    """How many processes ``torchrun`` started; 1 without it."""
    try:
        return int(os.environ.get("WORLD_SIZE", "1"))
    except ValueError:
        return 1


@contextmanager
def shared(model: Model) -> Iterator[bool]:
    """Divide the evaluations of ``model`` among all processes.

    Yields True on rank 0, which solves; the other ranks have done their work when they get False.

    Raises
    ------
    UsageError
        The ranks have different models, or there is nothing to divide.
    BackendError
        A process was lost.
    """
    import torch.distributed as dist

    from bilevelpy.lowering.oracle import TorchOracle
    from bilevelpy.lowering.sharded import ShardedOracle, Share, serve

    try:
        dist.init_process_group("gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        raise BackendError(f"the processes of the run do not find each other: {error}") from error
    try:
        rank, count = dist.get_rank(), dist.get_world_size()
        hashes: list[str | None] = [None] * count
        dist.all_gather_object(hashes, text_hash(model.bound))
        if len(set(hashes)) > 1:
            raise UsageError("the processes of the run have different models")
        if rank:
            serve(Share(TorchOracle(model.bound), rank, count))
            yield False
            return
        oracle = ShardedOracle(model.bound, count)
        model.cache["oracle"] = oracle
        yield True
        oracle.stop()
    finally:
        dist.destroy_process_group()
