"""Encoder: what training, evaluation and search ask of anything that turns items into vectors.

Shapes: B batch, C items, D hidden size.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from slq.data.items import as_item
from slq.errors import BadItemsError, Failure, InputError, ModelError, shorten
from slq.models import FrozenModel, PreparedBatch, default_num_workers, prefetch_batches
from slq.models.batching import TEMPLATE_TOKENS, bucketed_batches, estimate_tokens, image_tokens
from slq.pooling import Pooling, pool, poolings
from slq.types import Embeddings, Item

BATCH_SIZE = 32
OnError = Literal["raise", "skip"]
NOT_FINITE = "what the model gives of it is not finite; load the model with dtype float32, or bfloat16 in place of float16"


class Encoder(ABC):
    """A model, the states that are read off it, and their pooling; subclasses say which states in `states_of`.

    Attributes:
        model: what reads the items.
        pooling: how an item's states become its embedding.
        kind: what the encoder is, as results call it.
    """

    model: FrozenModel
    pooling: Pooling
    kind: str

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Of one item's embedding: (D,), or (G, D) where late interaction compares several vectors."""
        with poolings.naming_plugin(self.pooling):
            return self.pooling.vector_shape(self.model.dim)

    @property
    def generation_prompt(self) -> bool:
        """Whether prepared items end with the generation prompt."""
        return True

    @abstractmethod
    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """States (B, N, D) of a batch that `model.prepare` has turned into tensors, with gradient where there is something to train.

        Args:
            prepared: from `model.prepare`.

        Returns:
            Of the model's dtype.
        """

    def encode_prepared(self, prepared: PreparedBatch) -> Tensor:
        """Embeddings (B, *vector_shape) of length 1, float32, with gradient where there is something to train.

        Args:
            prepared: from `model.prepare`.
        """
        return pool(self.pooling, self.states_of(prepared))

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Equal fingerprints mean comparable embeddings: a hash of all that is learned, and of every setting that changes an embedding."""

    @property
    def name(self) -> str:
        """What tables call the encoder."""
        return self.kind

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What a result was made with, ready for JSON: `kind`, `pooling`, and what else tells it from its like."""

    def prompted(self, item: Item) -> Item:
        """The item as the model is given it: a baseline may put an instruction after its text.

        Args:
            item: what is encoded.
        """
        return item

    def encode_batch(self, items: Sequence[Item]) -> Tensor:
        """Embed a batch, with gradient where there is something to train.

        Args:
            items: texts, images and both may stand in one batch.

        Returns:
            (B, *vector_shape) float32, each vector of length 1.

        Raises:
            InputError: for the first item that is wrong.
            ModelError: if an embedding is not finite.
        """
        return check_finite(self._encode_batch(items))

    def _encode_batch(self, items: Sequence[Item]) -> Tensor:
        """As `encode_batch`, whatever the numbers are."""
        return self.encode_prepared(self.model.prepare([self.prompted(item) for item in items], self.generation_prompt))

    @torch.no_grad()
    def encode(
        self,
        items: Sequence[Any],
        ids: Sequence[str] | None = None,
        batch_size: int = BATCH_SIZE,
        on_error: OnError = "raise",
        progress: Callable[[int], None] = lambda count: None,
        workers: int | None = None,
    ) -> Embeddings:
        """Embed any number of items, in their order; threads may share an encoder, and the global random numbers are left alone.

        Args:
            items: texts, images and both: Items, or what `slq.data.as_item` takes.
            ids: one a item, all different; by default `0`, `1`, ... .
            batch_size: images at once; of texts, as many as have the tokens of so many images.
            on_error: what becomes of items that cannot be used: `raise` raises one error that lists them all, `skip` leaves them out.
            progress: called with the number of items just done.
            workers: processes that prepare items while the model runs; None: some beside an accelerator, none on the CPU.

        Returns:
            The embeddings. With `skip` they are of the items that could be used, in their order: `vectors` (C, *vector_shape) has as many
            rows as `ids`, whose `i`th is the id of the item of row `i`, and `failures` has the id and the reason of each of the others.
            An item whose embedding is not finite could not be used.

        Raises:
            BadItemsError: for items that cannot be used, all of them at once, unless they are to be skipped.
            InputError: if there are not as many different ids as items, or on_error is neither of the two.
        """
        check_on_error(on_error)
        items, unusable = _as_items(items)
        ids = tuple(str(i) for i in range(len(items))) if ids is None else tuple(ids)
        if not len(set(ids)) == len(ids) == len(items):
            raise InputError(f"{len(items)} items need as many different ids; {len(set(ids))} were given.")
        vectors = np.zeros((len(items), *self.vector_shape), dtype=np.float32)
        failures = {i: Failure(ids[i], reason) for i, reason in unusable.items()}
        batches = bucketed_batches(items, self.model, batch_size * (TEMPLATE_TOKENS + image_tokens(self.model)), batch_size)
        workers = default_num_workers(self.model.device) if workers is None else workers
        embedded = self._encode_batches([[items[i] for i in batch] for batch in batches], workers)
        for batch, found in zip(batches, embedded, strict=True):
            if isinstance(found, InputError):
                reasons = {i: reason for i in batch if (reason := unusable.get(i) or self.fault(items[i]))}
                failures |= {i: Failure(ids[i], reason) for i, reason in reasons.items()}
                good = [i for i in batch if i not in reasons]
                if good:
                    vectors[good] = self._encode_batch([items[i] for i in good]).cpu().numpy()
            else:
                vectors[batch] = found.cpu().numpy()
            progress(len(batch))
        failures |= {i: Failure(ids[i], NOT_FINITE) for i in np.flatnonzero(~_are_finite(vectors)).tolist()}
        listed = tuple(failures[i] for i in sorted(failures))
        if listed and on_error == "raise":
            raise BadItemsError(listed)
        usable = [i for i in range(len(items)) if i not in failures]
        cut = self.model.item_processor.truncated(self.prompted(items[i]) for i in usable)
        truncated = tuple(ids[i] for i, is_cut in zip(usable, cut, strict=True) if is_cut)
        return Embeddings(tuple(ids[i] for i in usable), vectors[usable], self.fingerprint, failures=listed, truncated=truncated)

    @torch.no_grad()
    def encode_added(
        self,
        pairs: Sequence[tuple[Item, Item]],
        ids: Sequence[str],
        batch_size: int = BATCH_SIZE,
        progress: Callable[[int], None] = lambda count: None,
    ) -> Embeddings:
        """Embed one query in two wordings: the states of both are added before they are brought to length 1.

        Args:
            pairs: two items each.
            ids: one a pair, all different.
            batch_size: pairs at once.
            progress: called with the number of pairs just done.

        Returns:
            One embedding a pair; a pair of which an item cannot be used is a failure.
        """
        faults = [next((fault for item in pair if (fault := self.fault(item))), "") for pair in pairs]
        usable = [i for i, fault in enumerate(faults) if not fault]
        vectors = np.zeros((len(usable), *self.vector_shape), dtype=np.float32)
        for begin in range(0, len(usable), batch_size):
            batch = [pairs[i] for i in usable[begin : begin + batch_size]]
            both = [self.prompted(item) for items in zip(*batch, strict=True) for item in items]
            states = self.states_of(self.model.prepare(both, self.generation_prompt))  # as long as each other: one batch, one padding
            added = self.pooling(states[: len(batch)] + states[len(batch) :])
            vectors[begin : begin + len(batch)] = added.cpu().numpy()
            progress(len(batch))
        progress(len(pairs) - len(usable))
        finite = _are_finite(vectors)
        for i in np.array(usable, dtype=int)[~finite].tolist():
            faults[i] = NOT_FINITE
        failures = tuple(Failure(id_, fault) for id_, fault in zip(ids, faults, strict=True) if fault)
        good = [i for i in usable if not faults[i]]
        cut = self.model.item_processor.truncated(self.prompted(item) for i in good for item in pairs[i])
        truncated = tuple(ids[i] for place, i in enumerate(good) if any(cut[2 * place : 2 * place + 2]))
        return Embeddings(tuple(ids[i] for i in good), vectors[finite], self.fingerprint, failures=failures, truncated=truncated)

    def _encode_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Tensor | InputError]:
        """Embeddings of each batch, or what was wrong with one of its items."""
        prompted = [[self.prompted(item) for item in batch] for batch in batches]
        for prepared in prefetch_batches(self.model.item_processor, prompted, self.generation_prompt, workers):
            yield prepared if isinstance(prepared, InputError) else self.encode_prepared(prepared)

    def fault(self, value: Any) -> str:
        """Why an item cannot be used; empty if it can.

        Args:
            value: an Item, or what `slq.data.as_item` takes.
        """
        try:
            self.model.prepare([self.prompted(as_item(value))], self.generation_prompt)
        except InputError as error:
            return str(error)
        return ""


