"""FrozenModel: the one contract every multimodal LLM is used through.

    prepare(items)        -> PreparedBatch       images and text to tensors, chat template applied
    prefix(prepared)      -> PrefixKV   the item's tokens, once, without gradient
    prefixes(batches)     -> [ItemKV]   the same for items to be kept, in one row where the model lets itself be packed
    suffix(states, Q)     -> (B, N, D)      the latent queries over them: the fast path
    full(prepared, Q)     -> (B, N, D)      the concatenated slow twin: the same numbers in one pass

and what the same weights do besides: generate(conversations), score(query, candidates).

Shapes: B batch, T prefix tokens, N latent queries, D hidden size.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, wraps
from pathlib import Path
from threading import RLock
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from slq.errors import InputError, ModelError
from slq.io.provenance import parameter_hash
from slq.models import attention, identity, packing, vision
from slq.models.families import Family
from slq.models.identity import UNKNOWN, ModelIdentity
from slq.models.kv import ItemKV, PrefixKV, PreparedBatch
from slq.models.preprocessing import Preprocessing
from slq.models.processor import ItemProcessor
from slq.models.vision import VisionFeatures
from slq.types import Item

P = ParamSpec("P")
R = TypeVar("R")
RERANK_QUESTION = "Query: {query}\nCandidate: {candidate}\nDoes the candidate match the query? Answer yes or no."


def _alone(method: Callable[Concatenate[FrozenModel, P], R]) -> Callable[Concatenate[FrozenModel, P], R]:
    """A pass over the model during which no other thread's runs: every pass sees a hook, and Qwen-VL keeps positions between calls."""

    @wraps(method)
    def run(self: FrozenModel, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return run


class FrozenModel:
    """A frozen image-text-to-text model with its processor; no parameter ever gets a gradient.

    supports_two_pass: whether the fast path holds; false for models with recurrent (linear-attention) layers, which take the slow twin.
    Threads may share one; their passes over the model take turns. Raises ModelError for preprocessing that the family does not have.
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
        self._lock = RLock()  # one for all that `with_model` makes of it, since they may share weights
        self.model = model.eval().requires_grad_(False)
        attention.install(model)
        self.processor = processor
        self.item_processor = ItemProcessor(processor, family, preprocessing or Preprocessing())
        self.verified = family.verified
        self.supports_two_pass = not getattr(model, "_is_stateful", False)
        self.embedding = model.get_input_embeddings()
        dated = identity.asks_for_the_date(processor)
        self.identity = ModelIdentity(
            name=name,
            revision=revision,
            weights_sha256=None if folder is None else identity.weights_sha256(folder),
            config_sha256=None if folder is None else identity.config_sha256(folder),
            processor=identity.processor_settings(processor),
            tokenizer_sha256=identity.tokenizer_sha256(processor.tokenizer),
            chat_template_sha256=identity.template_sha256(processor),
            preprocessing=self.preprocessing.to_dict() | {"image_kwargs": self.item_processor.image_kwargs},
            dim=self.embedding.weight.shape[1],
            dtype=str(model.dtype).removeprefix("torch."),
            earlier=({} if dated else {"template": identity.earlier_template(processor)})
            | ({"revision": identity.earlier_revision(folder)} if folder is not None and revision == UNKNOWN else {}),
        )

    def with_model(self, model: Any, name: str) -> FrozenModel:
        """The same processor over a model of the same class with other weights, which has no revision; its gradients stay as they are."""
        other = copy.copy(self)
        other.__dict__.pop("fingerprint", None)
        other.model, other.embedding = model.eval(), model.get_input_embeddings()
        attention.install(model)
        other.identity = replace(
            self.identity,
            name=name,
            revision=UNKNOWN,
            weights_sha256=None,
            dtype=str(model.dtype).removeprefix("torch."),
            earlier={},
        )
        return other

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def preprocessing(self) -> Preprocessing:
        return self.item_processor.preprocessing

    @property
    def dim(self) -> int:
        return self.identity.dim

    @property
    def supports_kv_cache(self) -> bool:
        """Whether single prefixes can be kept and joined into other batches: false with sliding-window layers, which drop tokens."""
        layers = DynamicCache(config=self.model.config.get_text_config()).layers
        return self.supports_two_pass and all(type(layer) is DynamicLayer for layer in layers)

    @property
    def supports_vision_cache(self) -> bool:
        """Whether an image's features can stand in for its pixels."""
        return vision.can_be_supplied(self.model)

    @property
    def packs(self) -> bool:
        """Whether items can be read in one row without padding: with torch's attention, in families that the contract test has run."""
        return self.verified and self.supports_kv_cache and self.supports_vision_cache and attention.is_installed(self.model)

    @cached_property
    def fingerprint(self) -> str:
        """Hash of all that prefix states depend on beside the item; for weights without a revision of the weights themselves."""
        known = self.identity.weights_sha256 or self.identity.revision
        weights = parameter_hash(self.model) if known == UNKNOWN else known
        content = json.dumps([weights, self.identity.content(), self.identity.dtype], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    # --- items to tensors -------------------------------------------------------------------------------------------------

    def message(self, item: Item) -> dict[str, Any]:
        """The item as one user turn; raises ImageError, TextError, or InputError for an item without either."""
        return self.item_processor.message(item)

    def prepare(self, items: Sequence[Item], generation_prompt: bool = True) -> PreparedBatch:
        """Items to left-padded tensors on the CPU; raises what `message` raises for the first item that is wrong."""
        return self.item_processor.prepare(items, generation_prompt)

    def prepare_messages(self, conversations: Sequence[Sequence[Mapping[str, Any]]], generation_prompt: bool = True) -> PreparedBatch:
        """Chat conversations to left-padded tensors, with the generation prompt ready for an answer."""
        return self.item_processor.prepare_messages(conversations, generation_prompt)

    # --- tensors to states ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    @_alone
    def features(self, prepared: PreparedBatch) -> list[VisionFeatures | None]:
        """What the vision tower gives for each item's image, for `prefix`; None for an item without one."""
        return vision.read(self.model, prepared.to(self.device).inputs)

    @torch.no_grad()
    @_alone
    def prefill(self, prepared: PreparedBatch, images: Sequence[VisionFeatures | None] | None = None) -> PrefixKV:
        """The items' tokens through the frozen model, once; their keys and values never depend on the latent queries.

        images: what `features` gave for the same items, now or earlier: the vision tower is left out then.
        """
        inputs = prepared.to(self.device).inputs
        positions = self._positions(_extend(inputs, 1, self._filler))
        shown, cache = self._shown(inputs, images), DynamicCache(config=self.model.config.get_text_config())
        self.model.base_model(**shown, position_ids=positions[..., :-1], past_key_values=cache, use_cache=True)
        return PrefixKV(cache, inputs["attention_mask"], positions[..., -1])

    def prepare_from_features(self, images: Sequence[VisionFeatures]) -> PreparedBatch:
        """What `prepare` gave for items, without pixels, from the features of their images: no image is opened."""
        return vision.collate(images, self._filler)

    @torch.no_grad()
    @_alone
    def prefill_packed(self, batches: Sequence[tuple[PreparedBatch, Sequence[VisionFeatures | None]]]) -> list[ItemKV]:
        """Each item's prefix in host memory, in their order: `prefix` of all batches at once, and `split`.

        Where the model can be packed, items of any length stand in one row, and no padding is run. Each batch comes with what `features`
        gave for it; without (`supports_vision_cache` is false), with None for every item.
        """
        if not self.packs:
            return [kept for prepared, images in batches for kept in self.prefill(prepared, images).split()]
        items = [item for prepared, images in batches for item in self._unpadded(prepared, images)]
        order = sorted(range(len(items)), key=lambda i: len(items[i]))  # equally long ones side by side, for attention
        inputs = packing.packed([items[i] for i in order], self.device)
        cache = DynamicCache(config=self.model.config.get_text_config())
        self.model.base_model(**inputs, past_key_values=cache, use_cache=True, **attention.keyword(self.model, "packed"))
        kept = dict(zip(order, packing.taken_apart(cache, [items[i] for i in order]), strict=True))
        return [kept[i] for i in range(len(items))]

    @_alone
    def decode_latents(self, states: PrefixKV, latents: Tensor, readout: str = "final") -> Tensor:
        """Final-normed states of the latent queries (B, N, D); the gradient flows to the latents alone.

        latents: (N, D), the same for every item, or (B, N, D). readout: `final`, or `pre_mlp`: what the last layer's attention gives,
        its MLP left out (FreeRet). Reads `states` without changing it. Same numbers as `full` (fp32: within 1e-5).
        """
        batch, count = len(states), latents.shape[-2]
        mask = torch.cat([states.mask, states.mask.new_ones(batch, count)], dim=1)  # over the prefix too, (B, T+N)
        positions = states.next_position[..., None] + torch.arange(count, device=self.device)
        with self._reading(readout):
            output = self.model.base_model(
                inputs_embeds=latents.to(self.model.dtype).expand(batch, -1, -1),
                attention_mask=mask,
                position_ids=positions,
                past_key_values=states.fork(),
                use_cache=True,
                **attention.keyword(self.model, "folded"),
            )
        return output.last_hidden_state

    @_alone
    def forward_reference(
        self,
        prepared: PreparedBatch,
        latents: Tensor,
        readout: str = "final",
        images: Sequence[VisionFeatures | None] | None = None,
    ) -> Tensor:
        """The slow twin: latent queries (N, D) or (B, N, D) appended to the items' tokens and run in one pass (B, N, D).

        images: as for `prefix`.
        """
        count = latents.shape[-2]
        inputs = _extend(prepared.to(self.device).inputs, count, self._filler)
        positions = self._positions(inputs)
        with self._latents_in_place_of_filler(latents), self._reading(readout):
            output = self.model.base_model(**self._shown(inputs, images), position_ids=positions, use_cache=False)
        return output.last_hidden_state[:, -count:]

    @_alone
    def token_states(self, prepared: PreparedBatch) -> Tensor:
        """Final-normed states of an item's own tokens (B, T, D), left-padded: what zero-shot readouts read, without any latent query.

        With gradient where weights of the model have one (`methods.FineTunedModel`).
        """
        inputs = prepared.to(self.device).inputs
        return self.model.base_model(**inputs, position_ids=self._positions(inputs), use_cache=False).last_hidden_state

    def last_token(self, prepared: PreparedBatch) -> Tensor:
        """Final-normed state of the last prompt token (B, D), where the model is about to answer."""
        return self.token_states(prepared)[:, -1]

    def has_image(self, prepared: PreparedBatch) -> Tensor:
        """Which items of a batch show an image (B) bool."""
        return (prepared.inputs["input_ids"] == self.model.config.image_token_id).any(dim=1)

    @_alone
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

    @torch.no_grad()
    @_alone
    def generate(self, conversations: Sequence[Sequence[Mapping[str, Any]]], max_new_tokens: int = 32) -> list[str]:
        """The model's own greedy answers to chat conversations; adapters play no part in it."""
        inputs = self.prepare_messages(conversations).to(self.device).inputs
        tokens = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers = tokens[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    @torch.no_grad()
    def score(self, query: Item, candidates: Sequence[Item], question: str = RERANK_QUESTION, batch_size: int = 8) -> list[float]:
        """How likely the model is to answer yes when asked whether each candidate fits the query, between 0 and 1; adapters play no part.

        question: what it is asked, with {query} and {candidate} where the two are to stand. The likelihood of yes is set against that of
        no: P(yes) / (P(yes) + P(no)), over the first tokens of both in either case. Raises InputError for a question without the two,
        and what `message` raises.
        """
        parts = re.split(r"(\{query\}|\{candidate\})", question)
        if sorted(part for part in parts if part.startswith("{")) != ["{candidate}", "{query}"]:
            raise InputError(f"A question to score by needs {{query}} and {{candidate}} in it, each once: {question!r}.")
        yes, no = self._first_tokens("yes", "no")
        asked, scores = self.item_processor.parts(query), []
        for start in range(0, len(candidates), batch_size):
            conversations = []
            for candidate in candidates[start : start + batch_size]:
                stands = {"{query}": asked, "{candidate}": self.item_processor.parts(candidate)}
                content = [part for text in parts if text for part in stands.get(text, [{"type": "text", "text": text}])]
                conversations.append([{"role": "user", "content": content}])
            inputs = self.prepare_messages(conversations).to(self.device).inputs
            with self._lock:
                output = self.model.generate(**inputs, max_new_tokens=1, do_sample=False, output_logits=True, return_dict_in_generate=True)
            likely_BV = output.logits[0].float().log_softmax(dim=-1)
            margins_B = likely_BV[:, yes].logsumexp(dim=-1) - likely_BV[:, no].logsumexp(dim=-1)
            scores += margins_B.sigmoid().tolist()
        return scores

    # --- inner workings ---------------------------------------------------------------------------------------------------

    def _first_tokens(self, *words: str) -> list[list[int]]:
        """For each word, tokens that an answer of it, and of no other, begins with: in either case, with and without a space before it."""
        spelled = [[form for each in (word, word.capitalize()) for form in (each, f" {each}")] for word in words]
        begin = [{ids[0] for ids in self.item_processor.token_ids(forms)} for forms in spelled]
        found = [sorted(own - set().union(*(other for other in begin if other is not own))) for own in begin]
        if not all(found):
            raise ModelError(f"This model cannot score: its tokens do not tell {' from '.join(words)} at their beginning.")
        return found

    @property
    def _filler(self) -> int:
        return self.processor.tokenizer.pad_token_id

    def _positions(self, inputs: dict[str, Tensor]) -> Tensor:
        """Position ids (..., B, T) by the model's own rule, always explicit: Qwen-VL keeps an offset from its last batch."""
        others = {name: value for name, value in inputs.items() if name != "input_ids"}
        return self.model._prepare_position_ids_for_generation(inputs["input_ids"], others)

    def _unpadded(self, prepared: PreparedBatch, images: Sequence[VisionFeatures | None]) -> list[packing.Unpadded]:
        inputs = prepared.to(self.device).inputs
        positions = self._positions(_extend(inputs, 1, self._filler))
        return packing.unpadded(inputs, positions, images)

    def _shown(self, inputs: dict[str, Tensor], images: Sequence[VisionFeatures | None] | None) -> dict[str, Any]:
        """The inputs with the images' features, where there are any, in the place of pixels."""
        given = [each for each in images or () if each is not None]
        if not given:
            return inputs
        others = {name: value for name, value in inputs.items() if name not in vision.PIXELS}
        return others | {"mm_encoder_outputs": vision.supplied(given, self.device)}

    @contextmanager
    def _reading(self, readout: str) -> Iterator[None]:
        """Leave out the last layer's MLP for `pre_mlp`: it adds nothing then, and the final norm sees what attention gave."""
        if readout == "final":
            yield
            return
        last = self.model.get_decoder().layers[-1]
        if not hasattr(last, "mlp"):
            raise ModelError(f"The last layer of a {self.model.config.model_type} model has no `mlp` to leave out: read final states.")
        handle = last.mlp.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _latents_in_place_of_filler(self, latents: Tensor) -> Iterator[None]:
        """Replace the embeddings of the last N tokens, out of place, so that gradients reach the latents."""

        def replace(_module: Any, _inputs: Any, embedded_BTD: Tensor) -> Tensor:
            kept = embedded_BTD[:, : -latents.shape[-2]]
            return torch.cat([kept, latents.to(kept.dtype).expand(len(kept), -1, -1)], dim=1)

        handle = self.embedding.register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()


def _extend(inputs: dict[str, Tensor], count: int, filler: int) -> dict[str, Tensor]:
    """Every per-token input (B, T) grown by `count` columns: filler ids, mask 1, token type 0 (text)."""
    shape = inputs["input_ids"].shape
    fill = {"input_ids": filler, "attention_mask": 1}
    extended = dict(inputs)
    for name, value in inputs.items():
        if value.shape == shape:
            extended[name] = torch.cat([value, value.new_full((shape[0], count), fill.get(name, 0))], dim=1)
    return extended
