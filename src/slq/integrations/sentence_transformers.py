"""The encoder as a Sentence Transformers model: encode, similarity, evaluators, quantisation, save.

    SentenceTransformer(modules=[LatentQueryModule(encoder)])

One input module over our own core, so that every number equals the command line's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import InputModule
from torch import Tensor

from slq.data.items import as_item
from slq.encoders.base import OnError, check_finite, check_on_error
from slq.encoders.latent import LatentEncoder
from slq.errors import BadItemsError, Failure, InputError, shorten
from slq.models import PreparedBatch
from slq.types import Embeddings, Item


class LatentQueryModule(InputModule):
    """The one module of a Sentence Transformers model made from an encoder: `preprocess` reads items, `forward` encodes them."""

    def __init__(self, encoder: LatentEncoder):
        super().__init__()
        self.encoder = encoder
        self.model = encoder.model.model
        self.queries = encoder.queries
        self.tokenizer = encoder.model.processor.tokenizer

    @property
    def modalities(self) -> list:
        """What Sentence Transformers may pass on to `preprocess`."""
        return ["text", "image", "message"]

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Inputs to tensors.

        Args:
            inputs: what `as_item` accepts.
            prompt: put in front of each text.

        Returns:
            What `forward` takes.

        Raises:
            BadItemsError: that shows every input of the batch that is wrong (not its index: `encode` sorts by length first).
        """
        messages, items, failures = [], [], []
        for value in inputs:
            try:
                item = as_item(value)
                if prompt:
                    item = Item(text=prompt + (item.text or ""), image=item.image)
                messages.append([self.encoder.model.message(item)])
                items.append(item)
            except InputError as error:
                failures.append(Failure(f"input {shorten(repr(value), 60)}", str(error)))
        if failures:
            raise BadItemsError(failures)
        self.encoder.model.item_processor.truncated(items)  # warns of them
        generation_prompt = self.encoder.queries.generation_prompt
        return dict(self.encoder.model.prepare_messages(messages, generation_prompt).inputs)

    def forward(self, features: dict[str, Tensor], **_: Any) -> dict[str, Tensor]:
        """The features with `sentence_embedding` added: (B, D) float32, each row of length 1.

        Args:
            features: what `preprocess` gave.

        Raises:
            ModelError: if an embedding is not finite.
        """
        return {**features, "sentence_embedding": check_finite(self.encoder.encode_prepared(PreparedBatch(features)))}

    def get_embedding_dimension(self) -> int:
        """Width D of an embedding."""
        return self.encoder.model.dim

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the adapter; the model is named in it, not copied.

        Args:
            output_path: an existing folder.
        """
        Path(output_path).mkdir(parents=True, exist_ok=True)
        self.encoder.adapter.save(Path(output_path))

    @classmethod
    def load(
        cls, model_name_or_path: str, *_: Any, subfolder: str = "", model_kwargs: Mapping[str, Any] | None = None, **__: Any
    ) -> LatentQueryModule:
        """Read an adapter and load the model it names; Sentence Transformers puts it on a device.

        Args:
            model_name_or_path: folder or hub repository of the model.
            subfolder: of the adapter in it.
            model_kwargs: see `loading_of`.

        Raises:
            InputError: for model_kwargs that cannot be passed on.
        """
        return cls(LatentEncoder.from_pretrained(str(Path(model_name_or_path) / subfolder), **loading_of(model_kwargs)))


class LatentSentenceTransformer(SentenceTransformer):
    """A Sentence Transformers model whose `encode` can leave out what cannot be used."""

    def encode(self, inputs: Any, *args: Any, on_error: OnError = "raise", **options: Any) -> Any:
        """Embed inputs as Sentence Transformers does.

        Args:
            inputs: one, or a list of them: strings, images in every form that `slq.types.images.as_image` takes, and {"text", "image"}.
            *args: further arguments of `SentenceTransformer.encode`.
            on_error: what becomes of inputs that cannot be used: `raise` raises one error that lists them all, `skip` leaves them out; each
                input is then prepared twice.
            **options: likewise.

        Returns:
            With `raise` what Sentence Transformers returns. With `skip` an `Embeddings`: row `i` of `vectors` is that of the input whose
            place in `inputs` is `ids[i]`, and `failures` has the place and the reason of each of the others.

        Raises:
            BadItemsError: for inputs that cannot be used, unless they are to be skipped.
            InputError: if on_error is neither of the two.
        """
        if on_error == "raise":
            return super().encode(inputs, *args, **options)
        check_on_error(on_error)
        listed = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
        encoder: LatentEncoder = self[0].encoder  # type: ignore[assignment]
        reasons = {place: reason for place, value in enumerate(listed) if (reason := encoder.fault(value))}
        good = [place for place in range(len(listed)) if place not in reasons]
        vectors = (
            super().encode([listed[place] for place in good], *args, **options) if good else np.zeros((0, encoder.model.dim), np.float32)
        )
        failures = tuple(Failure(str(place), reason) for place, reason in reasons.items())
        return Embeddings(tuple(map(str, good)), vectors, encoder.fingerprint, failures=failures)


def as_sentence_transformer(encoder: LatentEncoder) -> SentenceTransformer:
    """The encoder with the methods of Sentence Transformers.

    Args:
        encoder: latent queries over a model.
    """
    model = LatentSentenceTransformer(modules=[LatentQueryModule(encoder)], device=str(encoder.model.device))
    return model.eval()


def loading_of(model_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """What Sentence Transformers and transformers call `model_kwargs`, as `load_model` takes it.

    Args:
        model_kwargs: `dtype` (or `torch_dtype`; a name, torch's own, or `auto`), `attn_implementation`, `device_map`.

    Raises:
        InputError: for anything else, which would be dropped without a word.
    """
    given = {("dtype" if name == "torch_dtype" else name): value for name, value in (model_kwargs or {}).items()}
    if unknown := sorted(set(given) - {"dtype", "attn_implementation", "device_map", "quantization"}):
        raise InputError(
            f"model_kwargs {', '.join(unknown)} cannot be passed on: slq takes dtype, attn_implementation, device_map and quantization."
        )
    dtype = str(given.pop("dtype", "auto")).removeprefix("torch.")
    return given | ({} if dtype in ("auto", "None") else {"dtype": dtype})


def load(path: str, device: str | None = None, model_kwargs: Mapping[str, Any] | None = None) -> SentenceTransformer:
    """Load an adapter as a Sentence Transformers model.

    `encode` takes strings, images (PIL or pathlib.Path) and {"text", "image"} dicts, mixed in one batch; `similarity` compares. The
    encoder itself is at `model[0].encoder`.

    Args:
        path: the adapter's folder or hub repository.
        device: `cpu`, `cuda`, `cuda:1` or `mps`; None for the first accelerator, or the CPU.
        model_kwargs: how the base model is loaded, see `loading_of`.

    Returns:
        The model, in evaluation mode.

    Raises:
        AdapterError: if there is no adapter that can be read.
        ModelError: if the model that it names cannot be loaded.
        FingerprintMismatchError: if that model is not the one that the adapter was trained on.
        InputError: for model_kwargs that cannot be passed on.
    """
    return as_sentence_transformer(LatentEncoder.from_pretrained(path, device=device, **loading_of(model_kwargs)))
