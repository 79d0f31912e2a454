"""What is checked: an encoder, the built-in items, and what several checks compare with.

Shapes: B items, N latent queries, D hidden size.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import TypeVar

import torch
from PIL import ImageOps
from torch import Tensor

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.io.provenance import parameter_hash
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.models import FrozenModel, PreparedBatch
from slq.pooling import MeanPooling
from slq.types import Item

Value = TypeVar("Value")
SEED = 0
NUM_LATENTS = 20
NEW_TOKENS = 8
IMAGE_SHAPES = ((320, 240), (224, 448), (448, 448))  # width and height: wide, tall, square


@dataclass(frozen=True)
class Tolerances:
    """What rounding explains.

    Attributes:
        states: largest difference relative to the largest value.
        gradient: likewise.
        embeddings: largest difference, or, by_cosine, 1 - smallest cosine.
        by_cosine: which of the two it is.
    """

    states: float
    gradient: float
    embeddings: float
    by_cosine: bool


# In float32 two ways differ by the order in which sums are taken, in half precision by every intermediate that is rounded to 8 bits
# (bfloat16) or 11; 8bit and 4bit weights are computed with in half precision. Measured on the miniature and on the shape of InternVL3-1B,
# the larger of the two: float32 1e-6, 1e-6 and 1e-7; bfloat16 2e-2, 2e-2 and 4e-5. More layers round more often.
FULL = Tolerances(states=1e-5, gradient=1e-4, embeddings=1e-5, by_cosine=False)
HALF = Tolerances(states=5e-2, gradient=5e-2, embeddings=1e-3, by_cosine=True)


@dataclass(frozen=True)
class Measured:
    """One value of a check.

    Attributes:
        what: what it is of.
        value: what was measured.
        tolerance: how large it may be.
    """

    what: str
    value: float
    tolerance: float


def built_in_items() -> list[Item]:
    """Three texts of different lengths, three images of different shapes, and two items of both."""
    rng = random.Random(SEED)
    scenes = [sample_scene(rng, 1 + number) for number in range(len(IMAGE_SHAPES))]
    images = [ImageOps.pad(render(scene), shape, color="white") for scene, shape in zip(scenes, IMAGE_SHAPES, strict=True)]
    texts = ["a cat", caption(scenes[1], rng), " and ".join(caption(scene, rng) for scene in scenes)]
    both = [Item("but blue", images[0]), Item(texts[1], images[1])]
    return [*map(Item, texts), *(Item(image=image) for image in images), *both]


def with_fresh_queries(model: FrozenModel) -> LatentEncoder:
    """The model under randomly initialised latent queries, the same ones every time.

    Args:
        model: the base model.
    """
    return LatentEncoder(model, LatentQueries.create(NUM_LATENTS, model.dim, generator=torch.Generator().manual_seed(SEED)))


class Context:
    """An encoder that is checked; its embeddings of all items in one batch are what the checks compare with.

    Args:
        encoder: latent queries over a model.
    """

    def __init__(self, encoder: LatentEncoder):
        self.encoder = encoder
        self.model = encoder.model
        self.items = built_in_items()
        self.texts, self.images, self.both = [0, 1, 2], [3, 4, 5], [6, 7]
        # As they are before anything is embedded; an error is raised again in the check that asks for the value.
        self.weights_before = at_once(lambda: parameter_hash(self.model.model))
        self.answers_before = at_once(self.answers)

    @property
    def is_quantized(self) -> bool:
        """Whether the weights are quantised."""
        return bool(getattr(self.model.model, "is_quantized", False))

    @property
    def tolerances(self) -> Tolerances:
        """What differences pass, by the dtype of the weights."""
        return FULL if self.model.model.dtype == torch.float32 and not self.is_quantized else HALF

    @property
    def one_of_each(self) -> list[Item]:
        """A text, an image, and an item of both."""
        return [self.items[kind[0]] for kind in (self.texts, self.images, self.both)]

    @cached_property
    def states(self) -> Tensor:
        """Final states (B, N, D) of all items in one batch."""
        with torch.no_grad():
            return self.encoder.states_of(self.prepare(self.items))

    @property
    def embeddings(self) -> Tensor:
        """Pooled embeddings (B, D) of all items in one batch."""
        return MeanPooling()(self.states)

    @torch.no_grad()
    def encode(self, places: Sequence[int]) -> Tensor:
        """Embeddings of the items in these places as one batch.

        Args:
            places: of the built-in items.
        """
        return self.encoder.encode_prepared(self.prepare([self.items[place] for place in places]))

    def prepare(self, items: Sequence[Item]) -> PreparedBatch:
        """Items as one batch, of whatever kinds they are: the encoder itself would put images and words in batches of their own.

        Args:
            items: of any kinds.
        """
        return self.model.prepare(items, self.encoder.generation_prompt)

    def answers(self) -> list[str]:
        """What the model says to one item of each kind."""
        return self.model.generate([[self.model.message(item)] for item in self.one_of_each], max_new_tokens=NEW_TOKENS)

    def compare(self, what: str, found_BD: Tensor) -> Measured:
        """Embeddings that were come to in another way against those of the one batch.

        Args:
            what: the other way is.
            found_BD: (B, D) by the other way.
        """
        name = "1 - smallest cosine" if self.tolerances.by_cosine else "largest difference"
        return Measured(f"{name}: {what}", self._difference(found_BD, self.embeddings), self.tolerances.embeddings)

    def closest(self) -> Measured:
        """The two items that are most alike, by the same measure: within the tolerance, a mix-up of them would pass for rounding."""
        rows = self.embeddings.split(1)
        smallest = min(self._difference(one, other) for one, other in combinations(rows, 2))
        return Measured("difference of the two closest items", smallest, self.tolerances.embeddings)

    def _difference(self, found_BD: Tensor, wanted_BD: Tensor) -> float:
        return one_minus_cosine(found_BD, wanted_BD) if self.tolerances.by_cosine else largest(found_BD - wanted_BD)


def largest(values: Tensor) -> float:
    """Return the largest absolute value.

    Args:
        values: of any shape.

    Raises:
        ValueError: for NaN and infinity, so that a measured value can always be written down.
    """
    if not torch.isfinite(values).all():
        raise ValueError("what the model gives is not finite; float16 overflows where bfloat16 and float32 do not, so try one of them")
    return values.abs().max().item()


def one_minus_cosine(found_BD: Tensor, wanted_BD: Tensor) -> float:
    """The largest of 1 - cosine over pairs of rows of length 1, at least 0.

    Args:
        found_BD: (B, D), each of length 1.
        wanted_BD: (B, D), each of length 1.

    Raises:
        ValueError: as `largest` does.
    """
    return max(0.0, largest(1 - (found_BD.double() * wanted_BD.double()).sum(dim=1)))


def at_once(function: Callable[[], Value]) -> Callable[[], Value]:
    """What `function` gives now, to be asked for later; an error that it raises now is raised then.

    Args:
        function: what is called now.
    """
    try:
        value = function()
    except Exception as error:
        problem = error

        def ask() -> Value:
            raise problem

        return ask
    return lambda: value
