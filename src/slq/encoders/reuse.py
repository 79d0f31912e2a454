"""Which items' prefixes come from the cache, and which are computed and cached.

Shapes: B batch, T prefix tokens, N latent queries, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from slq.cache import KVCache
from slq.data.items import unique
from slq.errors import InputError
from slq.models import FrozenModel, ItemKV, PreparedBatch, VisionFeatures, prefetch_batches
from slq.models.batching import IMAGE_TOKENS, bucketed_batches
from slq.types import Item

PREFIX_IMAGES = 32  # prefilled at once
PREFIX_TOKENS = PREFIX_IMAGES * IMAGE_TOKENS  # of text
PREFILL_CHUNK = 512  # items among which those of like length are put together
Group = tuple[Sequence[Item], PreparedBatch, Sequence[VisionFeatures | None]]  # items, prepared, and their images' features
Prefetched = Mapping[tuple[str, ...], PreparedBatch]  # groups of items that were prepared before they are needed, by content hashes


@dataclass(frozen=True)
class PrefixReuse:
    """The prefixes of items over one model, from a cache where it has them.

    Attributes:
        model: what computes a prefix.
        cache: where it is looked for first, and put.
        generation_prompt: whether prefixes end with the generation prompt.
    """

    model: FrozenModel
    cache: KVCache
    generation_prompt: bool

    def prefixes(self, items: Sequence[Item], prefetched: Prefetched) -> list[ItemKV]:
        """Each item's prefix, in their order.

        Args:
            items: may repeat; each content is computed once.
            prefetched: what `prefetch` gave for them.

        Raises:
            InputError: for the first item that is wrong.
        """
        found: dict[str, ItemKV] = {}
        with_features: list[tuple[Item, VisionFeatures]] = []
        missing: list[Item] = []
        for item in unique(items):
            key = self.cache_key(item)
            if (prefix := self.cache.get(key)) is not None:
                found[item.content_hash] = prefix
            elif (image := self.cache.get_features(key)) is not None:
                with_features.append((item, image))
            else:
                missing.append(item)
        for groups in _of_tokens(self._prepared(with_features, missing, prefetched), PREFIX_TOKENS):
            found |= self._compute(groups)
        return [found[item.content_hash] for item in items]

    def fill(self, items: Sequence[Item], progress: Callable[[int], None], num_workers: int) -> None:
        """Compute the items' prefixes into the cache, in their order, until its budget is spent; then close it.

        Closed, the cache holds the same prefixes whenever a run starts again, so a resumed run is bit-identical: items that are computed
        together are chosen before the cache is asked, and a group of which something is missing is computed whole.

        Args:
            items: what a run will encode again and again.
            progress: called with the number of items just done.
            num_workers: processes that prepare items while the model runs.

        Raises:
            InputError: for the first item that is wrong.
        """
        if not self.cache.full:
            items = unique(items)
            possible = [item for item in items if self._can_be_cached(item)]
            chunks = [possible[start : start + PREFILL_CHUNK] for start in range(0, len(possible), PREFILL_CHUNK)]
            groups = [group for chunk in chunks for group in self._groups(chunk) if not all(map(self._is_cached, group))]
            progress(len(items) - sum(map(len, groups)))
            prepared = prefetch_batches(self.model.item_processor, groups, self.generation_prompt, num_workers)
            for group, one in zip(groups, prepared, strict=False):
                if self.cache.full:
                    break
                if isinstance(one, InputError):
                    raise one
                self._compute([(group, one, self._features(one))])
                progress(len(group))
        self.cache.closed = True

    def prefetch(self, batches: Sequence[Sequence[Item]], num_workers: int) -> Iterator[Prefetched]:
        """For each batch, those of its items that the cache lacks, prepared by other processes while the model runs.

        Args:
            batches: in the order in which they are run.
            num_workers: how many processes; 0 prepares nothing ahead.
        """
        groups = [self._groups([item for item in unique(batch) if not self.cache.location(self.cache_key(item))]) for batch in batches]
        flat = [group for of_batch in groups for group in of_batch]
        prepared = prefetch_batches(self.model.item_processor, flat, self.generation_prompt, num_workers)
        for of_batch in groups:
            found = {_hashes(group): next(prepared) for group in of_batch}
            yield {hashes: one for hashes, one in found.items() if isinstance(one, PreparedBatch)}

    def describe(self, items: Sequence[Item]) -> str:
        """What the cache has of items, as a person reads it.

        Args:
            items: what is asked about.
        """
        return self.cache.describe([self.cache_key(item) for item in items])

    def cache_key(self, item: Item) -> str:
        """The name of an item's entries.

        Args:
            item: what is encoded.
        """
        return self.cache.cache_key(self.model, item.content_hash, self.generation_prompt)

    def _can_be_cached(self, item: Item) -> bool:
        return self.cache.level == "kv" or (item.image is not None and self.model.supports_vision_cache)

    def _is_cached(self, item: Item) -> bool:
        """Whether the cache has the item's prefix or features, whole and not corrupt."""
        key = self.cache_key(item)
        return self.cache.get(key) is not None or self.cache.get_features(key) is not None

    def _prepared(
        self, with_features: Sequence[tuple[Item, VisionFeatures]], missing: Sequence[Item], prefetched: Prefetched
    ) -> Iterator[Group]:
        """What is to be computed, group by group: items whose vision features are cached, then those of which nothing is."""
        for start in range(0, len(with_features), PREFIX_IMAGES):
            chunk = with_features[start : start + PREFIX_IMAGES]
            images = [image for _, image in chunk]
            yield [item for item, _ in chunk], self.model.prepare_from_features(images), images
        for group in self._groups(missing):
            prepared = prefetched.get(_hashes(group)) or self.model.prepare(group, self.generation_prompt)
            yield group, prepared, self._features(prepared)

    def _features(self, prepared: PreparedBatch) -> list[VisionFeatures | None]:
        return self.model.features(prepared) if self.model.supports_vision_cache else [None] * len(prepared)

    def _compute(self, groups: Sequence[Group]) -> dict[str, ItemKV]:
        """The prefixes of groups by content hash; what the cache lacks and has room for goes into it."""
        prefixes = iter(self.model.prefill_packed([(prepared, images) for _, prepared, images in groups]))
        found = {}
        for group, _, images in groups:
            for item, image in zip(group, images, strict=True):
                found[item.content_hash] = next(prefixes)
                if not self.cache.location(key := self.cache_key(item)):
                    self.cache.put(key, found[item.content_hash], image)
        return found

    def _groups(self, missing: Sequence[Item]) -> list[list[Item]]:
        """Items that are prefilled at once, like lengths together."""
        return [[missing[i] for i in batch] for batch in bucketed_batches(missing, self.model, PREFIX_TOKENS, PREFIX_IMAGES)]


def _of_tokens(groups: Iterator[Group], most: int) -> Iterator[list[Group]]:
    """As many groups at once as have about `most` tokens together."""
    together: list[Group] = []
    tokens = 0
    for group in groups:
        count = int(group[1].inputs["attention_mask"].sum())
        if together and tokens + count > most:
            yield together
            together, tokens = [], 0
        together.append(group)
        tokens += count
    if together:
        yield together


def _hashes(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(item.content_hash for item in items)
