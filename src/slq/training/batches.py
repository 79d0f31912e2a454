"""Contrastive batches: which pairs meet in which step, and who is whose positive.

Shapes: B queries, C candidates.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slq.types import Item, Pair


@dataclass(frozen=True)
class ContrastiveBatch:
    """What meets in one step.

    Attributes:
        queries: B items.
        candidates: C items, positives first, then hard negatives; no content twice.
        positives: (B, C) bool.
    """

    queries: tuple[Item, ...]
    candidates: tuple[Item, ...]
    positives: Tensor

    @property
    def items(self) -> tuple[Item, ...]:
        """Queries, then candidates."""
        return self.queries + self.candidates


class Batches:
    """Every pair once an epoch, in an order that depends on seed and epoch alone.

    Items are told apart by content: where two images share a caption, it counts as a positive of both, not as a negative of either.

    Args:
        pairs: training pairs.
        batch_size: pairs a step; the last step of an epoch may have fewer, but at least two.
        positives_per_query: positives drawn for each pair and step.
        seed: of the order and of what is drawn.
    """

    def __init__(self, pairs: Sequence[Pair], batch_size: int, positives_per_query: int, seed: int):
        self.pairs, self.batch_size, self.positives_per_query, self.seed = pairs, batch_size, positives_per_query, seed
        self.positives_of: dict[str, set[str]] = {}
        for pair in pairs:
            self.positives_of.setdefault(pair.query.content_hash, set()).update(item.content_hash for item in pair.positives)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of one pass over the pairs."""
        whole, rest = divmod(len(self.pairs), self.batch_size)
        return whole + (rest >= 2)  # a single pair has no negatives

    def from_step(self, start: int, stop: int) -> Iterator[list[ContrastiveBatch]]:
        """The batches of some steps, counted through the epochs.

        Args:
            start: the first step, from 0.
            stop: the step after the last.

        Yields:
            A list for each epoch, or for the part of it that lies between.
        """
        while start < stop:
            epoch, inside = divmod(start, self.steps_per_epoch)
            count = min(self.steps_per_epoch - inside, stop - start)
            order = list(range(len(self.pairs)))
            random.Random(f"{self.seed} {epoch}").shuffle(order)
            yield [self._batch(order, epoch, step) for step in range(inside, inside + count)]
            start += count

    def _batch(self, order: Sequence[int], epoch: int, step: int) -> ContrastiveBatch:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        return self._assemble([self.pairs[i] for i in chosen], random.Random(f"{self.seed} {epoch} {step}"))

    def _assemble(self, pairs: list[Pair], rng: random.Random) -> ContrastiveBatch:
        candidates: dict[str, Item] = {}
        for pair in pairs:
            for item in rng.sample(pair.positives, min(self.positives_per_query, len(pair.positives))):
                candidates.setdefault(item.content_hash, item)
        for pair in pairs:
            for item in pair.negatives:
                candidates.setdefault(item.content_hash, item)
        queries = {pair.query.content_hash: pair.query for pair in pairs}
        positives = torch.tensor([[key in self.positives_of[query] for key in candidates] for query in queries])
        return ContrastiveBatch(tuple(queries.values()), tuple(candidates.values()), positives)
