"""The encoder as a model of mteb, for MTEB and MIEB tasks over texts, images, and both.

    mteb.evaluate(MtebEncoder.from_pretrained("my-adapter"), mteb.get_tasks(["VisualNewsI2TRetrieval"]))

It follows mteb's encoder protocol, so that every task that needs embeddings runs. Prompts of tasks are not used: an adapter
encodes each item as it was trained to, with the instruction that it was saved with.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from torch.nn.functional import normalize

from slq.data.items import as_item
from slq.encoders.base import BATCH_SIZE
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError, MissingExtraError
from slq.types import Item

if TYPE_CHECKING:
    from mteb.models import ModelMeta

WINDOW = 512  # items encoded at once, sorted by length: more fill batches better, and more images are held open


class MtebEncoder:
    """An encoder behind mteb's encoder protocol.

    The revision is the encoder's fingerprint, so that results of different adapters are not taken for one another.

    Args:
        encoder: what encodes.
        name: under which mteb files the results, as `organisation/model`; None for `slq/` with the model's name.

    Raises:
        MissingExtraError: without mteb.
        InputError: for a name of another form.
    """

    def __init__(self, encoder: LatentEncoder, name: str | None = None):
        _import_mteb()
        if name is not None and name.count("/") != 1:
            raise InputError(f"mteb names a model as organisation/model, not {name!r}.")
        self.encoder = encoder
        self.name = name or "slq/" + encoder.model.identity.name.strip("/").split("/")[-1].replace(":", "-")

    @classmethod
    def from_pretrained(cls, path: str, name: str | None = None, **loading: Any) -> MtebEncoder:
        """Load an adapter.

        Args:
            path: its folder or hub repository.
            name: under which mteb files the results.
            **loading: as for `LatentEncoder.from_pretrained`.

        Returns:
            The encoder.

        Raises:
            MissingExtraError: without mteb.
            AdapterError: if there is no adapter that can be read.
        """
        _import_mteb()  # before a model is loaded in vain
        return cls(LatentEncoder.from_pretrained(path, **loading), name)

    @cached_property
    def mteb_model_meta(self) -> ModelMeta:
        """What mteb writes beside results, and reads to find which tasks the model can run."""
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
        """Encode the rows of mteb's batches; equal rows are encoded once, so that they tie.

        Args:
            inputs: batches with the columns `text`, `image` or both.
            batch_size: items in one forward pass.

        Returns:
            (C, D) float32, each row of length 1.

        Raises:
            BadItemsError: that lists the rows that cannot be encoded: mteb has no place for an item without an embedding.
        """
        rows = (item for batch in inputs for item in items_of(batch))
        parts = [np.zeros((0, self.encoder.model.dim), dtype=np.float32)]
        position_of: dict[str, int] = {}  # content -> which of the different rows it is
        positions: list[int] = []
        while chunk := list(islice(rows, WINDOW)):
            new: dict[str, Item] = {}  # row -> what no row before it holds
            for item in chunk:
                content = item.content_hash
                if content not in position_of:
                    position_of[content] = len(position_of)
                    new[f"row {len(positions)}"] = item
                positions.append(position_of[content])
            if new:
                parts.append(self.encoder.encode(list(new.values()), list(new), batch_size).vectors)
        return np.concatenate(parts)[positions]

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(A, B) cosine similarities of (A, D) and (B, D).

        Args:
            embeddings1: (A, D).
            embeddings2: (B, D).
        """
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """(A,) cosine similarities of the rows of (A, D) and (A, D), pair by pair.

        Args:
            embeddings1: (A, D).
            embeddings2: (A, D).
        """
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)


def items_of(batch: Mapping[str, Any]) -> Iterator[Item]:
    """The rows of one of mteb's batches as items.

    Args:
        batch: the columns `text` and `image`, of which either may be absent, or empty in a row.

    Yields:
        One item for each row.

    Raises:
        InputError: if a row has several images.
    """
    texts, images = batch.get("text"), batch.get("image")
    count = len(texts if texts is not None else images if images is not None else ())
    for text, image in zip(texts or [None] * count, images or [None] * count, strict=True):
        if isinstance(text, str) and not text.strip() and image is not None:
            text = None  # an image alone, in a set where others have text
        if isinstance(image, list):
            raise InputError(f"A row holds {len(image)} images: only tasks with one image a row can be run.")
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
