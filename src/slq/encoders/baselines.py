"""Zero-shot readouts: nothing is learned, so they show what the model gives by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

from torch import Tensor

from slq.adapters.latents import LatentQueries
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.models import FrozenModel, PreparedBatch
from slq.pooling import LastPooling, MeanPooling, Pooling
from slq.types import Item

ONE_WORD = "in one word:"  # as E5-V asks


class LastTokenReadout(Encoder):
    """The final state of the prompt's last token, where the model is about to answer.

    instruction: text put after every item, such as E5-V's "in one word"; empty for none.
    """

    kind = "last token"
    pooling: Pooling = LastPooling()

    def __init__(self, model: FrozenModel, instruction: str = ""):
        self.model = model
        self.instruction, self.name = instruction, _named(self.kind, instruction)

    def prompted(self, item: Item) -> Item:
        """The item with the instruction behind its text."""
        return _instructed(item, self.instruction)

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of each item's last token (B, 1, D)."""
        return self.model.last_token(prepared)[:, None]

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{self.kind} {self.instruction} {self.model.identity}".encode()).hexdigest()[:16]


class MeanReadout(LastTokenReadout):
    """The mean of the final states of all of an item's tokens, its template's among them."""

    kind = "mean of tokens"
    pooling = MeanPooling()

    def states_of(self, prepared: PreparedBatch) -> Tensor:
        """Final states of each item's tokens (B, T, D), 0 where a row is padded."""
        states_BTD = self.model.token_states(prepared)
        return states_BTD * prepared.inputs["attention_mask"].to(states_BTD.device)[..., None]


class ZeroTokenReadout(LatentEncoder):
    """One untrained extra token of zeros, behind an instruction where there is one: the paper's pilot study (its Fig. 2)."""

    def __init__(self, model: FrozenModel, instruction: str = ""):
        super().__init__(model, LatentQueries.create(1, model.dim, "zeros"))
        self.instruction, self.name = instruction, _named("zero token", instruction)

    def prompted(self, item: Item) -> Item:
        """The item with the instruction behind its text."""
        return _instructed(item, self.instruction)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(f"{super().fingerprint} {self.instruction}".encode()).hexdigest()[:16]


def _instructed(item: Item, instruction: str) -> Item:
    return replace(item, text=f"{item.text or ''} {instruction}".strip()) if instruction else item


def _named(kind: str, instruction: str) -> str:
    return f"{kind}, {instruction.rstrip(':')}" if instruction else kind


ZERO_SHOT: dict[str, Callable[[FrozenModel], Encoder]] = {
    "last token": LastTokenReadout,
    "last token, in one word": lambda model: LastTokenReadout(model, ONE_WORD),
    "mean of tokens": MeanReadout,
    "zero token": ZeroTokenReadout,
    "zero token, in one word": lambda model: ZeroTokenReadout(model, ONE_WORD),
}
"""Every readout that learns nothing, by its name in tables."""
