"""Facts about what images show, learned beside pairs: texts that name a thing or tell of it, and the images that show it.

What a model tells about its own images is written by `slq facts`; see `training.telling`.

Shapes: F facts, I images.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slq.types import Item


@dataclass(frozen=True)
class FactBatch:
    """The facts of one step.

    Attributes:
        items: F texts.
        places: of the I images of the batch that show a known thing, among the batch's queries and candidates.
        positives: (F, I) bool, which image shows what a fact is about; each fact has one.
    """

    items: tuple[Item, ...]
    places: tuple[int, ...]
    positives: Tensor


@dataclass(frozen=True)
class Facts:
    """Every fact, and what every image shows.

    Attributes:
        texts: the facts.
        names: of the thing that each is about.
        shown: the names of what an image shows, by its content hash.
    """

    texts: tuple[Item, ...]
    names: tuple[str, ...]
    shown: Mapping[str, frozenset[str]]

    @property
    def sha256(self) -> str:
        """Of every fact with its name, and of what every image shows."""
        told = [[item.content_hash for item in self.texts], self.names, sorted((key, sorted(names)) for key, names in self.shown.items())]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()

    def draw(self, items: Sequence[Item], count: int, rng: random.Random) -> FactBatch | None:
        """Facts about what the images of a batch show.

        Args:
            items: the batch's queries and candidates.
            count: how many, where there are as many.
            rng: of the choice.

        Returns:
            None where no fact is about anything that the batch shows.
        """
        shown = [self.shown.get(item.content_hash, frozenset()) for item in items]
        places = [place for place, names in enumerate(shown) if names]
        present = frozenset().union(*shown)
        about = [place for place, name in enumerate(self.names) if name in present]
        if not about:
            return None
        chosen = rng.sample(about, min(count, len(about)))
        positives = torch.tensor([[self.names[fact] in shown[place] for place in places] for fact in chosen])
        return FactBatch(tuple(self.texts[fact] for fact in chosen), tuple(places), positives)