def check_on_error(on_error: str) -> None:
    """Refuse what is none of the two.

    Args:
        on_error: what a caller gave.

    Raises:
        InputError: unless it is `raise` or `skip`.
    """
    if on_error not in get_args(OnError):
        raise InputError(f"on_error must be 'raise' or 'skip', not {shorten(repr(on_error))}.")


def _as_items(values: Sequence[Any]) -> tuple[list[Item], dict[int, str]]:
    """What callers hand in as items; of a value that is none an item without anything, and the reason by its place."""
    if isinstance(values, (str, bytes, Mapping, Item)):
        raise InputError(f"encode takes a list of items, not one {type(values).__name__}: put it in a list.")
    items: list[Item] = []
    reasons: dict[int, str] = {}
    for place, value in enumerate(values):
        try:
            items.append(as_item(value))
        except InputError as error:
            items.append(Item())
            reasons[place] = str(error)
    return items, reasons


def check_finite(vectors: Tensor) -> Tensor:
    """The vectors themselves, if all are finite.

    Args:
        vectors: embeddings.

    Raises:
        ModelError: if one is not.
    """
    if not bool(torch.isfinite(vectors).all()):
        raise ModelError(f"An item has no embedding: {NOT_FINITE}.")
    return vectors


def _are_finite(vectors: np.ndarray) -> np.ndarray:
    """Which rows hold finite numbers alone (C) bool."""
    return np.isfinite(vectors).all(axis=tuple(range(1, vectors.ndim)))


