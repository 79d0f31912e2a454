"""Embedder: what training, evaluation and search ask of anything that turns items into vectors.

Shapes: B batch, C items, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from slq.backbone import FrozenBackbone, Prepared, default_workers, prepare_ahead
from slq.batching import PICTURE_TOKENS, even_batches
from slq.errors import BadItemsError, Failure, InputError
from slq.types import Embeddings, Item

BATCH_SIZE = 32


class Embedder(ABC):
    """A backbone with a way of reading embeddings off it; subclasses say how in `embed_prepared`."""

    backbone: FrozenBackbone

    @property
    def generation_prompt(self) -> bool:
        """Whether prepared items end with the prompt at which the backbone answers."""
        return True

    @abstractmethod
    def embed_prepared(self, prepared: Prepared) -> Tensor:
        """Embeddings of length 1 (B, D), float32, with gradient where there is something to train."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal fingerprints mean comparable embeddings."""

    def worded(self, item: Item) -> Item:
        """The item as the backbone is given it: a readout may put words of its own behind it."""
        return item

    def embed_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of length 1 (B, D), float32, with gradient where there is something to train.

        Texts, pictures and both may stand in one batch. Raises InputError for the first item that is wrong.
        """
        return self.embed_prepared(self.backbone.prepare([self.worded(item) for item in items], self.generation_prompt))

    @torch.no_grad()
    def embed(
        self,
        items: Sequence[Item],
        ids: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
        skip_bad: bool = False,
        progress: Callable[[int], None] = lambda count: None,
        workers: int | None = None,
    ) -> Embeddings:
        """Embeddings of any number of items, in their order.

        ids: default `0`, `1`, ... . batch_size: pictures at once; of texts, as many as have the tokens of so many pictures. progress:
        called with the number of items just done. workers: processes that prepare items while the model runs (None: some beside an
        accelerator, none on the CPU). Items that cannot be used raise one BadItemsError that lists them all; with `skip_bad` they are
        left out and listed in `failures`.
        """
        ids = tuple(str(i) for i in range(len(items))) if ids is None else tuple(ids)
        if not len(set(ids)) == len(ids) == len(items):
            raise InputError(f"{len(items)} items need as many different ids; {len(set(ids))} were given.")
        vectors = np.zeros((len(items), self.backbone.dim), dtype=np.float32)
        failures: dict[int, Failure] = {}
        batches = even_batches(items, self.backbone, batch_size * PICTURE_TOKENS)
        workers = default_workers(self.backbone.device) if workers is None else workers
        embedded = self._embed_batches([[items[i] for i in batch] for batch in batches], workers)
        for batch, found in zip(batches, embedded, strict=True):
            if isinstance(found, InputError):
                reasons = {i: reason for i in batch if (reason := self._fault(items[i]))}
                failures |= {i: Failure(ids[i], reason) for i, reason in reasons.items()}
                good = [i for i in batch if i not in reasons]
                if good:
                    vectors[good] = self.embed_batch([items[i] for i in good]).cpu().numpy()
            else:
                vectors[batch] = found.cpu().numpy()
            progress(len(batch))
        listed = tuple(failures[i] for i in sorted(failures))
        if listed and not skip_bad:
            raise BadItemsError(listed)
        kept = [i for i in range(len(items)) if i not in failures]
        return Embeddings(tuple(ids[i] for i in kept), vectors[kept], self.fingerprint, failures=listed)

    def _embed_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Tensor | InputError]:
        """Embeddings of each batch, or what was wrong with one of its items."""
        worded = [[self.worded(item) for item in batch] for batch in batches]
        for prepared in prepare_ahead(self.backbone.item_processor, worded, self.generation_prompt, workers):
            yield prepared if isinstance(prepared, InputError) else self.embed_prepared(prepared)

    def _fault(self, item: Item) -> str:
        """Why an item cannot be used; empty if it can."""
        try:
            self.backbone.message(item)
        except InputError as error:
            return str(error)
        return ""
