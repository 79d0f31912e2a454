"""The retriever as a Sentence Transformers model: encode, similarity, evaluators, quantisation, save.

    SentenceTransformer(modules=[LatentQueryModule(retriever)])

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

from slq.backbone import Prepared
from slq.errors import BadItemsError, Failure, InputError
from slq.retriever import Retriever
from slq.types import Item

ITEM_KEYS = {"text", "image"}


def as_item(value: Any) -> Item:
    """What `encode` accepts, as an Item.

    str: words. PIL picture or pathlib.Path: a picture. {"text": ..., "image": ...}: either or both, the image a PIL picture, a Path or
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
        f"Cannot embed {type(value).__name__}: give a string, a PIL picture, a pathlib.Path to a picture, or "
        '{"text": ..., "image": ...} with one or both.'
    )


def shorten(text: str, most: int = 60) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."


class LatentQueryModule(InputModule):
    """The one module of a Sentence Transformers model made of a retriever: preprocess reads items, forward embeds them."""

    def __init__(self, retriever: Retriever):
        super().__init__()
        self.retriever = retriever
        self.model = retriever.backbone.model
        self.queries = retriever.queries
        self.tokenizer = retriever.backbone.processor.tokenizer

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
                messages.append([self.retriever.backbone.message(item)])
            except InputError as error:
                failures.append(Failure(f"input {shorten(repr(value))}", str(error)))
        if failures:
            raise BadItemsError(failures)
        generation_prompt = self.retriever.queries.generation_prompt
        return dict(self.retriever.backbone.prepare_messages(messages, generation_prompt).inputs)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """Adds `sentence_embedding` (B, D) float32, each of length 1."""
        return {**features, "sentence_embedding": self.retriever.embed_prepared(Prepared(features))}

    def get_embedding_dimension(self) -> int:
        return self.retriever.backbone.dim

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the adapter; the backbone is named in it, not copied."""
        Path(output_path).mkdir(parents=True, exist_ok=True)
        self.retriever.adapter.save(Path(output_path))

    @classmethod
    def load(cls, model_name_or_path: str, *_: Any, subfolder: str = "", **__: Any) -> LatentQueryModule:
        """Read an adapter and load the backbone it names."""
        return cls(Retriever.from_pretrained(str(Path(model_name_or_path) / subfolder)))


def as_sentence_transformer(retriever: Retriever) -> SentenceTransformer:
    """The retriever with Sentence Transformers' own surface."""
    model = SentenceTransformer(modules=[LatentQueryModule(retriever)], device=str(retriever.backbone.device))
    return model.eval()


def load(path: str, device: str | None = None) -> SentenceTransformer:
    """Load an adapter from a folder or hub repository as a Sentence Transformers model.

    `encode` takes strings, pictures (PIL or pathlib.Path) and {"text", "image"} dicts, mixed in one batch; `similarity` compares. The
    core is at `model[0].retriever`. Raises AdapterError, BackboneError or MismatchError.
    """
    return as_sentence_transformer(Retriever.from_pretrained(path, device=device))
