"""The encoder as a model of mteb, for MTEB and MIEB tasks over texts, images, and both.

    mteb.evaluate(MtebEncoder.from_pretrained("my-adapter"), mteb.get_tasks(["VisualNewsI2TRetrieval"]))

It follows mteb's encoder protocol, so that every task that asks a model for embeddings runs. Prompts of tasks are not used: an adapter
embeds each item as it was trained to, with the instruction that it was saved with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from slq.encoders.base import BATCH_SIZE
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError, MissingExtraError
from slq.integrations.sentence_transformers import as_item
from slq.types import Item

if TYPE_CHECKING:
    from mteb.models import ModelMeta

AHEAD = 512  # items embedded at once, sorted by length: more fill batches better, and more images are held open


class MtebEncoder:
    """An encoder behind mteb's encoder protocol.

    name: under which mteb files the results, as `organisation/model`; default, `slq/` with the model's name. The revision is the
    encoder's fingerprint, so that results of different adapters are not taken for one another. Raises MissingExtraError without mteb.
    """

    def __init__(self, encoder: LatentEncoder, name: str | None = None):
        _import_mteb()
        if name is not None and name.count("/") != 1:
            raise InputError(f"mteb names a model as organisation/model, not {name!r}.")
        self.encoder = encoder
        self.name = name or "slq/" + encoder.model.identity.name.strip("/").split("/")[-1].replace(":", "-")

    @classmethod
    def from_pretrained(cls, path: str, name: str | None = None, **loading: Any) -> MtebEncoder:
        """The adapter in a folder or hub repository; `loading` as for `LatentEncoder.from_pretrained`."""
        _import_mteb()  # before a model is loaded in vain
        return cls(LatentEncoder.from_pretrained(path, **loading), name)

    @cached_property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside results, and by which it tells which tasks the model can do."""
        mteb = _import_mteb()
        size = sum(parameter.numel() for parameter in self.encoder.model.model.parameters())
        return mteb.models.ModelMeta(
            loader=None,
            name=self.name,
            revision=self.encoder.fingerprint,
            release_date=None,
            languages=None,
            n_parameters=size + self.encoder.queries.latents.numel(),
            memory_usage_mb=None,
            max_tokens=self.encoder.model.preprocessing.max_text_tokens,
            embed_dim=self.encoder.model.dim,
            license=None,
            open_weights=None,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name="cosine",
            use_instructions=False,
            training_datasets=None,
            modalities=["text", "image"],
        )

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, batch_size: int = BATCH_SIZE, **_: Any) -> np.ndarray:
        """Embeddings (C, D), float32, of the rows of mteb's batches: `text`, `image` or both.

        Raises BadItemsError that lists the rows that cannot be embedded: mteb has no place for an item without an embedding.
        """
        rows = (item for batch in inputs for item in items_of(batch))
        parts = [np.zeros((0, self.encoder.model.dim), dtype=np.float32)]
        done = 0
        while chunk := list(islice(rows, AHEAD)):
            ids = [f"row {done + i}" for i in range(len(chunk))]
            parts.append(self.encoder.encode(chunk, ids, batch_size).vectors)
            done += len(chunk)
        return np.concatenate(parts)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine similarities of each with each."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosine similarities of the first with the first, the second with the second, and so on."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def items_of(batch: Mapping[str, Any]) -> Iterator[Item]:
    """The rows of one of mteb's batches: columns `text` and `image`, of which either may be absent or empty in a row."""
    texts, images = batch.get("text"), batch.get("image")
    count = len(texts if texts is not None else images if images is not None else ())
    for text, image in zip(texts or [None] * count, images or [None] * count, strict=True):
        if isinstance(text, str) and not text.strip() and image is not None:
            text = None  # an image alone, in a set where others have words
        if image is not None and not isinstance(image, Image.Image):
            raise InputError(f"A row's image is of {type(image).__name__}: only tasks with one PIL image a row can be run.")
        yield as_item({"text": text, "image": image})


def _unit(embeddings: Any) -> Tensor:
    import torch

    return normalize(torch.atleast_2d(torch.as_tensor(embeddings).float()), dim=-1)


def _import_mteb() -> Any:
    try:
        import mteb
        import mteb.models
    except ImportError as error:
        raise MissingExtraError('Tasks of MTEB and MIEB need mteb; run: pip install "slq[mteb]"') from error
    return mteb
