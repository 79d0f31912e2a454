"""The encoder as a Sentence Transformers model: encode, similarity, evaluators, quantisation, save.

    SentenceTransformer(modules=[LatentQueryModule(encoder)])

One input module over our own core, so that every number equals the command line's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from slq.encoders.latent import LatentEncoder
from slq.errors import BadItemsError, Failure, InputError
from slq.models import PreparedBatch
from slq.types import Item

ITEM_KEYS = {"text", "image"}


def as_item(value: Any) -> Item:
    """What `encode` accepts, as an Item.

    str: words. PIL image or pathlib.Path: an image. {"text": ..., "image": ...}: either or both, the image a PIL image, a Path or
    a path string. Raises InputError for anything else.
    """
    if isinstance(value, Item):
        return value
    if isinstance(value, str):
        return Item(text=value)
    if isinstance(value, (Path, Image.Image)):
        return Item(image=value)
    if isinstance(value, dict) and value and set(value) <= ITEM_KEYS:
        image = value.get("image")
        return Item(text=value.get("text"), image=Path(image) if isinstance(image, str) else image)
    raise InputError(
        f"Cannot embed {type(value).__name__}: give a string, a PIL image, a pathlib.Path to an image, or "
        '{"text": ..., "image": ...} with one or both.'
    )


def shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


class LatentQueryModule(InputModule):
    """The one module of a Sentence Transformers model made of an encoder: preprocess reads items, forward embeds them."""

    def __init__(self, encoder: LatentEncoder):
        super().__init__()
        self.encoder = encoder
        self.model = encoder.model.model
        self.queries = encoder.queries
        self.tokenizer = encoder.model.processor.tokenizer

    @property
    def modalities(self) -> list:
        return ["text", "image", "message"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Inputs to tensors; a prompt is put in front of the words.

        Raises BadItemsError that shows every input of the batch that is wrong (not its place: `encode` sorts by length first).
        """
        messages, failures = [], []
        for value in inputs:
            try:
                item = as_item(value)
                if prompt:
                    item = Item(text=prompt + (item.text or ""), image=item.image)
                messages.append([self.encoder.model.message(item)])
            except InputError as error:
                failures.append(Failure(f"input {shorten(repr(value))}", str(error)))
        if failures:
            raise BadItemsError(failures)
        generation_prompt = self.encoder.queries.generation_prompt
        return dict(self.encoder.model.prepare_messages(messages, generation_prompt).inputs)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Adds `sentence_embedding` (B, D) float32, each of length 1."""
        return {**features, "sentence_embedding": self.encoder.encode_prepared(PreparedBatch(features))}

    def get_embedding_dimension(self) -> int:
        return self.encoder.model.dim

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the adapter; the model is named in it, not copied."""
        Path(output_path).mkdir(parents=True, exist_ok=True)
        self.encoder.adapter.save(Path(output_path))

    @classmethod
    def load(cls, model_name_or_path: str, *_: Any, subfolder: str = "", **__: Any) -> LatentQueryModule:
        """Read an adapter and load the model it names."""
        return cls(LatentEncoder.from_pretrained(str(Path(model_name_or_path) / subfolder)))


def as_sentence_transformer(encoder: LatentEncoder) -> SentenceTransformer:
    """The encoder with Sentence Transformers' own surface."""
    model = SentenceTransformer(modules=[LatentQueryModule(encoder)], device=str(encoder.model.device))
    return model.eval()


def load(path: str, device: str | None = None) -> SentenceTransformer:
    """Load an adapter from a folder or hub repository as a Sentence Transformers model.

    `encode` takes strings, images (PIL or pathlib.Path) and {"text", "image"} dicts, mixed in one batch; `similarity` compares. The
    core is at `model[0].encoder`. Raises AdapterError, ModelError or FingerprintMismatchError.
    """
    return as_sentence_transformer(LatentEncoder.from_pretrained(path, device=device))
