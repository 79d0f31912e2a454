"""LatentEncoder: a frozen model with latent queries turns items into embeddings.

Shapes: B batch, N latent queries, D hidden size.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slq.adapters.card import push_to_hub
from slq.adapters.files import CONFIG_FILE, EARLIER_CONFIG_FILE, WEIGHTS_FILE, Adapter, load_learned_on
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.encoders.base import Encoder, passes, run_in_mini_batches
from slq.encoders.reuse import Prefetched, PrefixReuse
from slq.errors import AdapterError, InputError
from slq.io.hub import snapshot
from slq.io.outputs import OutputFolder
from slq.io.provenance import parameter_hash
from slq.models import FrozenModel, ItemKV, LatentLora, PreparedBatch, stack_kv
from slq.models.batching import LONGEST_CACHED_BESIDE_SHORTEST, SMALL_PASS, length_buckets, max_tokens_that_fit
from slq.pooling import create_pooling, pool, poolings
from slq.registry import unknown_name
from slq.types import Item


class LatentEncoder(Encoder):
    """Encodes texts, images and both at once, with one set of latent queries over one frozen model.

    Args:
        model: the frozen model.
        queries: the latent queries.
        cache: where prefixes are cached between calls; training uses one.
        prefix_caching: False runs the reference path, tokens and latent queries in one pass.
        training: how the latent queries were learned, for the adapter's file.
        mini_batch_tokens: tokens that run at once with gradients; a larger batch is run in mini-batches, at the memory of one. None: what
            a quarter of the device's memory holds.

    Raises:
        AdapterError: if the latent queries bring matrices for layers that the model does not have.
        InputError: if no pooling has the name that the latent queries give.
        PluginError: if it comes from a plugin that cannot be used.
    """

    kind = "latents"

    def __init__(
        self,
        model: FrozenModel,
        queries: LatentQueries,
        cache: KVCache | None = None,
        prefix_caching: bool = True,
        training: Mapping[str, Any] | None = None,
        mini_batch_tokens: int | None = None,
    ):
        self.model = model
        self.queries = queries.to(model.device)
        if queries.lora is not None:
            queries.lora.check(model.model)
        self.pooling = create_pooling(queries.pooling)
        self.prefix_caching = prefix_caching and model.supports_two_pass
        self.cache = cache if self.prefix_caching and model.supports_kv_cache else None
        self.training = dict(training or {})
        self.mini_batch_tokens = mini_batch_tokens or max_tokens_that_fit(model, self.prefix_caching)

    # --- saved form -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path, model: FrozenModel | None = None, **loading: Any) -> LatentEncoder:
        """The adapter in a folder or hub repository, over its base model.

        Args:
            path: a folder, or `owner/name` on the hub.
            model: the base model, if it is loaded already; by default the one that the adapter names, with its revision and preprocessing.
            **loading: arguments of `load_model`; a `name` among them stands for another copy of the base model.

        Raises:
            AdapterError: if there is no adapter, it is corrupt, or no installed distribution adds its pooling.
            FingerprintMismatchError: if the base model is not the one it was learned on.
            InputError: for `trust_remote_code` without a `name`.
            ModelError: if the base model cannot be loaded.
        """
        folder = Path(path)
        if not os.path.isdir(folder):
            files = [WEIGHTS_FILE, CONFIG_FILE, EARLIER_CONFIG_FILE]
            folder = snapshot(str(path), patterns=files, repo_type="model", error=AdapterError)
        adapter = Adapter.load(folder)
        if (name := adapter.queries.pooling) not in poolings:
            recorded = adapter.added_by(poolings.group, name)
            raise AdapterError(f"The adapter in {path}: {unknown_name(poolings.group, name, poolings.names(), recorded)}")
        if model is None:
            model = load_learned_on(adapter.base_model, loading)
        adapter.check(model.identity)
        return cls(model, adapter.queries, training=adapter.training)

    def save_pretrained(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the adapter (20-150 KB); the base model is named in it, not copied.

        Args:
            path: a new or empty folder.
            overwrite: whether an adapter that was written there is replaced.

        Raises:
            OutputExistsError: see `io.outputs.OutputFolder`.
            OutputError: if it cannot be written.
        """
        with OutputFolder.create(Path(path), "adapter", overwrite=overwrite) as folder:
            self.adapter.save(folder.path)

    def push_to_hub(self, repo_id: str, revision: str | None = None, *, private: bool = False) -> str:
        """Upload the adapter with a model card; see `adapters.card.push_to_hub`."""
        return push_to_hub(self.adapter, repo_id, revision, private=private)

    @property
    def generation_prompt(self) -> bool:
        """Whether the latent queries come after the generation prompt."""
        return self.queries.generation_prompt

    @property
    def adapter(self) -> Adapter:
        """The latent queries with the identity of the base model, ready to be saved."""
        return Adapter(self.queries, self.model.identity.to_dict(), self.training)

    @property
    def fingerprint(self) -> str:
        """Hash of all that is learned, of how it is read, and of the base model: equal fingerprints, comparable embeddings."""
        scale = None if self.queries.lora is None else self.queries.lora.scale
        parts = [parameter_hash(self.queries), sorted(self.queries.config.items()), scale, self.model.content]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What a result was made with: `kind`, and what the latent queries' states are."""
        lora = {} if self.queries.lora is None else {"latent_lora": self.queries.lora.config}
        return {"kind": self.kind, "num_latents": self.queries.num_latents, **self.queries.config, **lora}

    # --- encoding ---------------------------------------------------------------------------------------------------------

    def _encode_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of a batch, in which the cache takes part. Source: SLQ section 3."""
        return pool(self.pooling, self.states(items))

    def _encode_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Tensor | InputError]:
        if self.cache is None:
            yield from super()._encode_batches(batches, workers)
            return
        for batch in batches:
            try:
                yield self._encode_batch(batch)
            except InputError as error:
                yield error

    def states(self, items: Sequence[Item], prefetched: Prefetched | None = None) -> Tensor:
        """States of the latent queries before pooling, with gradient to them.

        A batch of more than `mini_batch_tokens` holds no activations: each mini-batch is run again when its gradient is due, so that the
        gradient is the whole batch's at the memory of one mini-batch.

        Args:
            items: texts, images and both may stand in one batch.
            prefetched: what `prefetch_batches` gave for the items.

        Returns:
            (B, N, D), in the model's dtype.

        Raises:
            InputError: for the first item that is wrong.

        Source: Gao et al. 2021 (GradCache), by torch's checkpointing.
        """
        if self.cache is None:
            return run_in_mini_batches(self.states_of, self, items, self.mini_batch_tokens, self.queries.num_latents)
        prefixes = self.reuse.prefixes(items, prefetched or {})
        lengths = [prefix.keys.shape[2] + self.queries.num_latents for prefix in prefixes]
        order = sorted(range(len(items)), key=lengths.__getitem__)  # like lengths together, so little padding
        run = passes(sum(lengths) > self.mini_batch_tokens)
        parts = length_buckets(order, lengths, self.mini_batch_tokens, LONGEST_CACHED_BESIDE_SHORTEST, SMALL_PASS)
        states = [
            run(self._decode, ([prefixes[i] for i in part], torch.tensor([items[i].image is not None for i in part]))) for part in parts
        ]
        return torch.cat(states)[torch.tensor(order).argsort()]

    def _decode(self, given: tuple[list[ItemKV], Tensor]) -> Tensor:
        prefixes, has_image_B = given
        return self.model.decode_latents(stack_kv(prefixes, self.model.device), self.queries.of(has_image_B), *self._how)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """States of the latent queries (B, N, D), without the cache: in two passes, or on the reference path; see `Encoder.states_of`."""
        latents = self.queries.of(self.model.has_image(prepared))
        if self.prefix_caching:
            return self.model.decode_latents(self.model.prefill(prepared), latents, *self._how)
        return self.model.forward_reference(prepared, latents, *self._how)

    @property
    def _how(self) -> tuple[str, LatentLora | None]:
        """Which states are read, and what is added where the latent queries stand."""
        return self.queries.hidden_state, self.queries.lora

    # --- prefixes ---------------------------------------------------------------------------------------------------------

    @property
    def reuse(self) -> PrefixReuse:
        """The prefixes of items, from the cache where it has them; only with a cache."""
        assert self.cache is not None
        return PrefixReuse(self.model, self.cache, self.generation_prompt)

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None] = lambda count: None, num_workers: int = 0) -> None:
        """Fill the cache with the items' prefixes and close it; see `PrefixReuse.fill`. Nothing happens without a cache."""
        if self.cache is not None:
            self.reuse.fill(items, progress, num_workers)

    def prefetch_batches(self, batches: Sequence[Sequence[Item]], num_workers: int) -> Iterator[Prefetched]:
        """What the cache lacks of each batch, prepared by other processes while the model runs; see `PrefixReuse.prefetch`."""
        if self.cache is None or num_workers == 0:
            return iter([{} for _ in batches])
        return self.reuse.prefetch(batches, num_workers)

    def describe_cache(self, items: Sequence[Item]) -> str:
        """What the cache has of items, as a person reads it.

        Args:
            items: what is asked about.
        """
        return "nothing" if self.cache is None else self.reuse.describe(items)
