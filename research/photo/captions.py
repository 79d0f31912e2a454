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
    """A photograph and some captions of it as tokens."""

    image: Path
    captions: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return sum(map(len, self.captions))


class CaptionTokens:
    """Makes rows for a model: the prompt is a user's turn with the image alone, which the model answers with a caption.

    Captions of one image share its tokens and do not see each other: a row is a small tree, the prompt and a branch for each caption.

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

    def row(self, photograph: Photograph, number: int = 0, count: int = 1) -> CaptionRow:
        """Captions of a photograph; the numbers begin anew where there are no more.

        Args:
            photograph: with its captions.
            number: of the first caption.
            count: how many.
        """
        told = [photograph.captions[each % len(photograph.captions)] for each in range(number, number + count)]
        ids = self._tokenizer([written(each) for each in told], add_special_tokens=False)["input_ids"]
        return CaptionRow(photograph.image, tuple((*each, self._tokenizer.eos_token_id) for each in ids))

    def collate(self, rows: Sequence[CaptionRow]) -> dict[str, Tensor]:
        """Right-padded tensors.

        Args:
            rows: of a batch.

        Returns:
            input_ids, position_ids and labels (B, T), labels at the tokens that predict them and -100 elsewhere; attention_mask
            (B, 1, T, T) bool.
        """
        # Every branch begins with a copy of the prompt's last token, which predicts the first one of its caption.
        shared = self.prompt[:-1]
        length = len(shared) + max(map(len, rows))
        filled = {"input_ids": self.pad, "position_ids": 0, "labels": -100, "branch": -1}
        batch = {name: torch.full((len(rows), length), value) for name, value in filled.items()}
        for place, row in enumerate(rows):
            begin = end = len(shared)
            tokens = {"input_ids": [*shared], "position_ids": [*range(begin)], "labels": begin * [-100], "branch": begin * [0]}
            for number, caption in enumerate(row.captions, 1):
                tokens["input_ids"] += [self.prompt[-1], *caption[:-1]]
                tokens["position_ids"] += range(begin, begin + len(caption))
                tokens["labels"] += caption
                tokens["branch"] += len(caption) * [number]
                end += len(caption)
            for name, values in tokens.items():
                batch[name][place, :end] = torch.tensor(values)
        branch_BT = batch.pop("branch")
        same = branch_BT[:, :, None] == branch_BT[:, None, :]  # what fills a row sees itself, or nothing would be left to attend to
        of_prompt = (branch_BT[:, :, None] > 0) & (branch_BT[:, None, :] == 0)
        mask = (same | of_prompt) & torch.ones(length, length, dtype=torch.bool).tril()
        return {**batch, "attention_mask": mask[:, None]}


class CaptionBatches:
    """The batches of every pass over the photographs: some captions of each, others in each pass. They follow from the seed alone.

    Args:
        photographs: to train on.
        tokens: of the model.
        batch_size: captions a batch; the last of a pass may have fewer.
        captions: of a photograph, in one row.
        seed: of the order.
    """

    def __init__(self, photographs: Sequence[Photograph], tokens: CaptionTokens, batch_size: int, captions: int, seed: int):
        self.photographs, self.tokens, self.captions, self.seed = list(photographs), tokens, captions, seed
        self.rows = max(1, batch_size // captions)
        draw = random.Random(f"{seed} first captions")
        self._first = [draw.randrange(len(each.captions)) for each in self.photographs]
        self._pass = lru_cache(maxsize=1)(self._of_pass)

    @property
    def steps(self) -> int:
        """Batches of one pass."""
        return -(-len(self.photographs) // self.rows)

    def batch(self, step: int) -> list[CaptionRow]:
        """The batch of a step, whichever were asked for before.

        Args:
            step: from 0, over all passes.
        """
        return self._pass(step // self.steps)[step % self.steps]

    def _of_pass(self, number: int) -> list[list[CaptionRow]]:
        draw, skipped = random.Random(f"{self.seed} pass {number}"), number * self.captions
        pairs = zip(self.photographs, self._first, strict=True)
        rows = [self.tokens.row(each, first + skipped, self.captions) for each, first in pairs]
        draw.shuffle(rows)
        batches, together = [], self.rows * SORTED_TOGETHER
        for start in range(0, len(rows), together):
            part = sorted(rows[start : start + together], key=len)
            batches += [part[i : i + self.rows] for i in range(0, len(part), self.rows)]
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
        **{name: value for name, value in batch.items() if name != "labels"},
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=projected)},
        use_cache=False,
    ).last_hidden_state
    told_BT = batch["labels"] >= 0  # logits of these alone: the vocabulary is the largest matrix of a small model
    logits_NV = model.lm_head(states_BTD[told_BT]).float()
    losses_N = functional.cross_entropy(logits_NV, batch["labels"][told_BT], reduction="none")
    return losses_N, told_BT.nonzero()[:, 0]
