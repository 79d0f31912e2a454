"""How much an unwanted part of a query should count: images of a thing, but not on this background or in this colour.

    python -m research.bench.unwanted --model my-adapter

Each query is a thing, such as "a cat", less what is not wanted, such as "in the snow" or "red", at several weights. Of the ten best images
it is counted how many show the thing, how many do so without what is not wanted, and how many do not show the thing at all.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from rich.progress import track

from research.bench.measuring import console, write_result
from slq.config import ModelConfig
from slq.encoders.opening import open_encoder
from slq.miniature.world.concepts import concepts
from slq.miniature.world.scenes import BACKGROUNDS, Scene, render, sample_scene
from slq.miniature.world.styles import COLOURS
from slq.types import Item

SEED, TOP = 0, 10
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


def main() -> None:
    """Count at every weight; the result goes to research/results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature", help="adapter or base model")
    parser.add_argument("--things", type=int, default=24)
    parser.add_argument("--others", type=int, default=400, help="images of other things")
    parser.add_argument("--seed", type=int, default=SEED)
    options = parser.parse_args()
    torch.set_num_threads(1)
    draw = random.Random(options.seed)
    things = draw.sample(sorted(concepts()), options.things)
    backgrounds = [name for name in BACKGROUNDS if name]
    scenes = [
        replace(sample_scene(draw, 1, first_concept=thing), background=background)
        for thing in things
        for background in backgrounds
        for _ in range(4)
    ]
    scenes += [sample_scene(draw, 1 + number % 2) for number in range(options.others)]
    encoder = open_encoder(ModelConfig(model=options.model, device="cpu"))
    images = encoder.encode([Item(image=render(scene)) for scene in track(scenes, "drawn", console=console)]).vectors
    texts = [*(concepts()[thing].singular for thing in things), *backgrounds, *COLOURS]
    vectors = dict(zip(texts, encoder.encode([Item(text) for text in texts]).vectors, strict=True))
    kinds: dict[str, tuple[list[str], Callable[[Scene, str], bool]]] = {
        "background": (backgrounds, lambda scene, text: scene.background == text),
        "colour": (list(COLOURS), lambda scene, text: all(group.colour == text for group in scene.groups)),
    }
    result = {
        kind: {str(weight): _count(weight, things, unwanted, shows, scenes, images, vectors) for weight in WEIGHTS}
        for kind, (unwanted, shows) in kinds.items()
    }
    write_result("unwanted", {"model": options.model, "of_the_ten_best": result}, sys.argv, options.seed)


def _count(
    weight: float,
    things: list[str],
    unwanted: list[str],
    shows: Callable[[Scene, str], bool],
    scenes: list[Scene],
    images: np.ndarray,
    vectors: dict[str, np.ndarray],
) -> dict[str, float]:
    """Fractions of the ten best images, over all queries."""
    counts = {"the thing": 0, "the thing without it": 0}
    for thing in things:
        for text in unwanted:
            query = vectors[concepts()[thing].singular] - weight * vectors[text]
            best = [scenes[place] for place in np.argsort(-(images @ query), kind="stable")[:TOP]]
            found = [scene for scene in best if any(group.concept == thing for group in scene.groups)]
            counts["the thing"] += len(found)
            counts["the thing without it"] += sum(not shows(scene, text) for scene in found)
    total = TOP * len(things) * len(unwanted)
    return {name: round(count / total, 4) for name, count in counts.items()}


if __name__ == "__main__":
    main()
