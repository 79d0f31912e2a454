"""Embedder: what training, evaluation and search ask of anything that turns items into vectors.

Shapes: B batch, C items, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from slq.backbone import FrozenBackbone
from slq.errors import BadItemsError, Failure, InputError
from slq.types import Embeddings, Item


class Embedder(ABC):
    """A backbone with a way of reading embeddings off it; subclasses say how in `embed_batch`."""

    backbone: FrozenBackbone

    @abstractmethod
    def embed_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of length 1 (B, D), float32, with gradient where there is something to train.

        Raises InputError for the first item that is wrong.
        """

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal fingerprints mean comparable embeddings."""

    @torch.no_grad()
    def embed(
        self,
        items: Sequence[Item],
        ids: Sequence[str] | None = None,
        batch_size: int = 32,
        skip_bad: bool = False,
        progress: Callable[[int], None] = lambda count: None,
    ) -> Embeddings:
        """Embeddings of any number of items, in their order.

        ids: default `0`, `1`, ... . progress: called with the number of items just done. Items that cannot be used raise one
        BadItemsError that lists them all; with `skip_bad` they are left out and listed in `failures`.
        """
        ids = tuple(str(i) for i in range(len(items))) if ids is None else tuple(ids)
        if not len(set(ids)) == len(ids) == len(items):
            raise InputError(f"{len(items)} items need as many different ids; {len(set(ids))} were given.")
        # Alike with alike, so that batches hold little padding; the order is restored at the end.
        order = sorted(range(len(items)), key=lambda i: (items[i].image is None, len(items[i].text or "")))
        vectors = np.zeros((len(items), self.backbone.dim), dtype=np.float32)
        failures: dict[int, Failure] = {}
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            try:
                vectors[chunk] = self.embed_batch([items[i] for i in chunk]).cpu().numpy()
            except InputError:
                reasons = {i: reason for i in chunk if (reason := self._fault(items[i]))}
                failures |= {i: Failure(ids[i], reason) for i, reason in reasons.items()}
                good = [i for i in chunk if i not in reasons]
                if good:
                    vectors[good] = self.embed_batch([items[i] for i in good]).cpu().numpy()
            progress(len(chunk))
        listed = tuple(failures[i] for i in sorted(failures))
        if listed and not skip_bad:
            raise BadItemsError(listed)
        kept = [i for i in range(len(items)) if i not in failures]
        return Embeddings(tuple(ids[i] for i in kept), vectors[kept], self.fingerprint, failures=listed)

    def _fault(self, item: Item) -> str:
        """Why an item cannot be used; empty if it can."""
        try:
            self.backbone.message(item)
        except InputError as error:
            return str(error)
        return ""
