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
from torch.utils.checkpoint import checkpoint

from slq.adapter import CONFIG_FILE, WEIGHTS_FILE, Adapter
from slq.backbone import FrozenBackbone, KeptPrefix, Prepared, Preprocessing, join, load_backbone
from slq.embedder import Embedder
from slq.errors import AdapterError, PictureError
from slq.latents import LatentQueries, pool
from slq.prefix_cache import PrefixCache
from slq.runtime import new_folder
from slq.types import Item

PREFIX_BATCH = 32
TOKENS_PER_PASS = 32_768


class Retriever(Embedder):
    """Embeds texts, pictures and both at once, with one set of latent queries over one frozen backbone.

    cache: keeps prefixes between calls (training uses it). prefix_split: False runs the concatenated slow twin. tokens_per_pass: how many
    tokens run at once with gradients; a larger batch is run in parts, at the memory of one.
    """

    def __init__(
        self,
        backbone: FrozenBackbone,
        queries: LatentQueries,
        cache: PrefixCache | None = None,
        prefix_split: bool = True,
        training: dict | None = None,
        tokens_per_pass: int = TOKENS_PER_PASS,
    ):
        self.backbone = backbone
        self.queries = queries.to(backbone.device)
        self.prefix_split = prefix_split and backbone.splits_prefix
        self.cache = cache if self.prefix_split and backbone.keeps_prefix else None
        self.training = training or {}
        self.tokens_per_pass = tokens_per_pass

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
        """Final states of the latent queries (B, N, D), before pooling; what the orthogonality penalty looks at.

        A batch of more than `tokens_per_pass` holds no activations: each part is run again when its gradient is due, so that the gradient
        is the whole batch's at the memory of one part. Source: Gao et al. 2021 (GradCache), by torch's checkpointing.
        """
        if self.cache is None:
            return self._states_without_cache(items)
        try:
            kept = self._prefixes(items)
        except OSError as error:  # a picture file that is not there has no key
            raise PictureError(f"a picture cannot be read ({error})") from error
        lengths = [prefix.keys.shape[2] + self.queries.num_latents for prefix in kept]
        order = sorted(range(len(items)), key=lengths.__getitem__)  # alike in length, so little padding
        run = _again_for_gradients if torch.is_grad_enabled() and sum(lengths) > self.tokens_per_pass else _once
        parts = [run(self._suffix, [kept[i] for i in part]) for part in even_parts(order, lengths, self.tokens_per_pass)]
        return torch.cat(parts)[torch.tensor(order).argsort()]

    def _suffix(self, kept: list[KeptPrefix]) -> Tensor:
        return self.backbone.suffix(join(kept, self.backbone.device), self.queries.latents)

    def _states_without_cache(self, items: Sequence[Item]) -> Tensor:
        prepared = self.backbone.prepare(items, self.queries.generation_prompt)
        rows = max(1, self.tokens_per_pass // (prepared.inputs["input_ids"].shape[1] + self.queries.num_latents))
        if not torch.is_grad_enabled() or len(items) <= rows:
            return self._states(prepared)
        parts = [self.backbone.prepare(items[start : start + rows], self.queries.generation_prompt) for start in range(0, len(items), rows)]
        return torch.cat([_again_for_gradients(self._states, part) for part in parts])

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
            if self.cache.full:
                break
            chunk = unique[start : start + PREFIX_BATCH]
            self._prefixes(chunk)
            progress(len(chunk))
        self.cache.closed = True

    def _prefixes(self, items: Sequence[Item]) -> list[KeptPrefix]:
        """Each item's prefix, from the cache or computed; pictures, pictures with kept features, and texts in batches of their own."""
        cache = self.cache
        assert cache is not None
        unique = {item.key: item for item in items}
        addresses = {key: cache.address(self.backbone, key, self.queries.generation_prompt) for key in unique}
        found = {key: cache.get(address) for key, address in addresses.items()}
        missing = [key for key in unique if found[key] is None]
        missing.sort(key=lambda key: (unique[key].image is None, len(unique[key].text or "")))
        features = {key: cache.get_features(addresses[key]) for key in missing}
        for group in ([key for key in missing if (features[key] is None) == absent] for absent in (True, False)):
            for start in range(0, len(group), PREFIX_BATCH):
                chunk = group[start : start + PREFIX_BATCH]
                prepared = self.backbone.prepare([unique[key] for key in chunk], self.queries.generation_prompt)
                shown = [features[key] for key in chunk]
                if self.backbone.keeps_features and not any(shown):
                    shown = self.backbone.features(prepared)
                for key, kept, picture in zip(chunk, self.backbone.prefix(prepared, shown).split(), shown, strict=True):
                    cache.put(addresses[key], kept, picture)
                    found[key] = kept
        return [prefix for item in items if (prefix := found[item.key]) is not None]


def _once(run: Callable[[Any], Tensor], given: Any) -> Tensor:
    return run(given)


def _again_for_gradients(run: Callable[[Any], Tensor], given: Any) -> Tensor:
    """Run without keeping activations, and once more when gradients are asked for."""
    return checkpoint(run, given, use_reentrant=False, preserve_rng_state=False)


def even_parts(order: Sequence[int], lengths: Sequence[int], most_tokens: int) -> list[list[int]]:
    """Runs of `order` (from short to long) of at most `most_tokens` with their padding, no item half as long again as the run's first."""
    parts: list[list[int]] = []
    for i in order:
        if not parts or (len(parts[-1]) + 1) * lengths[i] > most_tokens or lengths[i] > 1.5 * lengths[parts[-1][0]]:
            parts.append([])
        parts[-1].append(i)
    return parts


def _download(repo_id: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=[WEIGHTS_FILE, CONFIG_FILE]))
    except Exception as error:
        raise AdapterError(f"There is no adapter folder {repo_id}, and it cannot be fetched from the hub: {error}") from error
