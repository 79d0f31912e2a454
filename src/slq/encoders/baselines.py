"""Baselines: encoders that learn nothing, and so show what the model gives by itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from slq.adapters.latents import LatentQueries
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel, PreparedBatch
from slq.pooling import LastPooling, MeanPooling, Pooling
from slq.types import Item

ONE_WORD = "in one word:"  # as E5-V asks


class LastTokenEncoder(Encoder):
    """The final state of the prompt's last token, where the model is about to answer.

    Args:
        model: what reads the items.
        instruction: text put after every item, such as E5-V's "in one word"; empty for none.
    """

    kind = "last_token"
    pooling: Pooling = LastPooling()

    def __init__(self, model: FrozenModel, instruction: str = ""):
        self.model, self.instruction = model, instruction

    def prompted(self, item: Item) -> Item:
        """The item with the instruction after its text; see `Encoder.prompted`."""
        return _instructed(item, self.instruction)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of each item's last token (B, 1, D); see `Encoder.states_of`."""
        return self.model.last_token(prepared)[:, None]

    @property
    def fingerprint(self) -> str:
        """Hash of what is read, of the instruction and of the model."""
        content = json.dumps([self.kind, self.instruction, self.model.content], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What a result was made with: `kind` and `pooling`, and the instruction if there is one."""
        return {"kind": self.kind, "pooling": "last"} | ({"instruction": self.instruction} if self.instruction else {})


class MeanTokensEncoder(LastTokenEncoder):
    """The mean of the final states of all of an item's tokens, its template's among them."""

    kind = "mean_tokens"
    pooling = MeanPooling()

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of each item's tokens (B, T, D), 0 where a row is padded; see `Encoder.states_of`."""
        states_BTD = self.model.token_states(prepared)
        return states_BTD * prepared.inputs["attention_mask"].to(states_BTD.device)[..., None]

    def describe(self) -> dict[str, Any]:
        """What a result was made with: `kind` and `pooling`, and the instruction if there is one."""
        return super().describe() | {"pooling": "mean"}


class ZeroTokenEncoder(LatentEncoder):
    """One extra token of zeros in place of latent queries, after an instruction where there is one.

    Args:
        model: what reads the items.
        instruction: text put after every item; empty for none.

    Source: the pilot study of SLQ, its Fig. 2.
    """

    kind = "zero_token"

    def __init__(self, model: FrozenModel, instruction: str = ""):
        super().__init__(model, LatentQueries.create(1, model.dim, "zeros"))
        self.instruction = instruction

    def prompted(self, item: Item) -> Item:
        """The item with the instruction after its text; see `Encoder.prompted`."""
        return _instructed(item, self.instruction)

    @property
    def fingerprint(self) -> str:
        """Hash of the token, of the instruction and of the model."""
        return hashlib.sha256(f"{super().fingerprint} {self.instruction}".encode("utf-8", "surrogatepass")).hexdigest()[:16]

    def describe(self) -> dict[str, Any]:
        """What a result was made with: `kind` and `pooling`, and the instruction if there is one."""
        return {"kind": self.kind, "pooling": "mean"} | ({"instruction": self.instruction} if self.instruction else {})


def _instructed(item: Item, instruction: str) -> Item:
    return replace(item, text=f"{item.text or ''} {instruction}".strip()) if instruction else item


BASELINES: dict[str, Callable[[FrozenModel], Encoder]] = {
    "last_token": LastTokenEncoder,
    "last_token_one_word": lambda model: LastTokenEncoder(model, ONE_WORD),
    "mean_tokens": MeanTokensEncoder,
    "zero_token": ZeroTokenEncoder,
    "zero_token_one_word": lambda model: ZeroTokenEncoder(model, ONE_WORD),
}
"""Every encoder that learns nothing, by its name in options."""
