"""One batch on several processes: each encodes its part of the items, and all compute the same loss from what was gathered.

The gathering carries gradients, so the mean over processes that DistributedDataParallel takes is the gradient of the whole batch.
Shapes: B items of the batch, b items of one process, N latent queries, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.distributed
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from slq.types import Item


def rank_of(item: Item, processes: int) -> int:
    """The process that encodes an item: always the same one, so that it alone caches the item's prefix.

    Args:
        item: what is encoded.
        processes: how many there are.
    """
    return int(item.content_hash[:8], 16) % processes


def shard(items: Sequence[Item], rank: int, processes: int) -> list[Item]:
    """Those of the items that the process of this rank encodes; never none: DistributedDataParallel waits for everyone's gradient.

    Args:
        items: of a batch.
        rank: of the process.
        processes: how many there are.
    """
    own = [item for item in items if rank_of(item, processes) == rank]
    return own or list(items[:1])


def gather_states(items: Sequence[Item], states_of: Callable[[Sequence[Item]], Tensor], rank: int, processes: int) -> Tensor:
    """States of all items, each from the process that encodes it.

    Args:
        items: all items of a batch, the same in every process.
        states_of: states (b, N, D) of a few items, with gradient.
        rank: of this process.
        processes: how many there are.

    Returns:
        (B, N, D), in the items' order.
    """
    if processes == 1:
        return states_of(items)
    ranks = [rank_of(item, processes) for item in items]
    most = max(ranks.count(process) for process in range(processes))
    states_bND = states_of(shard(items, rank, processes))
    padding = most - len(states_bND)
    if padding > 0:
        states_bND = torch.cat([states_bND, states_bND.new_zeros((padding, *states_bND.shape[1:]))])
    gathered = all_gather(states_bND[:most].contiguous())
    taken = [0] * processes
    rows = []
    for its in ranks:
        rows.append(gathered[its][taken[its]])
        taken[its] += 1
    return torch.stack(rows)
