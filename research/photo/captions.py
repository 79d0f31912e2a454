"""Captions as a model is asked for them: rows of tokens, batches of about equal length, and the loss of each.

Shapes: B batch, T tokens, P image tokens, D values of a feature, N tokens of all captions of a batch, V vocabulary.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from transformers.modeling_outputs import BaseModelOutputWithPooling

from research.photo.photographs import Photograph, written

SORTED_TOGETHER = (
    20  # batches that are made of captions sorted by length, so that little is padded; what is in them is drawn anew in each pass
)


@dataclass(frozen=True)
class CaptionRow:
    """A photograph and a caption of it as tokens."""

    image: Path
    caption: tuple[int, ...]


class CaptionTokens:
    """Makes rows for a model: the prompt is a user's turn with the image alone, which the model answers with the caption.

    Attributes:
        prompt: tokens of the turn, the image's among them, and of the generation prompt.
        pad: the token that fills a batch.
    """

    def __init__(self, processor: Any):
        side = processor.image_processor.crop_size["height"]
        turn = [{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (side, side))}]}]
        options = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}
        self.prompt: list[int] = list(processor.apply_chat_template(turn, **options)["input_ids"][0])
        self.pad: int = processor.tokenizer.pad_token_id
        self._tokenizer = processor.tokenizer

    def row(self, photograph: Photograph, number: int) -> CaptionRow:
        """One caption of a photograph; the numbers begin anew where there are no more.

        Args:
            photograph: with its captions.
            number: of the caption.
        """
        text = written(photograph.captions[number % len(photograph.captions)])
        ids = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return CaptionRow(photograph.image, (*ids, self._tokenizer.eos_token_id))

    def collate(self, rows: Sequence[CaptionRow]) -> dict[str, Tensor]:
        """Right-padded tensors (B, T): input_ids, attention_mask, and labels, which stand where they are predicted and are -100 elsewhere.

        Args:
            rows: of a batch.
        """
        length = len(self.prompt) + max(len(row.caption) for row in rows)
        filled = {"input_ids": self.pad, "attention_mask": 0, "labels": -100}
        batch = {name: torch.full((len(rows), length), value) for name, value in filled.items()}
        begin = len(self.prompt)
        for place, row in enumerate(rows):
            end = begin + len(row.caption)
            batch["input_ids"][place, :end] = torch.tensor([*self.prompt, *row.caption])
            batch["attention_mask"][place, :end] = 1
            batch["labels"][place, begin - 1 : end - 1] = torch.tensor(row.caption)
        return batch


class CaptionBatches:
    """The batches of every pass over the photographs: one caption of each, another one in each pass. They follow from the seed alone.

    Args:
        photographs: to train on.
        tokens: of the model.
        batch_size: captions a batch; the last of a pass may have fewer.
        seed: of the order.
    """

    def __init__(self, photographs: Sequence[Photograph], tokens: CaptionTokens, batch_size: int, seed: int):
        self.photographs, self.tokens, self.batch_size, self.seed = list(photographs), tokens, batch_size, seed
        draw = random.Random(f"{seed} first captions")
        self._first = [draw.randrange(len(each.captions)) for each in self.photographs]
        self.of_pass = lru_cache(maxsize=1)(self._of_pass)

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return -(-len(self.photographs) // self.batch_size)

    def batch(self, step: int) -> list[CaptionRow]:
        """The batch of a step, whichever were asked for before.

        Args:
            step: from 0, over all passes.
        """
        return self.of_pass(step // self.steps)[step % self.steps]

    def _of_pass(self, number: int) -> list[list[CaptionRow]]:
        draw = random.Random(f"{self.seed} pass {number}")
        rows = [self.tokens.row(each, first + number) for each, first in zip(self.photographs, self._first, strict=True)]
        draw.shuffle(rows)
        batches, together = [], self.batch_size * SORTED_TOGETHER
        for start in range(0, len(rows), together):
            part = sorted(rows[start : start + together], key=lambda row: len(row.caption))
            batches += [part[i : i + self.batch_size] for i in range(0, len(part), self.batch_size)]
        draw.shuffle(batches)
        return batches


def caption_losses(model: Any, features_BPD: Tensor, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The loss of every token of the captions, given the images.

    Args:
        model: transformers' FastVLM.
        features_BPD: the images', as `FeatureCache` has them.
        batch: what `CaptionTokens.collate` gave, on the model's device.

    Returns:
        The losses in nats (N), and the row of the batch that each is of (N).
    """
    projected = model.model.multi_modal_projector(features_BPD.to(model.device, model.dtype))
    states_BTD = model.model(
        input_ids=batch["input_ids"],
        attention_mask=batch["attention_mask"],
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=projected)},
        use_cache=False,
    ).last_hidden_state
    told_BT = batch["labels"] >= 0  # logits of these alone: the vocabulary is the largest matrix of a small model
    logits_NV = model.lm_head(states_BTD[told_BT]).float()
    losses_N = functional.cross_entropy(logits_NV, batch["labels"][told_BT], reduction="none")
    return losses_N, told_BT.nonzero()[:, 0]