def run_in_mini_batches(
    states_of: Callable[[PreparedBatch], Tensor], encoder: Encoder, items: Sequence[Item], mini_batch_tokens: int, extra_tokens: int = 0
) -> Tensor:
    """States of items in mini-batches.

    Where there are several, none holds its activations: each runs again when its gradient is due, so that the gradient is the whole
    batch's at the memory of one mini-batch.

    Args:
        states_of: states (b, N, D) of a prepared mini-batch.
        encoder: whose items they are.
        items: all items.
        mini_batch_tokens: tokens of one mini-batch, at most.
        extra_tokens: of each item, beside its own.

    Returns:
        (B, N, D), in the items' order.

    Source: Gao et al. 2021 (GradCache), by torch's checkpointing.
    """
    model = encoder.model
    batches = bucketed_batches(items, model, mini_batch_tokens)
    run = passes(sum(estimate_tokens(items, model)) + extra_tokens * len(items) > mini_batch_tokens)
    prepared = (model.prepare([encoder.prompted(items[i]) for i in batch], encoder.generation_prompt) for batch in batches)
    order = torch.tensor([i for batch in batches for i in batch])
    return torch.cat([run(states_of, each) for each in prepared])[order.argsort()]


def passes(several: bool) -> Callable[[Callable[[Any], Tensor], Any], Tensor]:
    """How a pass is run: `run(function, argument)`, without activations where there are several and gradients are on.

    Args:
        several: whether a batch is run in several mini-batches.
    """
    return _again_for_gradients if several and torch.is_grad_enabled() else _once


def _once(run: Callable[[Any], Tensor], given: Any) -> Tensor:
    return run(given)


def _again_for_gradients(run: Callable[[Any], Tensor], given: Any) -> Tensor:
    """Run without keeping activations, and once more when gradients are asked for."""
    return checkpoint(run, given, use_reentrant=False, preserve_rng_state=False)
