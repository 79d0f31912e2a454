"""LatentEncoder: a frozen model with latent queries turns items into embeddings.

Shapes: B batch, D hidden size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slq.adapters.files import CONFIG_FILE, WEIGHTS_FILE, Adapter, load_learned_on
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.encoders.base import Encoder, passes, run_in_mini_batches
from slq.errors import AdapterError, ImageError, InputError
from slq.io.outputs import OutputFolder
from slq.models import FrozenModel, ItemKV, PreparedBatch, VisionFeatures, prefetch_batches, stack_kv
from slq.models.batching import (
    IMAGE_TOKENS,
    LONGEST_KEPT_BESIDE_SHORTEST,
    SMALL_PASS,
    bucketed_batches,
    length_buckets,
    max_tokens_that_fit,
)
from slq.pooling import poolings
from slq.types import Item

PREFIX_IMAGES = 32  # read at once
PREFIX_TOKENS = PREFIX_IMAGES * IMAGE_TOKENS  # of words
PREFILL_CHUNK = 512  # items looked through at once for those that are alike
Reading = tuple[Sequence[Item], PreparedBatch, Sequence[VisionFeatures | None]]  # a group, prepared, and what the tower gave for it
Prefetched = Mapping[tuple[str, ...], PreparedBatch]  # groups of items that were prepared before they are needed, by their keys


class LatentEncoder(Encoder):
    """Embeds texts, images and both at once, with one set of latent queries over one frozen model.

    cache: keeps prefixes between calls (training uses it). prefix_caching: False runs the concatenated slow twin. mini_batch_tokens: how
    many tokens run at once with gradients (None: what a quarter of the memory holds); a larger batch is run in parts, at the memory of one.
    """

    name = "latent queries"

    def __init__(
        self,
        model: FrozenModel,
        queries: LatentQueries,
        cache: KVCache | None = None,
        prefix_caching: bool = True,
        training: dict | None = None,
        mini_batch_tokens: int | None = None,
    ):
        self.model = model
        self.queries = queries.to(model.device)
        self.pooling = poolings.get(queries.pooling)()
        self.prefix_caching = prefix_caching and model.supports_two_pass
        self.cache = cache if self.prefix_caching and model.supports_kv_cache else None
        self.training = training or {}
        self.mini_batch_tokens = mini_batch_tokens or max_tokens_that_fit(model, self.prefix_caching)

    # --- saved form -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path, model: FrozenModel | None = None, **loading: Any) -> LatentEncoder:
        """The adapter in a folder or hub repository, over its model.

        model: default, the one that the adapter names, with its revision and preprocessing; `loading` goes to `load_model`, and may
        name another. Raises AdapterError, ModelError, or FingerprintMismatchError when the two do not belong together.
        """
        folder = Path(path)
        if not folder.is_dir():
            folder = _download(str(path))
        adapter = Adapter.load(folder)
        if model is None:
            model = load_learned_on(adapter.model, loading)
        adapter.check(model.identity)
        return cls(model, adapter.queries, training=dict(adapter.training))

    def save_pretrained(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the adapter (20-150 KB); the model is named in it, not copied."""
        with OutputFolder.create(Path(path), "adapter", overwrite=overwrite) as folder:
            self.adapter.save(folder.path)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the adapter to a hub repository and return its address; `options` go to `HfApi.upload_folder`."""
        import tempfile

        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.adapter.save(Path(folder))
            HfApi().create_repo(repo_id, exist_ok=True)
            return HfApi().upload_folder(repo_id=repo_id, folder_path=folder, **options).commit_url

    @property
    def generation_prompt(self) -> bool:
        """Whether the latent queries come behind the generation prompt."""
        return self.queries.generation_prompt

    @property
    def adapter(self) -> Adapter:
        return Adapter(self.queries, self.model.identity.to_dict(), self.training)

    @property
    def fingerprint(self) -> str:
        """Hash of the latent queries and the model's identity: equal fingerprints, comparable embeddings."""
        digest = hashlib.sha256(self.queries.latents.detach().cpu().numpy().tobytes())
        digest.update(repr(sorted(self.queries.form.items())).encode())
        digest.update(json.dumps(self.model.identity.content(), sort_keys=True).encode())
        return digest.hexdigest()[:16]

    # --- embedding --------------------------------------------------------------------------------------------------------

    def encode_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of length 1 (B, D), float32, with gradient to the latent queries where gradients are on.

        Texts, images and both may stand in one batch. Raises InputError for the first item that is wrong. Source: SLQ section 3.
        """
        return self.pooling(self.states(items))

    def _encode_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Tensor | InputError]:
        if self.cache is None:
            yield from super()._encode_batches(batches, workers)
            return
        for batch in batches:
            try:
                yield self.encode_batch(batch)
            except InputError as error:
                yield error

    def states(self, items: Sequence[Item], ahead: Prefetched | None = None) -> Tensor:
        """Final states of the latent queries (B, N, D), before pooling; what the orthogonality penalty looks at.

        ahead: what `prefetch_batches` gave for the items. A batch of more than `mini_batch_tokens` holds no activations: each part is run
        again when its gradient is due, so that the gradient is the whole batch's at the memory of one part. Source: Gao et al. 2021
        (GradCache), by torch's checkpointing.
        """
        if self.cache is None:
            return run_in_mini_batches(self.states_of, self, items, self.mini_batch_tokens, self.queries.num_latents)
        kept = self._prefixes(items, ahead or {})
        lengths = [prefix.keys.shape[2] + self.queries.num_latents for prefix in kept]
        order = sorted(range(len(items)), key=lengths.__getitem__)  # alike in length, so little padding
        run = passes(sum(lengths) > self.mini_batch_tokens)
        parts = length_buckets(order, lengths, self.mini_batch_tokens, LONGEST_KEPT_BESIDE_SHORTEST, SMALL_PASS)
        states = [run(self._suffix, ([kept[i] for i in part], torch.tensor([items[i].image is not None for i in part]))) for part in parts]
        return torch.cat(states)[torch.tensor(order).argsort()]

    def _suffix(self, given: tuple[list[ItemKV], Tensor]) -> Tensor:
        kept, has_image_B = given
        return self.model.decode_latents(stack_kv(kept, self.model.device), self.queries.of(has_image_B), self.queries.readout)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of the latent queries (B, N, D) of one prepared batch, without the cache: the fast path, or the slow twin."""
        latents = self.queries.of(self.model.has_image(prepared))
        if self.prefix_caching:
            return self.model.decode_latents(self.model.prefill(prepared), latents, self.queries.readout)
        return self.model.forward_reference(prepared, latents, self.queries.readout)

    # --- prefixes ---------------------------------------------------------------------------------------------------------

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None] = lambda count: None, workers: int = 0) -> None:
        """Fill the cache with the items' prefixes, in their order, until the budget is spent; then close it.

        Closed, the cache holds the same prefixes whenever a run starts anew, so a resumed run repeats the very same numbers. workers:
        processes that prepare items ahead.
        """
        if self.cache is None:
            return
        if not self.cache.full:
            items = _unique(items)
            unread = [item for item in items if self._can_be_kept(item) and not self._is_kept(item)]
            chunks = [unread[start : start + PREFILL_CHUNK] for start in range(0, len(unread), PREFILL_CHUNK)]
            groups = [group for chunk in chunks for group in self._groups(chunk)]
            progress(len(items) - len(unread))
            prepared = prefetch_batches(self.model.item_processor, groups, self.generation_prompt, workers)
            for group, one in zip(groups, prepared, strict=False):
                if self.cache.full:
                    break
                if isinstance(one, InputError):
                    raise one
                self._read([(group, one, self._features(one))])
                progress(len(group))
        self.cache.closed = True

    def _can_be_kept(self, item: Item) -> bool:
        assert self.cache is not None
        return self.cache.level == "states" or (item.image is not None and self.model.supports_vision_cache)

    def _is_kept(self, item: Item) -> bool:
        """Whether the cache has the item's prefix or features, whole and undamaged."""
        assert self.cache is not None
        address = self._cache_key(item)
        return self.cache.get(address) is not None or self.cache.get_features(address) is not None

    def prefetch_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Prefetched]:
        """For each batch its items of which the cache has nothing, prepared by `workers` processes while the model runs."""
        if self.cache is None or workers == 0:
            yield from ({} for _ in batches)
            return
        groups = [self._groups([item for item in batch if not self.cache.where(self._cache_key(item))]) for batch in map(_unique, batches)]
        flat = [group for its in groups for group in its]
        prepared = prefetch_batches(self.model.item_processor, flat, self.generation_prompt, workers)
        for its in groups:
            found = {_keys(group): next(prepared) for group in its}
            yield {keys: one for keys, one in found.items() if isinstance(one, PreparedBatch)}

    def kept(self, items: Sequence[Item]) -> str:
        """What the cache has of items, in words."""
        return "nothing" if self.cache is None else self.cache.describe([self._cache_key(item) for item in items])

    def _prefixes(self, items: Sequence[Item], ahead: Prefetched) -> list[ItemKV]:
        """Each item's prefix, from the cache or computed."""
        cache = self.cache
        assert cache is not None
        found: dict[str, ItemKV] = {}
        featured: list[tuple[Item, VisionFeatures]] = []
        unread: list[Item] = []
        for item in _unique(items):
            address = self._cache_key(item)
            if (prefix := cache.get(address)) is not None:
                found[item.content_hash] = prefix
            elif (image := cache.get_features(address)) is not None:
                featured.append((item, image))
            else:
                unread.append(item)
        for together in _of_tokens(self._reading(featured, unread, ahead), PREFIX_TOKENS):
            found |= self._read(together)
        return [found[item.content_hash] for item in items]

    def _reading(self, featured: Sequence[tuple[Item, VisionFeatures]], unread: Sequence[Item], ahead: Prefetched) -> Iterator[Reading]:
        """What is to be read, group by group: images whose features are kept, then what nothing is kept of."""
        for start in range(0, len(featured), PREFIX_IMAGES):
            chunk = featured[start : start + PREFIX_IMAGES]
            images = [image for _, image in chunk]
            yield [item for item, _ in chunk], self.model.prepare_from_features(images), images
        for group in self._groups(unread):
            prepared = ahead.get(_keys(group)) or self.model.prepare(group, self.generation_prompt)
            yield group, prepared, self._features(prepared)

    def _features(self, prepared: PreparedBatch) -> list[VisionFeatures | None]:
        return self.model.features(prepared) if self.model.supports_vision_cache else [None] * len(prepared)

    def _read(self, reading: Sequence[Reading]) -> dict[str, ItemKV]:
        """The prefixes of groups by key, and into the cache what it has nothing of and room for."""
        assert self.cache is not None
        prefixes = iter(self.model.prefill_packed([(prepared, images) for _, prepared, images in reading]))
        found = {}
        for group, _, images in reading:
            for item, image in zip(group, images, strict=True):
                found[item.content_hash] = next(prefixes)
                if not self.cache.where(address := self._cache_key(item)):
                    self.cache.put(address, found[item.content_hash], image)
        return found

    def _groups(self, unread: Sequence[Item]) -> list[list[Item]]:
        """Items that are read at once, alike with alike."""
        return [[unread[i] for i in batch] for batch in bucketed_batches(unread, self.model, PREFIX_TOKENS, PREFIX_IMAGES)]

    def _cache_key(self, item: Item) -> str:
        assert self.cache is not None
        return self.cache.cache_key(self.model, item.content_hash, self.generation_prompt)


def _of_tokens(reading: Iterator[Reading], most: int) -> Iterator[list[Reading]]:
    """As many groups at once as have about `most` tokens together."""
    together: list[Reading] = []
    tokens = 0
    for each in reading:
        its = int(each[1].inputs["attention_mask"].sum())
        if together and tokens + its > most:
            yield together
            together, tokens = [], 0
        together.append(each)
        tokens += its
    if together:
        yield together


def _unique(items: Sequence[Item]) -> list[Item]:
    """Items without repetition; raises ImageError for an image file that is not there."""
    try:
        return list({item.content_hash: item for item in items}.values())
    except OSError as error:
        raise ImageError(f"an image cannot be read ({error})") from error


def _keys(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(item.content_hash for item in items)


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except Exception as error:
        raise AdapterError(f"There is no adapter folder {repo_id}, and it cannot be fetched from the hub: {error}") from error
