"""Contrastive batches: which pairs meet in which step, and who is whose positive.

Shapes: B queries, C candidates.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slq.data import Matches
from slq.training.facts import FactBatch, Facts
from slq.types import Item, Pair


@dataclass(frozen=True)
class ContrastiveBatch:
    """What meets in one step.

    Attributes:
        queries: B items.
        candidates: C items, positives first, then hard negatives; no content twice.
        positives: (B, C) bool.
        facts: what is learned beside them; None without.
        pairs: the pairs that meet.
        sources: where each was read, or its number.
    """

    queries: tuple[Item, ...]
    candidates: tuple[Item, ...]
    positives: Tensor
    facts: FactBatch | None = None
    pairs: tuple[Pair, ...] = ()
    sources: tuple[str, ...] = ()

    @property
    def items(self) -> tuple[Item, ...]:
        """Queries, then candidates, then facts."""
        return self.queries + self.candidates + (self.facts.items if self.facts else ())


class Batches:
    """Every pair once an epoch, in a random order that depends on seed and epoch alone, or by the nearness of pairs at the time.

    Where two images share a caption, it counts as a positive of both, not as a negative of either; and so do pairs that repeat or reverse
    one another, whatever the case, white space and Unicode form of their texts (see `data.Matches`).

    Args:
        pairs: training pairs.
        batch_size: pairs a step; the last step of an epoch may have fewer, but at least two.
        positives_per_query: positives drawn for each pair and step.
        seed: of the order and of what is drawn.
        facts: what is learned beside the pairs.
        facts_per_step: how many of them a step has.

    Attributes:
        arrange: called at the beginning of every epoch but the first with random numbers for it, gives the order of the pairs; None: the
            order is random.
        arranged: the newest order that `arrange` gave, by its epoch.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        batch_size: int,
        positives_per_query: int,
        seed: int,
        facts: Facts | None = None,
        facts_per_step: int = 64,
    ):
        self.pairs, self.batch_size, self.positives_per_query, self.seed = pairs, batch_size, positives_per_query, seed
        self.facts, self.facts_per_step = facts, facts_per_step
        self.arrange: Callable[[random.Random], list[int]] | None = None
        self.arranged: dict[int, list[int]] = {}
        self.matches = Matches(pairs)

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
            order = self._order(epoch)
            yield [self._batch(order, epoch, step) for step in range(inside, inside + count)]
            start += count

    def _order(self, epoch: int) -> list[int]:
        rng = random.Random(f"{self.seed} {epoch}")
        if self.arrange is None or epoch == 0:  # what has learned nothing yet knows no neighbours
            order = list(range(len(self.pairs)))
            rng.shuffle(order)
            return order
        if epoch not in self.arranged:
            self.arranged = {epoch: self.arrange(rng)}
        return self.arranged[epoch]

    def _batch(self, order: Sequence[int], epoch: int, step: int) -> ContrastiveBatch:
        chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
        sources = tuple(self.pairs[i].source or f"pair {i}" for i in chosen)
        return self._assemble([self.pairs[i] for i in chosen], sources, random.Random(f"{self.seed} {epoch} {step}"))

    def _assemble(self, pairs: list[Pair], sources: tuple[str, ...], rng: random.Random) -> ContrastiveBatch:
        candidates: dict[str, Item] = {}
        for pair in pairs:
            for item in rng.sample(pair.positives, min(self.positives_per_query, len(pair.positives))):
                candidates.setdefault(item.content_hash, item)
        for pair in pairs:
            for item in pair.negatives:
                candidates.setdefault(item.content_hash, item)
        queries = {pair.query.content_hash: pair.query for pair in pairs}
        keys = [self.matches.key(item) for item in candidates.values()]
        matches = [self.matches.of(query) for query in queries.values()]
        positives = torch.tensor([[key in own for key in keys] for own in matches])
        items = (*queries.values(), *candidates.values())
        facts = self.facts.draw(items, self.facts_per_step, rng) if self.facts else None
        return ContrastiveBatch(tuple(queries.values()), tuple(candidates.values()), positives, facts, tuple(pairs), sources)
