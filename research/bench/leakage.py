"""How well `slq leakage` tells copies of an image from different images, at each distance.

    python -m research.bench.leakage

Different images: scenes of the picture-book world, every fifth making a minimal pair with the one before, and smooth noise that has the
spectrum of photographs; every pair of each kind is compared. Copies: saved as JPEG, scaled, brightened. Writes
research/results/leakage.json.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageEnhance

from research.bench.measuring import write_result
from slq import compat  # noqa: F401  (before provenance imports anything of transformers)
from slq.evaluation.leakage import BLOCK, COLOUR_GAP, MAX_HAMMING_DISTANCE, describe_image
from slq.miniature.export import split_scenes
from slq.miniature.world.scenes import render

DISTANCES = (16, 20, 24, 28, 32, 40)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3000)
    parser.add_argument("--photographs", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    images = {
        "scenes": [render(one.scene) for one in split_scenes("train", options.scenes, options.seed)],
        "photographs": [smooth_noise(np.random.default_rng((options.seed, number))) for number in range(options.photographs)],
    }
    result = {
        kind: {"different": different(listed), "copies": copies(listed[:: max(1, len(listed) // 500)])} for kind, listed in images.items()
    }
    write_result("leakage", {"distance": MAX_HAMMING_DISTANCE, "colour_gap": COLOUR_GAP, **result}, sys.argv, options.seed)


def smooth_noise(draw: np.random.Generator, size: int = 256) -> Image.Image:
    """Noise whose amplitude falls with frequency as that of photographs does, its three colours alike."""
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(size), np.fft.fftfreq(size)))
    frequency[0, 0] = 1
    shared = draw.normal(size=(size, size))
    waves = [np.fft.fft2(0.7 * shared + 0.3 * draw.normal(size=(size, size))) / frequency**1.2 for _ in range(3)]
    shades = np.stack([np.fft.ifft2(wave).real for wave in waves], axis=-1)
    low, high = shades.min(axis=(0, 1)), shades.max(axis=(0, 1))
    return Image.fromarray(((shades - low) / (high - low) * 255).astype(np.uint8))


def different(images: list[Image.Image]) -> dict:
    """Of all pairs of different images: how many are taken for copies at each distance, and the least distance."""
    _, hashes, colours = (np.array(part) for part in zip(*map(describe_image, images), strict=True))
    taken, least, rows = dict.fromkeys(DISTANCES, 0), 256, max(1, BLOCK // len(images))
    for start in range(0, len(images), rows):
        bits = np.bitwise_count(hashes[start : start + rows, None] ^ hashes[None]).sum(axis=-1, dtype=np.int64)
        one, other = np.nonzero(bits <= DISTANCES[-1])
        one, other = one[one + start < other], other[one + start < other]
        alike = np.abs(colours[one + start] - colours[other]).max(axis=1, initial=0) <= COLOUR_GAP
        found = bits[one[alike], other[alike]]
        least = min(least, int(found.min(initial=256)))
        for distance in DISTANCES:
            taken[distance] += int((found <= distance).sum())
    return {"pairs": len(images) * (len(images) - 1) // 2, "taken_for_copies": taken, "least_distance": least}


def copies(images: list[Image.Image]) -> dict[str, dict]:
    """Of the copies of each kind: the share found at each distance, and the largest distance."""
    results = {}
    for name, change in CHANGES.items():
        distances = []
        for image in images:
            (_, one, colour), (_, other, changed) = describe_image(image), describe_image(change(image))
            gap = np.abs(colour - changed).max()
            distances.append(int(np.bitwise_count(one ^ other).sum()) if gap <= COLOUR_GAP else 257)
        found = {distance: float(np.mean([each <= distance for each in distances])) for distance in DISTANCES}
        results[name] = {"found": found, "largest_distance": max(distances)}
    return results


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def scaled(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((int(image.width * factor), int(image.height * factor)), Image.Resampling.BICUBIC)


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "JPEG 90": lambda image: jpeg(image, 90),
    "JPEG 75": lambda image: jpeg(image, 75),
    "JPEG 50": lambda image: jpeg(image, 50),
    "JPEG 30": lambda image: jpeg(image, 30),
    "half the size": lambda image: scaled(image, 0.5),
    "twice the size": lambda image: scaled(image, 2),
    "half the size, JPEG 75": lambda image: jpeg(scaled(image, 0.5), 75),
    "10 % darker": lambda image: ImageEnhance.Brightness(image).enhance(0.9),
    "10 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.1),
    "20 % brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
}


if __name__ == "__main__":
    main()
