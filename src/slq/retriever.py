"""Retriever: a frozen backbone with latent queries turns items into embeddings.

Shapes: B batch, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slq.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter, load_learned_on
from slq.backbone import FrozenBackbone, KeptPrefix, PictureFeatures, Prepared, join, prepare_ahead
from slq.batching import LONGEST_KEPT_BESIDE_SHORTEST, PICTURE_TOKENS, SMALL_PASS, even_batches, even_parts, tokens_that_fit
from slq.embedder import Embedder, in_passes, passes
from slq.errors import AdapterError, InputError, PictureError
from slq.latents import LatentQueries
from slq.prefix_cache import PrefixCache
from slq.runtime import new_folder
from slq.types import Item

PREFIX_PICTURES = 32  # read at once
PREFIX_TOKENS = PREFIX_PICTURES * PICTURE_TOKENS  # of words
PREFILL_CHUNK = 512  # items looked through at once for those that are alike
Reading = tuple[Sequence[Item], Prepared, Sequence[PictureFeatures | None]]  # a group, prepared, and what the tower gave for it
Ahead = Mapping[tuple[str, ...], Prepared]  # groups of items that were prepared before they are needed, by their keys


class Retriever(Embedder):
    """Embeds texts, pictures and both at once, with one set of latent queries over one frozen backbone.

    cache: keeps prefixes between calls (training uses it). prefix_split: False runs the concatenated slow twin. tokens_per_pass: how many
    tokens run at once with gradients (None: what a quarter of the memory holds); a larger batch is run in parts, at the memory of one.
    """

    name = "latent queries"

    def __init__(
        self,
        backbone: FrozenBackbone,
        queries: LatentQueries,
        cache: PrefixCache | None = None,
        prefix_split: bool = True,
        training: dict | None = None,
        tokens_per_pass: int | None = None,
    ):
        self.backbone = backbone
        self.queries = queries.to(backbone.device)
        self.prefix_split = prefix_split and backbone.splits_prefix
        self.cache = cache if self.prefix_split and backbone.keeps_prefix else None
        self.training = training or {}
        self.tokens_per_pass = tokens_per_pass or tokens_that_fit(backbone, self.prefix_split)

    # --- saved form -------------------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, path: str | Path, backbone: FrozenBackbone | None = None, **loading: Any) -> Retriever:
        """The adapter in a folder or hub repository, over its backbone.

        backbone: default, the one that the adapter names, with its revision and preprocessing; `loading` goes to `load_backbone`, and may
        name another. Raises AdapterError, BackboneError, or MismatchError when the two do not belong together.
        """
        folder = Path(path)
        if not folder.is_dir():
            folder = _download(str(path))
        adapter = Adapter.load(folder)
        if backbone is None:
            backbone = load_learned_on(adapter.backbone, loading)
        adapter.check(backbone.identity.to_dict())
        return cls(backbone, adapter.queries, training=dict(adapter.training))

    def save_pretrained(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the adapter (20-150 KB); the backbone is named in it, not copied."""
        self.adapter.save(new_folder(Path(path), overwrite, (WEIGHTS_FILE, CONFIG_FILE)))

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
        return Adapter(self.queries, self.backbone.identity.to_dict(), self.training)

    @property
    def fingerprint(self) -> str:
        """Hash of the latent queries and the backbone's identity: equal fingerprints, comparable embeddings."""
        digest = hashlib.sha256(self.queries.latents.detach().cpu().numpy().tobytes())
        digest.update(repr(sorted(self.queries.form.items())).encode())
        digest.update(repr(sorted((k, v) for k, v in self.backbone.identity.to_dict().items() if k != "dtype")).encode())
        return digest.hexdigest()[:16]

    # --- embedding --------------------------------------------------------------------------------------------------------

    def embed_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of length 1 (B, D), float32, with gradient to the latent queries where gradients are on.

        Texts, pictures and both may stand in one batch. Raises InputError for the first item that is wrong. Source: SLQ section 3.
        """
        return self.queries.pool(self.states(items))

    def embed_prepared(self, prepared: Prepared) -> Tensor:
        """Embeddings (B, D) of a batch that `backbone.prepare` has turned into tensors; the cache plays no part."""
        return self.queries.pool(self.states_of(prepared))

    def _embed_batches(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Tensor | InputError]:
        if self.cache is None:
            yield from super()._embed_batches(batches, workers)
            return
        for batch in batches:
            try:
                yield self.embed_batch(batch)
            except InputError as error:
                yield error

    def states(self, items: Sequence[Item], ahead: Ahead | None = None) -> Tensor:
        """Final states of the latent queries (B, N, D), before pooling; what the orthogonality penalty looks at.

        ahead: what `prepare_ahead` gave for the items. A batch of more than `tokens_per_pass` holds no activations: each part is run
        again when its gradient is due, so that the gradient is the whole batch's at the memory of one part. Source: Gao et al. 2021
        (GradCache), by torch's checkpointing.
        """
        if self.cache is None:
            return in_passes(self.states_of, self, items, self.tokens_per_pass, self.queries.num_latents)
        kept = self._prefixes(items, ahead or {})
        lengths = [prefix.keys.shape[2] + self.queries.num_latents for prefix in kept]
        order = sorted(range(len(items)), key=lengths.__getitem__)  # alike in length, so little padding
        run = passes(sum(lengths) > self.tokens_per_pass)
        parts = even_parts(order, lengths, self.tokens_per_pass, LONGEST_KEPT_BESIDE_SHORTEST, SMALL_PASS)
        states = [run(self._suffix, ([kept[i] for i in part], torch.tensor([items[i].image is not None for i in part]))) for part in parts]
        return torch.cat(states)[torch.tensor(order).argsort()]

    def _suffix(self, given: tuple[list[KeptPrefix], Tensor]) -> Tensor:
        kept, pictured_B = given
        return self.backbone.suffix(join(kept, self.backbone.device), self.queries.of(pictured_B), self.queries.readout)

    def states_of(self, prepared: Prepared) -> Tensor:
        """Final states of the latent queries (B, N, D) of one prepared batch, without the cache: the fast path, or the slow twin."""
        latents = self.queries.of(self.backbone.pictured(prepared))
        if self.prefix_split:
            return self.backbone.suffix(self.backbone.prefix(prepared), latents, self.queries.readout)
        return self.backbone.full(prepared, latents, self.queries.readout)

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
            prepared = prepare_ahead(self.backbone.item_processor, groups, self.generation_prompt, workers)
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
        return self.cache.level == "states" or (item.image is not None and self.backbone.keeps_features)

    def _is_kept(self, item: Item) -> bool:
        """Whether the cache has the item's prefix or features, whole and undamaged."""
        assert self.cache is not None
        address = self._address(item)
        return self.cache.get(address) is not None or self.cache.get_features(address) is not None

    def prepare_ahead(self, batches: Sequence[Sequence[Item]], workers: int) -> Iterator[Ahead]:
        """For each batch its items of which the cache has nothing, prepared by `workers` processes while the model runs."""
        if self.cache is None or workers == 0:
            yield from ({} for _ in batches)
            return
        groups = [self._groups([item for item in batch if not self.cache.where(self._address(item))]) for batch in map(_unique, batches)]
        flat = [group for its in groups for group in its]
        prepared = prepare_ahead(self.backbone.item_processor, flat, self.generation_prompt, workers)
        for its in groups:
            found = {_keys(group): next(prepared) for group in its}
            yield {keys: one for keys, one in found.items() if isinstance(one, Prepared)}

    def kept(self, items: Sequence[Item]) -> str:
        """What the cache has of items, in words."""
        return "nothing" if self.cache is None else self.cache.describe([self._address(item) for item in items])

    def _prefixes(self, items: Sequence[Item], ahead: Ahead) -> list[KeptPrefix]:
        """Each item's prefix, from the cache or computed."""
        cache = self.cache
        assert cache is not None
        found: dict[str, KeptPrefix] = {}
        featured: list[tuple[Item, PictureFeatures]] = []
        unread: list[Item] = []
        for item in _unique(items):
            address = self._address(item)
            if (prefix := cache.get(address)) is not None:
                found[item.key] = prefix
            elif (picture := cache.get_features(address)) is not None:
                featured.append((item, picture))
            else:
                unread.append(item)
        for together in _of_tokens(self._reading(featured, unread, ahead), PREFIX_TOKENS):
            found |= self._read(together)
        return [found[item.key] for item in items]

    def _reading(self, featured: Sequence[tuple[Item, PictureFeatures]], unread: Sequence[Item], ahead: Ahead) -> Iterator[Reading]:
        """What is to be read, group by group: pictures whose features are kept, then what nothing is kept of."""
        for start in range(0, len(featured), PREFIX_PICTURES):
            chunk = featured[start : start + PREFIX_PICTURES]
            pictures = [picture for _, picture in chunk]
            yield [item for item, _ in chunk], self.backbone.prepared_again(pictures), pictures
        for group in self._groups(unread):
            prepared = ahead.get(_keys(group)) or self.backbone.prepare(group, self.generation_prompt)
            yield group, prepared, self._features(prepared)

    def _features(self, prepared: Prepared) -> list[PictureFeatures | None]:
        return self.backbone.features(prepared) if self.backbone.keeps_features else [None] * len(prepared)

    def _read(self, reading: Sequence[Reading]) -> dict[str, KeptPrefix]:
        """The prefixes of groups by key, and into the cache what it has nothing of and room for."""
        assert self.cache is not None
        prefixes = iter(self.backbone.prefixes([(prepared, pictures) for _, prepared, pictures in reading]))
        found = {}
        for group, _, pictures in reading:
            for item, picture in zip(group, pictures, strict=True):
                found[item.key] = next(prefixes)
                if not self.cache.where(address := self._address(item)):
                    self.cache.put(address, found[item.key], picture)
        return found

    def _groups(self, unread: Sequence[Item]) -> list[list[Item]]:
        """Items that are read at once, alike with alike."""
        return [[unread[i] for i in batch] for batch in even_batches(unread, self.backbone, PREFIX_TOKENS, PREFIX_PICTURES)]

    def _address(self, item: Item) -> str:
        assert self.cache is not None
        return self.cache.address(self.backbone, item.key, self.generation_prompt)


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
    """Items without repetition; raises PictureError for a picture file that is not there."""
    try:
        return list({item.key: item for item in items}.values())
    except OSError as error:
        raise PictureError(f"a picture cannot be read ({error})") from error


def _keys(items: Sequence[Item]) -> tuple[str, ...]:
    return tuple(item.key for item in items)


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except Exception as error:
        raise AdapterError(f"There is no adapter folder {repo_id}, and it cannot be fetched from the hub: {error}") from error
