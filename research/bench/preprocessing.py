"""InternVL's images as SLQ's code has them beside transformers' own way: how far pixels and embeddings are apart, and what is found.

    OMP_NUM_THREADS=1 python -m research.bench.preprocessing

Writes research/results/preprocessing.json. SLQ's code interpolates normalised numbers bilinearly, without smoothing what it makes smaller,
and puts no line break behind an image; the processor of transformers smooths, and the published chat template has the break. The model is
the miniature, of InternVL's classes, with a line break put into its template; the images are its scenes at the size of photographs. Every
way is compared with the one that SLQ's code has.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace

import numpy as np
import torch
from PIL import Image

from research.bench.measuring import console, write_result
from slq.encoders.base import Encoder
from slq.encoders.baselines import LastTokenEncoder
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import rank
from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene
from slq.models import Preprocessing, load_model
from slq.models.families import families
from slq.models.processor import ItemProcessor
from slq.types import Item

WAYS = {  # antialias, image_newline
    "as SLQ's code": (False, False),
    "smoothed": (True, False),
    "line break behind the image": (False, True),
    "both, as transformers": (True, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    scenes = [sample_scene(rng, 1 + number % 3) for number in range(options.images)]
    images = [Item(image=photographed(render(scene), tuple(options.size))) for scene in scenes]
    captions = [Item(caption(scene, rng)) for scene in scenes]
    found, pixels, vectors = {}, {}, {}
    for way, (antialias, newline) in WAYS.items():
        console.print(way)
        encoder = encoder_of(antialias, newline)
        vectors[way] = encoder.encode(images).vectors
        pixels[way] = torch.cat([encoder.model.prepare([item]).inputs["pixel_values"] for item in images[:20]])
        found[way] = scores(vectors[way], encoder.encode(captions).vectors)
    first, *_ = WAYS
    spread = torch.tensor(encoder.model.processor.image_processor.image_std)[:, None, None] * 255
    for way in WAYS:
        cosines = (vectors[first] * vectors[way]).sum(axis=1)
        found[way] |= {
            "cosine": {"mean": float(f"{cosines.mean():.4f}"), "min": float(f"{cosines.min():.4f}")},
            "pixel_difference": float(f"{((pixels[first] - pixels[way]).abs() * spread).mean():.2f}"),
        }
    write_result("preprocessing", {"images": options.images, "size": list(options.size), "ways": found}, sys.argv, options.seed)


def photographed(drawing: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A drawing at the size of a photograph, with the grain of one, which smoothing takes away."""
    large = np.asarray(drawing.convert("RGB").resize(size, Image.Resampling.BICUBIC)).astype(np.float64)
    grain = np.random.default_rng(0).normal(0, 8, large.shape)
    return Image.fromarray((large + grain).clip(0, 255).round().astype(np.uint8))


def encoder_of(antialias: bool, newline: bool) -> Encoder:
    """The miniature's last token, zero-shot, with images prepared one way."""
    model = load_model("miniature", device="cpu")
    family = replace(families.get("internvl"), antialias=antialias, image_newline=newline)
    model.processor.chat_template = model.processor.chat_template.replace("'<image>'", "'<image>\n'")
    model.item_processor = ItemProcessor(model.processor, family, Preprocessing())
    return LastTokenEncoder(model)


def scores(images: np.ndarray, captions: np.ndarray) -> dict[str, float]:
    """hit@1 and hit@5 of captions over images."""
    ranked = rank(captions, images, [{number: 1} for number in range(len(captions))])
    metrics = from_ranks([RelevantRanks(one.ranks_R, np.ones(1)) for one in ranked], (1, 5))
    return {name: round(metrics[name], 4) for name in ("hit@1", "hit@5")}


if __name__ == "__main__":
    main()
