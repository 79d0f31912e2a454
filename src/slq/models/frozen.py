"""FrozenModel: the one contract every multimodal LLM is used through.

    prepare(items)               -> PreparedBatch   images and text to tensors, chat template applied
    prefill(prepared)            -> PrefixKV        the items' tokens, once, without gradient
    prefill_packed(batches)      -> [ItemKV]        the same for items to be cached, in one row where the model can be packed
    decode_latents(prefix, Q)    -> (B, N, D)       the latent queries over them: the second pass of the two-pass forward
    forward_reference(batch, Q)  -> (B, N, D)       both in one pass: the reference path, the same values
    token_states(prepared)       -> (B, T, D)       states of the items' own tokens

What the same weights do besides, generating and scoring, is in `models.chat`.

Shapes: B batch, T prefix tokens, N latent queries, D hidden size.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from pathlib import Path
from threading import RLock
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from slq.io.processes import check_spawned
from slq.io.provenance import parameter_hash
from slq.models import attention, chat, packing, vision
from slq.models.families import Family
from slq.models.identity import UNKNOWN, ModelIdentity, identify
from slq.models.kv import ItemKV, PrefixKV, PreparedBatch
from slq.models.passes import Lora, latents_in_place_of_filler, lora_at_latents, read_states
from slq.models.preprocessing import Preprocessing
from slq.models.processor import ItemProcessor
from slq.models.vision import VisionFeatures
from slq.types import Item

P = ParamSpec("P")
R = TypeVar("R")


def _exclusive(method: Callable[Concatenate[FrozenModel, P], R]) -> Callable[Concatenate[FrozenModel, P], R]:
    """A pass over the model during which no other thread's runs: every pass sees a hook, and Qwen-VL keeps positions between calls."""

    @wraps(method)
    def run(self: FrozenModel, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return run


class FrozenModel:
    """A frozen image-text-to-text model with its processor; no parameter ever gets a gradient.

    Threads may share one; their passes over the model take turns.

    Attributes:
        model: transformers' model.
        processor: transformers' processor.
        item_processor: items to tensors, without the model.
        quantization: `8bit` or `4bit`, where the weights are.
        supports_two_pass: whether the two-pass forward holds; false for models with recurrent (linear-attention) layers, which take the
            reference path.
        lock: held during every pass; shared with whatever `with_model` makes, since the two may share weights.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        family: Family,
        name: str,
        revision: str = UNKNOWN,
        preprocessing: Preprocessing | None = None,
        folder: Path | None = None,
    ):
        """Freeze a model that is loaded.

        Args:
            model: transformers' model; it is put into eval mode, and no parameter of it asks for a gradient afterwards.
            processor: its processor.
            family: its row of `models.families`.
            name: hub id, folder or `miniature`.
            revision: commit on the hub.
            preprocessing: how items become tokens; default, as in the SLQ paper.
            folder: where its files are, for its identity.

        Raises:
            ModelError: for preprocessing that the family does not have.
        """
        self.lock = RLock()
        self.model = model.eval().requires_grad_(False)
        attention.install(model)
        self.processor = processor
        self.item_processor = ItemProcessor(processor, family, preprocessing or Preprocessing())
        self.verified = family.verified
        self.supports_two_pass = not getattr(model, "_is_stateful", False)
        self.embedding = model.get_input_embeddings()
        settings = self.preprocessing.to_dict() | {"image_kwargs": self.item_processor.image_kwargs}
        self.quantization: str | None = None
        self._identity = identify(model, processor, name, revision, settings, folder)
        self._hashes: dict[str, str] = {}

    def with_model(self, model: Any, name: str) -> FrozenModel:
        """The same processor over a model of the same class with other weights, which come from no file; its gradients stay as they are.

        Args:
            model: transformers' own.
            name: of its identity.
        """
        other = copy.copy(self)
        other.lock = self.lock
        other.model, other.embedding, other._hashes = model.eval(), model.get_input_embeddings(), {}
        attention.install(model)
        other._identity = replace(self._identity, name=name, revision=UNKNOWN, weights_sha256=None, earlier={})
        return other

    # A lock cannot be handed to another process, where nobody else has the model.

    def __getstate__(self) -> dict[str, Any]:
        check_spawned()
        return {name: value for name, value in self.__dict__.items() if name != "lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=RLock())

    @property
    def identity(self) -> ModelIdentity:
        """What an adapter is bound to; its dtype is that of the weights as they are now."""
        return replace(self._identity, dtype=self.quantization or str(self.model.dtype).removeprefix("torch."))

    @property
    def device(self) -> torch.device:
        """Where the weights are, or the first of them."""
        return self.model.device

    @property
    def preprocessing(self) -> Preprocessing:
        """How items are prepared."""
        return self.item_processor.preprocessing

    @property
    def dim(self) -> int:
        """Hidden size D."""
        return self._identity.dim

    @property
    def supports_kv_cache(self) -> bool:
        """Whether prefixes can be cached item by item and stacked into other batches: false with sliding layers, which drop tokens."""
        layers = DynamicCache(config=self.model.config.get_text_config()).layers
        return self.supports_two_pass and all(type(layer) is DynamicLayer for layer in layers)

    @property
    def supports_vision_cache(self) -> bool:
        """Whether an image's features can stand in for its pixels."""
        return vision.is_supported(self.model)

    @property
    def supports_packing(self) -> bool:
        """Whether items can be read in one row without padding: with torch's attention, in families that the contract test has run."""
        return self.verified and self.supports_kv_cache and self.supports_vision_cache and attention.is_installed(self.model)

    @property
    def content(self) -> dict[str, Any]:
        """What decides embeddings: the identity's, and for weights that came from no file a hash of the weights in memory."""
        identity = self.identity
        if identity.weights_sha256 is not None or identity.revision != UNKNOWN:
            return identity.content()
        return identity.content() | {"weights": self._once("weights", lambda: parameter_hash(self.model))}

    @property
    def fingerprint(self) -> str:
        """Hash of all that keys and values depend on beside the item, also of what changes their rounding alone."""
        rounding = (str(self.model.dtype), attention.implementation(self.model), self.device.type)

        def compute() -> str:
            return hashlib.sha256(json.dumps([self.content, rounding], sort_keys=True).encode()).hexdigest()[:16]

        return self._once(f"fingerprint {rounding}", compute)

    def _once(self, what: str, compute: Callable[[], str]) -> str:
        """A hash that holds as long as the weights keep their dtype."""
        key = f"{what} {self.model.dtype}"
        if key not in self._hashes:
            self._hashes[key] = compute()
        return self._hashes[key]

    # --- items to tensors -------------------------------------------------------------------------------------------------

    def message(self, item: Item) -> dict[str, Any]:
        """The item as one user turn; see `ItemProcessor.message`."""
        return self.item_processor.message(item)

    def prepare(self, items: Sequence[Item], generation_prompt: bool = True) -> PreparedBatch:
        """Items to left-padded tensors on the CPU; see `ItemProcessor.prepare`."""
        return self.item_processor.prepare(items, generation_prompt)

    def prepare_messages(self, conversations: Sequence[Sequence[Mapping[str, Any]]], generation_prompt: bool = True) -> PreparedBatch:
        """Chat conversations to left-padded tensors on the CPU; see `ItemProcessor.prepare_messages`."""
        return self.item_processor.prepare_messages(conversations, generation_prompt)

    # --- tensors to states ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @_exclusive
    def features(self, prepared: PreparedBatch) -> list[VisionFeatures | None]:
        """What the vision encoder gives for each item's image, for `prefill`; None for an item without one.

        Args:
            prepared: from `prepare`, on any device.
        """
        return vision.encode(self.model, prepared.to(self.device).inputs)

    @torch.no_grad()
    @_exclusive
    def prefill(self, prepared: PreparedBatch, images: Sequence[VisionFeatures | None] | None = None) -> PrefixKV:
        """Run the items' tokens through the model, once; their keys and values never depend on the latent queries.

        Args:
            prepared: what `prepare` gave.
            images: what `features` gave for the same items, now or earlier; the vision encoder does not run then.

        Returns:
            The batch's keys and values.
        """
        inputs = prepared.to(self.device).inputs
        positions = self._positions(packing.extend(inputs, 1, self._filler))
        given, cache = self._with_features(inputs, images), DynamicCache(config=self.model.config.get_text_config())
        self.model.base_model(**given, position_ids=positions[..., :-1], past_key_values=cache, use_cache=True)
        return PrefixKV(cache, inputs["attention_mask"], positions[..., -1])

    def prepare_from_features(self, images: Sequence[VisionFeatures]) -> PreparedBatch:
        """What `prepare` gave for items, without pixels, from the features of their images: no image is opened.

        Args:
            images: what `features` gave, of items that have an image.
        """
        return vision.collate(images, self._filler)

    @torch.no_grad()
    @_exclusive
    def prefill_packed(self, batches: Sequence[tuple[PreparedBatch, Sequence[VisionFeatures | None]]]) -> list[ItemKV]:
        """Prefill several batches at once, item by item; where the model can be packed, in one row without padding.

        Args:
            batches: each with what `features` gave for it, or None for every item where the model has no vision cache.

        Returns:
            Each item's keys and values in host memory, in their order: what `prefill` and `PrefixKV.unstack` give for each batch.
        """
        if not self.supports_packing:
            return [item for prepared, images in batches for item in self.prefill(prepared, images).unstack()]
        items = [item for prepared, images in batches for item in self._unpad(prepared, images)]
        order = sorted(range(len(items)), key=lambda i: len(items[i]))  # equally long ones side by side, for attention
        inputs = packing.pack([items[i] for i in order], self.device)
        cache = DynamicCache(config=self.model.config.get_text_config())
        self.model.base_model(**inputs, past_key_values=cache, use_cache=True, **attention.keyword(self.model, "packed"))
        found = dict(zip(order, packing.unpack(cache, [items[i] for i in order]), strict=True))
        return [found[i] for i in range(len(items))]

    @_exclusive
    def decode_latents(self, prefix: PrefixKV, latents: Tensor, hidden_state: str = "final", lora: Lora = None) -> Tensor:
        """Run the latent queries over a prefix; the gradient flows to the latents, and to the matrices of `lora`, alone.

        Args:
            prefix: read, never changed.
            latents: (N, D), the same for every item, or (B, N, D).
            hidden_state: `final`, or `pre_mlp`: what the last layer's attention gives, its MLP left out (FreeRet).
            lora: what is added to linear layers at the latent queries' positions: the same for every item, or a list of one for each,
                None for an item without.

        Returns:
            Final-normed states of the latent queries (B, N, D); the values of `forward_reference` (float32: within 1e-5).
        """
        batch, count = len(prefix), latents.shape[-2]
        mask = torch.cat([prefix.mask, prefix.mask.new_ones(batch, count)], dim=1)  # over the prefix too, (B, T+N)
        positions = prefix.next_position[..., None] + torch.arange(count, device=self.device)
        with read_states(self.model, hidden_state), lora_at_latents(self.model, lora, count):
            output = self.model.base_model(
                inputs_embeds=latents.to(self.model.dtype).expand(batch, -1, -1),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=prefix.fork(),
                use_cache=True,
                **attention.keyword(self.model, "folded"),
            )
        return output.last_hidden_state

    @_exclusive
    def forward_reference(
        self,
        prepared: PreparedBatch,
        latents: Tensor,
        hidden_state: str = "final",
        lora: Lora = None,
        images: Sequence[VisionFeatures | None] | None = None,
    ) -> Tensor:
        """Run items and latent queries in one pass: the reference path that the two-pass forward is tested against.

        Args:
            prepared: what `prepare` gave.
            latents: (N, D) or (B, N, D), appended to the items' tokens.
            hidden_state: as for `decode_latents`.
            lora: as for `decode_latents`.
            images: as for `prefill`.

        Returns:
            Final-normed states of the latent queries (B, N, D).
        """
        count = latents.shape[-2]
        inputs = packing.extend(prepared.to(self.device).inputs, count, self._filler)
        positions = self._positions(inputs)
        given = self._with_features(inputs, images)
        at_latents = lora_at_latents(self.model, lora, count)
        with latents_in_place_of_filler(self.embedding, latents), read_states(self.model, hidden_state), at_latents:
            output = self.model.base_model(**given, position_ids=positions, use_cache=False)
        return output.last_hidden_state[:, -count:]

    @_exclusive
    def token_states(self, prepared: PreparedBatch) -> Tensor:
        """Final-normed states of an item's own tokens (B, T, D), left-padded: what baselines read, without any latent query.

        With gradient where weights of the model have one (`encoders.FineTunedModel`).

        Args:
            prepared: from `prepare`, on any device.
        """
        inputs = prepared.to(self.device).inputs
        return self.model.base_model(**inputs, position_ids=self._positions(inputs), use_cache=False).last_hidden_state

    def last_token(self, prepared: PreparedBatch) -> Tensor:
        """Final-normed state of the last prompt token (B, D), where the model is about to answer; see `token_states`."""
        return self.token_states(prepared)[:, -1]

    def has_image(self, prepared: PreparedBatch) -> Tensor:
        """Which items of a batch have an image (B) bool.

        Args:
            prepared: from `prepare`.
        """
        return (prepared.inputs["input_ids"] == self.model.config.image_token_id).any(dim=1)

    @_exclusive
    def prompt_embeddings(self) -> Tensor:
        """Input embeddings of the generation prompt's tokens (P, D), where the model is about to answer.

        A template without such a prompt (Mistral's) has it answer behind the last token of the user's turn: that one (1, D).
        """
        message = [{"role": "user", "content": [{"type": "text", "text": "probe"}]}]
        render = self.processor.apply_chat_template
        closed = render(message, tokenize=False)
        prompt = render(message, tokenize=False, add_generation_prompt=True)[len(closed) :]
        ids = torch.tensor(self.item_processor.token_ids([prompt or closed])[0])
        return self.embedding(ids[0 if prompt else -1 :].to(self.device)).detach()

    # --- chat -------------------------------------------------------------------------------------------------------------

    def generate(
        self, conversations: Sequence[Sequence[Mapping[str, Any]]], max_new_tokens: int = 32, temperature: float = 0.0
    ) -> list[str]:
        """The model's own answers to chat conversations; see `chat.generate`."""
        return chat.generate(self, conversations, max_new_tokens, temperature)

    def score(self, query: Item, candidates: Sequence[Item], question: str = chat.RERANK_QUESTION, batch_size: int = 8) -> list[float]:
        """How likely the model is to say yes when asked whether each candidate matches the query; see `chat.score`."""
        return chat.score(self, query, candidates, question, batch_size)

    # --- inner workings ---------------------------------------------------------------------------------------------------

    @property
    def _filler(self) -> int:
        return self.processor.tokenizer.pad_token_id

    def _positions(self, inputs: dict[str, Tensor]) -> Tensor:
        """Position ids (..., B, T) by the model's own rule, always explicit: Qwen-VL keeps an offset from its last batch."""
        others = {name: value for name, value in inputs.items() if name != "input_ids"}
        return self.model._prepare_position_ids_for_generation(inputs["input_ids"], others)

    def _unpad(self, prepared: PreparedBatch, images: Sequence[VisionFeatures | None]) -> list[packing.UnpaddedItem]:
        inputs = prepared.to(self.device).inputs
        positions = self._positions(packing.extend(inputs, 1, self._filler))
        return packing.unpad(inputs, positions, images)

    def _with_features(self, inputs: dict[str, Tensor], images: Sequence[VisionFeatures | None] | None) -> dict[str, Any]:
        """The inputs with the images' features, where there are any, in the place of pixels."""
        given = [each for each in images or () if each is not None]
        if not given:
            return inputs
        others = {name: value for name, value in inputs.items() if name not in vision.PIXELS}
        return others | {"mm_encoder_outputs": vision.as_inputs(given, self.device)}
