"""Pre-training batches: one image and several tasks about it in a row, plus tasks of words, all in one forward pass.

Tasks about an image share its tokens but do not see each other: a row is a small tree (the image, then branches), which a mask
over positions expresses exactly. So the vision encoder runs once an image however much is asked.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from transformers import BatchEncoding, InternVLProcessor

from research.pretraining.architecture import ASSISTANT, END, IMAGE_TOKEN_NAMES, IMAGE_TOKENS, USER
from research.pretraining.cells import CLASSES, cell_labels
from research.pretraining.mentions import mention_labels, mentions
from research.pretraining.tasks import Task, image_tasks, training_scene, word_task
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.scenes import Scene, render

IMAGE_PROMPT = (
    USER
    + IMAGE_TOKEN_NAMES["start_image_token"]
    + IMAGE_TOKEN_NAMES["context_image_token"] * IMAGE_TOKENS
    + IMAGE_TOKEN_NAMES["end_image_token"]
)
IGNORED = -100


@dataclass
class Row:
    """Tokens of one row; `segment` tells which branch a token is of, `sees_image` whether that branch sees the image."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    segment: list[int] = field(default_factory=list)
    sees_image: list[bool] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    told: dict[str, dict[int, int]] = field(default_factory=lambda: {kind: {} for kind in CLASSES})

    def add(
        self, prompt: list[int], answer: list[int], start: int, sees_image: bool, told: Mapping[int, Mapping[str, int]] | None = None
    ) -> None:
        """A segment whose labels are its answer's tokens, each standing at the token that predicts it.

        told: by place in the prompt, the classes of the thing that the tokens up to there tell of.
        """
        for place, classes in (told or {}).items():
            for kind, label in classes.items():
                self.told[kind][len(self.ids) + place] = label
        ids = prompt + answer
        self.ids += ids
        self.positions += range(start, start + len(ids))
        self.segment += [self.segment[-1] + 1 if self.segment else 0] * len(ids)
        self.sees_image += [sees_image] * len(ids)
        labels = [IGNORED] * len(ids)
        if answer:
            labels[len(prompt) - 1 : -1] = answer
        self.labels += labels


def collate(rows: list[Row], pad: int) -> dict[str, torch.Tensor]:
    """Right-padded tensors: input_ids, position_ids, labels, told_<kind> (B, T); attention_mask (B, 1, T, T) bool."""
    length = max(len(row.ids) for row in rows)

    def padded(values: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([line + [filler] * (length - len(line)) for line in values])

    segment = padded([row.segment for row in rows], -1)
    sees = padded([[int(flag) for flag in row.sees_image] for row in rows], 0).bool()
    same = segment[:, :, None] == segment[:, None, :]
    from_image = sees[:, :, None] & (segment == 0)[:, None, :]
    mask = (same | from_image) & torch.ones(length, length, dtype=torch.bool).tril()
    return {
        "input_ids": padded([row.ids for row in rows], pad),
        "position_ids": padded([row.positions for row in rows], 0),
        "labels": padded([row.labels for row in rows], IGNORED),
        "attention_mask": mask[:, None],
        **{f"told_{kind}": padded([[row.told[kind].get(i, IGNORED) for i in range(length)] for row in rows], IGNORED) for kind in CLASSES},
    }


class PretrainingBatches(Dataset):
    """Batch number i, the same whenever and wherever it is asked for, so that a run can stop and resume."""

    def __init__(
        self,
        processor: InternVLProcessor,
        rows: int,
        steps: int,
        seed: int,
        image_tasks: int,
        word_tasks: int,
        easy_steps: int = 0,
        tells_facts: bool = True,
    ):
        self.processor, self.rows, self.steps, self.seed, self.easy_steps = processor, rows, steps, seed, easy_steps
        self.image_tasks, self.word_tasks = image_tasks, word_tasks
        self.facts = all_facts() if tells_facts else []
        self.names = list(concepts())
        image_processor = processor.image_processor
        self.mean = np.array(image_processor.image_mean, dtype=np.float32)
        self.std = np.array(image_processor.image_std, dtype=np.float32)

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        rng = random.Random(f"{self.seed} {step}")
        noise = np.random.default_rng([self.seed, step])
        early = step < self.easy_steps  # single things first: names before sentences
        images, rows, cells = [], [], []
        for _ in range(self.rows):
            num_groups = rng.choice([1, 1, 1, 1, 2] if early else [1, 2, 2, 3])
            scene = training_scene(rng, num_groups, rng.choice(self.names))
            images.append(self._pixels(render(scene), noise))
            about = image_tasks(scene, rng, self.image_tasks)
            rows.append(self._row(scene, about, [word_task(rng, self.facts) for _ in range(self.word_tasks)]))
            cells.append(cell_labels(scene))
        batch = collate(rows, self.processor.tokenizer.pad_token_id)
        batch["pixel_values"] = torch.stack(images)
        return batch | {f"cell_{kind}": torch.stack([labels[kind] for labels in cells]) for kind in CLASSES}

    def _pixels(self, image: Image.Image, noise: np.random.Generator) -> torch.Tensor:
        """Normalised as the processor does, with a little noise and light (3, 96, 96)."""
        pixels = np.asarray(image, dtype=np.float32) / 255
        pixels = pixels * noise.uniform(0.9, 1.1) + noise.normal(0, noise.uniform(0, 0.04), pixels.shape)
        normalised = (np.clip(pixels, 0, 1).astype(np.float32) - self.mean) / self.std
        return torch.from_numpy(normalised.transpose(2, 0, 1).copy())

    def _row(self, scene: Scene, about_image: list[Task], of_words: list[Task]) -> Row:
        row = Row()
        image = self._tokens(IMAGE_PROMPT)["input_ids"]
        row.add(image, [], start=0, sees_image=False)
        for number, task in enumerate(about_image + of_words):
            sees_image = number < len(about_image)
            opening = "" if sees_image else USER
            prompt = self._tokens(f"{opening}{task.user}{END}{ASSISTANT}")
            answer = self._tokens(f"{task.answer}{END}")["input_ids"]
            told = {}
            for end, concept in mentions(task).items():
                place = next(i for i, (_, stop) in enumerate(prompt["offset_mapping"]) if stop >= len(opening) + end)
                told[place] = mention_labels(concept, scene if sees_image else None)
            start = len(image) if sees_image else 0
            row.add(prompt["input_ids"], answer, start=start, sees_image=sees_image, told=told)
        return row

    def _tokens(self, text: str) -> BatchEncoding:
        return self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
