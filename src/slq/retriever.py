"""Retriever: a frozen backbone with latent queries turns items into embeddings.

Shapes: B batch, D hidden size.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slq.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter
from slq.backbone import FrozenBackbone, KeptPrefix, Prepared, Preprocessing, join, load_backbone
from slq.embedder import Embedder
from slq.errors import AdapterError, PictureError
from slq.latents import LatentQueries, pool
from slq.prefix_cache import PrefixCache
from slq.runtime import new_folder
from slq.types import Item

PREFIX_BATCH = 32


class Retriever(Embedder):
    """Embeds texts, pictures and both at once, with one set of latent queries over one frozen backbone.

    cache: keeps prefixes between calls (training uses it). prefix_split: False runs the concatenated slow twin.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        queries: LatentQueries,
        cache: PrefixCache | None = None,
        prefix_split: bool = True,
        training: dict | None = None,
    ):
        self.backbone = backbone
        self.queries = queries.to(backbone.device)
        self.prefix_split = prefix_split and backbone.splits_prefix
        self.cache = cache if self.prefix_split and backbone.keeps_prefix else None
        self.training = training or {}

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
            saved, name = adapter.backbone, loading.pop("name", None)
            # A folder's revision is a hash that is checked below; only a hub commit can be asked for.
            if name is None and "/" in saved["name"] and not Path(saved["name"]).is_dir() and saved["revision"] != "unknown":
                loading.setdefault("revision", saved["revision"])
            preprocessing = Preprocessing.from_dict(saved["preprocessing"])
            backbone = load_backbone(name or saved["name"], preprocessing=preprocessing, **loading)
        adapter.check(backbone.identity.to_dict())
        return cls(backbone, adapter.queries, training=dict(adapter.training))

    def save_pretrained(self, path: str | Path, overwrite: bool = False) -> None:
        """Write the adapter (20-150 KB); the backbone is named in it, not copied."""
        self.adapter.save(new_folder(Path(path), overwrite))

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the adapter to a hub repository and return its address; `options` go to `HfApi.upload_folder`."""
        import tempfile

        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as folder:
            self.adapter.save(Path(folder))
            HfApi().create_repo(repo_id, exist_ok=True)
            return HfApi().upload_folder(repo_id=repo_id, folder_path=folder, **options).commit_url

    @property
    def adapter(self) -> Adapter:
        return Adapter(self.queries, self.backbone.identity.to_dict(), self.training)

    @property
    def fingerprint(self) -> str:
        """Hash of the latent queries and the backbone's identity: equal fingerprints, comparable embeddings."""
        digest = hashlib.sha256(self.queries.latents.detach().cpu().numpy().tobytes())
        digest.update(repr(self.queries.generation_prompt).encode())
        digest.update(repr(sorted((k, v) for k, v in self.backbone.identity.to_dict().items() if k != "dtype")).encode())
        return digest.hexdigest()[:16]

    # --- embedding --------------------------------------------------------------------------------------------------------

    def embed_batch(self, items: Sequence[Item]) -> Tensor:
        """Embeddings of length 1 (B, D), float32, with gradient to the latent queries where gradients are on.

        Texts, pictures and both may stand in one batch. Raises InputError for the first item that is wrong. Source: SLQ section 3.
        """
        return pool(self.states(items))

    def states(self, items: Sequence[Item]) -> Tensor:
        """Final states of the latent queries (B, N, D), before pooling; what the orthogonality penalty looks at."""
        if self.cache is None:
            return self._states(self.backbone.prepare(items, self.queries.generation_prompt))
        latents = self.queries.latents
        try:
            kept = self._prefixes(items)
        except OSError as error:  # a picture file that is not there has no key
            raise PictureError(f"a picture cannot be read ({error})") from error
        order = sorted(range(len(items)), key=lambda i: kept[i].keys.shape[2])  # alike in length, so little padding
        parts = [
            self.backbone.suffix(join([kept[i] for i in chunk], self.backbone.device), latents) for chunk in _even_lengths(order, kept)
        ]
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def embed_prepared(self, inputs: dict[str, Tensor]) -> Tensor:
        """Embeddings (B, D) of a batch that `backbone.prepare` has turned into tensors."""
        return pool(self._states(Prepared(inputs)))

    def _states(self, prepared: Prepared) -> Tensor:
        """Final states of the latent queries (B, N, D) without a cache: the fast path, or the slow twin."""
        if self.prefix_split:
            return self.backbone.suffix(self.backbone.prefix(prepared), self.queries.latents)
        return self.backbone.full(prepared, self.queries.latents)

    def prefill(self, items: Sequence[Item], progress: Callable[[int], None] = lambda count: None) -> None:
        """Fill the cache with the items' prefixes, in their order, until the budget is spent; then close it.

        Closed, the cache holds the same prefixes whenever a run starts anew, so a resumed run repeats the very same numbers.
        """
        if self.cache is None:
            return
        unique = list({item.key: item for item in items}.values())
        for start in range(0, len(unique), PREFIX_BATCH):
            chunk = unique[start : start + PREFIX_BATCH]
            self._prefixes(chunk)
            progress(len(chunk))
            if self.cache.num_bytes > 0.99 * self.cache.budget:
                break
        self.cache.closed = True

    def _key(self, item: Item) -> str:
        """What a prefix is kept under: retrievers that prompt differently may share a cache."""
        return item.key if self.queries.generation_prompt else f"{item.key} without generation prompt"

    def _prefixes(self, items: Sequence[Item]) -> list[KeptPrefix]:
        """Each item's prefix, from the cache or computed, pictures and texts in batches of their own."""
        assert self.cache is not None
        found: dict[str, KeptPrefix | None] = {item.key: self.cache.get(self._key(item)) for item in items}
        missing = list({item.key: item for item in items if found[item.key] is None}.values())
        missing.sort(key=lambda item: (item.image is None, len(item.text or "")))
        for start in range(0, len(missing), PREFIX_BATCH):
            chunk = missing[start : start + PREFIX_BATCH]
            states = self.backbone.prefix(self.backbone.prepare(chunk, self.queries.generation_prompt))
            for item, kept in zip(chunk, states.split(), strict=True):
                self.cache.put(self._key(item), kept)
                found[item.key] = kept
        return [prefix for item in items if (prefix := found[item.key]) is not None]


def _even_lengths(order: list[int], kept: list[KeptPrefix], most: int = 64) -> list[list[int]]:
    """Runs of `order` with at most `most` items, none more than half as long again as the run's first."""
    chunks: list[list[int]] = []
    for i in order:
        length = kept[i].keys.shape[2]
        if not chunks or len(chunks[-1]) == most or length > 1.5 * kept[chunks[-1][0]].keys.shape[2]:
            chunks.append([])
        chunks[-1].append(i)
    return chunks


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except Exception as error:
        raise AdapterError(f"There is no adapter folder {repo_id}, and it cannot be fetched from the hub: {error}") from error
