"""Which items run together: alike in length, as many as a budget of tokens allows, and what that budget may be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL.Image import Image

from slq.data.images import image_pixels
from slq.io.device import memory_of
from slq.models import FrozenModel
from slq.models.preprocessing import MAX_PIXELS
from slq.types import Item

IMAGE_TOKENS = 256  # of an image as most models see it; an estimate, for sorting and for the size of batches
PIXELS_PER_TOKEN = 28 * 28  # the same, where it depends on the image's size
TEMPLATE_TOKENS = 16  # about what stands around an item
LONGEST_BESIDE_SHORTEST = 1.25  # of items that are read: the rest of a batch is padding, which runs through every layer
LONGEST_CACHED_BESIDE_SHORTEST = 2.0  # of cached prefixes: only attention meets their padding, so larger batches pay
SMALL_PASS = 8_192  # tokens of cached prefixes and latents: up to here one pass is faster than two, whatever their lengths
LARGEST_PASS = 32_768  # tokens with gradients; past it a pair costs more on a CPU, whose memory is then asked for anew in every pass


def length_buckets(
    order: Sequence[int],
    lengths: Sequence[int],
    most_tokens: int,
    longest_beside_shortest: float = LONGEST_BESIDE_SHORTEST,
    small: int = 0,
) -> list[list[int]]:
    """Cut an order from short to long into runs, no item much longer than its run's first.

    Args:
        order: positions of items.
        lengths: tokens of every item.
        most_tokens: of a run, with its padding.
        longest_beside_shortest: how many times as long as a run's first its last may be.
        small: tokens up to which a run takes items of any length.

    Returns:
        The runs; their concatenation is `order`.

    Example:
        >>> length_buckets([0, 1, 2, 3], [10, 11, 30, 31], most_tokens=100)
        [[0, 1], [2, 3]]
        >>> length_buckets([0, 1, 2, 3], [10, 11, 30, 31], most_tokens=40)
        [[0, 1], [2], [3]]
    """
    parts: list[list[int]] = []
    for i in order:
        tokens = (len(parts[-1]) + 1) * lengths[i] if parts else 0
        if not parts or tokens > most_tokens or (tokens > small and lengths[i] > longest_beside_shortest * lengths[parts[-1][0]]):
            parts.append([])
        parts[-1].append(i)
    return parts


def bucketed_batches(items: Sequence[Item], model: FrozenModel, most_tokens: int, most_images: int | None = None) -> list[list[int]]:
    """Positions of items that run together: those with images apart from texts, alike in length.

    Args:
        items: of every kind, in any order.
        model: which estimates their lengths.
        most_tokens: of a batch, about.
        most_images: in a batch; None for as many as the tokens allow.

    Returns:
        The batches; every position is in one of them.
    """
    lengths = estimate_tokens(items, model)
    images = sorted((i for i, item in enumerate(items) if item.image is not None), key=lengths.__getitem__)
    texts = sorted((i for i, item in enumerate(items) if item.image is None), key=lengths.__getitem__)
    with_image = length_buckets(images, lengths, most_tokens)
    if most_images:
        with_image = [part[start : start + most_images] for part in with_image for start in range(0, len(part), most_images)]
    return with_image + length_buckets(texts, lengths, most_tokens)


def estimate_tokens(items: Sequence[Item], model: FrozenModel) -> list[int]:
    """About how many tokens each item has: those of texts are counted; images are not opened, at most their files' headers are read.

    Args:
        items: what is encoded.
        model: that encodes them.
    """
    of_texts = model.item_processor.count_tokens([item.text or "" for item in items])
    of_images = [0 if item.image is None else image_tokens(model, item.image) for item in items]
    return [TEMPLATE_TOKENS + of_text + of_image for of_text, of_image in zip(of_texts, of_images, strict=True)]


def image_tokens(model: FrozenModel, image: Path | Image | None = None) -> int:
    """About how many tokens an image has, or, where none is named, one tile of any.

    Args:
        model: that encodes it.
        image: a path, an open image, or None.
    """
    if image is not None and model.item_processor.variable_resolution:
        pixels = min(image_pixels(image), model.preprocessing.max_pixels or MAX_PIXELS)
        return round(pixels / PIXELS_PER_TOKEN) or IMAGE_TOKENS
    return model.item_processor.tokens_per_tile or IMAGE_TOKENS


def max_tokens_that_fit(model: FrozenModel, prefix_caching: bool) -> int:
    """How many tokens may run at once with gradients: those whose activations take about a quarter of the device's memory.

    An estimate of a decoder layer: ten vectors as wide as the model and three as wide as its MLP for each token that carries gradients;
    in the two-pass forward at most every other token does. It depends on nothing that changes while a machine runs, so a resumed run is cut
    into the same parts.

    Args:
        model: the frozen model, on its device.
        prefix_caching: whether the two-pass forward runs.

    Returns:
        At most 32,768.
    """
    config = model.model.config.get_text_config()
    wide = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    bytes_of_token = config.num_hidden_layers * (10 * config.hidden_size + 3 * wide) * model.model.dtype.itemsize
    fitting = memory_of(model.device) // 4 * (2 if prefix_caching else 1) // bytes_of_token
    return max(1, min(LARGEST_PASS, fitting))
