"""Why a hit was found: where in its image, and on which words, the similarity of two embeddings rests.

Of an image, integrated gradients of the similarity along the way from a uniform image (every token's features at their mean) to this one;
or, slower and without any gradient, what hiding each block of cells takes from it. Of words, what leaving each of them out takes.

A map is a claim. `deletion_test` holds it to what it says: hiding the fifth of the cells that it calls the hottest must take more from the
similarity than hiding any fifth.

Shapes: P image tokens, D hidden size, S steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slq.data.images import open_image
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError, shorten
from slq.evaluation.statistics import Bounds, QueryValues, interval
from slq.judge.grid import Grid, grid_of, hidden
from slq.pooling import pool
from slq.types import Item, content_hash

MapOf = Callable[[Any, Item, Tensor, Grid], np.ndarray]  # of an encoder, an item, a query's embedding, and the item's grid: (P,)
GRADIENTS = "gradients"
STEPS = 8  # of the way from a uniform image
BLOCK = 2  # cells of a block's side
HOTTEST = 0.2  # fraction of the cells that the deletion test hides
RANDOM_DRAWS = 4  # sets of cells that stand for any fifth
MOST_WORDS = 64  # of a text that are left out one by one
AT_ONCE = 32  # items encoded together


@dataclass(frozen=True)
class Explanation:
    """What a similarity rests on.

    Attributes:
        similarity: of the two embeddings.
        grid: where the cells of the item's image are; None for an item without one, and for a model whose tokens form no grid.
        cells: (P,) what each cell gives to the similarity; empty without a grid.
        query_words: each word of the query's text, with what leaving it out takes from the similarity.
        item_words: the same of the item's.
        note: why there is no map of the image; empty if there is one, or no image.
    """

    similarity: float
    grid: Grid | None
    cells: np.ndarray
    query_words: tuple[tuple[str, float], ...]
    item_words: tuple[tuple[str, float], ...]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON: the map row by row, without what there is none of."""
        words = {"query_words": self.query_words, "item_words": self.item_words}
        told: dict[str, Any] = {name: [[word, round(value, 6)] for word, value in pairs] for name, pairs in words.items() if pairs}
        if self.grid is not None:
            told["map"] = self.cells.reshape(self.grid.rows, self.grid.columns).round(6).tolist()
        return told | ({"note": self.note} if self.note else {})


@dataclass(frozen=True)
class DeletionTest:
    """Whether maps point at what they say.

    Attributes:
        hottest: mean that hiding the hottest fifth takes from the similarity.
        random: mean that hiding a fifth at random takes.
        difference: of the two.
        bounds: 95 % interval of the difference, by image.
        num_pairs: of items and queries.
    """

    hottest: float
    random: float
    difference: float
    bounds: Bounds
    num_pairs: int

    @property
    def faithful(self) -> bool:
        """Whether the hottest fifth takes more, beyond chance."""
        return self.bounds.low > 0


def explain(encoder: Encoder, item: Item, query: Item, method: str = GRADIENTS) -> Explanation:
    """Say what the similarity of an item to a query rests on.

    Args:
        encoder: that found the item; for `gradients` latent queries, of a model whose vision features can be cached.
        item: a hit.
        query: what found it.
        method: of the image's map: `gradients`, or `blocks`, which encodes the image some dozen times.

    Returns:
        The explanation; without a map of the image, `note` says why.

    Raises:
        InputError: for an item or a query that cannot be used, or an unknown method.
    """
    if method not in METHODS:
        raise InputError(f"The method of a map is one of {', '.join(METHODS)}, not {shorten(repr(method))}.")
    target, own = _encode(encoder, [query, item])
    similarity = _similarity(target, own).item()
    grid, cells, note = None, np.zeros(0), ""
    if item.image is not None:
        grid = grid_of(encoder.model, item)
        note = "" if grid else "the model sees this image in several tiles, or its tokens form no grid"
        if grid and method == GRADIENTS and not _has_gradients(encoder):
            grid, note = None, "its gradients cannot be had with this encoder; the method `blocks` needs none"
        if grid:
            cells = METHODS[method](encoder, item, target, grid)
    return Explanation(
        similarity,
        grid,
        cells,
        _words(encoder, query, lambda without: _similarity(without, own), similarity),
        _words(encoder, item, lambda without: _similarity(target, without), similarity),
        note,
    )


def deletion_test(encoder: Encoder, pairs: Sequence[tuple[Item, Item]], method: str | MapOf = GRADIENTS, seed: int = 0) -> DeletionTest:
    """Hide what maps call the hottest fifth of images, and as many cells at random, and compare what is left of the similarity.

    Args:
        encoder: as for `explain`.
        pairs: items with an image, and queries: 100 and more.
        method: of the maps, by its name or as a function.
        seed: of the cells at random.

    Returns:
        Means over all pairs, with the interval of their difference.

    Raises:
        InputError: for an item that cannot be used, or of which there is no map.
    """
    generator, map_of, drops = np.random.default_rng(seed), METHODS[method] if isinstance(method, str) else method, []
    for item, query in pairs:
        grid = grid_of(encoder.model, item)
        if grid is None or (method == GRADIENTS and not _has_gradients(encoder)):
            raise InputError("There is no map of an image with this model, so there is nothing to test.")
        (target,) = _encode(encoder, [query])
        cells = map_of(encoder, item, target, grid)
        image = open_image(item.image)
        inside = np.array(grid.inside(*image.size))
        count = max(1, round(HOTTEST * len(inside)))
        hottest = inside[np.argsort(-cells[inside], kind="stable")[:count]]
        at_random = [generator.choice(inside, count, replace=False) for _ in range(RANDOM_DRAWS)]
        shown = [item, *(replace(item, image=hidden(image, grid, places.tolist())) for places in (hottest, *at_random))]
        whole, hot, *others = (_similarity(target, own).item() for own in _encode(encoder, shown))
        drops.append((whole - hot, whole - sum(others) / RANDOM_DRAWS))
    hot_Q, random_Q = np.array(drops).T
    clusters = tuple(str(content_hash(item)) for item, _ in pairs)
    ((low, high),) = interval([QueryValues((hot_Q - random_Q)[None], clusters)])
    return DeletionTest(hot_Q.mean(), random_Q.mean(), (hot_Q - random_Q).mean(), Bounds(float(low), float(high)), len(pairs))


def _has_gradients(encoder: Encoder) -> bool:
    return isinstance(encoder, LatentEncoder) and encoder.model.supports_vision_cache


@torch.enable_grad()
def by_gradients(encoder: LatentEncoder, item: Item, target: Tensor, grid: Grid, steps: int = STEPS) -> np.ndarray:
    """Integrated gradients of the similarity over the features of the image's tokens.

    Args:
        encoder: latent queries, of a model whose vision features can be cached.
        item: with an image.
        target: the query's embedding (D,) or (G, D).
        grid: of the image.
        steps: of the way; of one step, it is the gradient half-way.

    Returns:
        (P,) float64, what each cell gives to the similarity.

    Source: Sundararajan, Taly and Yan 2017.
    """
    model = encoder.model
    (features,) = model.features(model.prepare([item], encoder.generation_prompt))
    assert features is not None
    layers = [features.pooled, *features.deep]
    means = [layer.mean(dim=0, keepdim=True) for layer in layers]
    leaves = [  # (S, P, D), each step's a little nearer to the image
        torch.stack([mean + (step + 0.5) / steps * (layer - mean) for step in range(steps)]).requires_grad_()
        for layer, mean in zip(layers, means, strict=True)
    ]
    along = [replace(features, pooled=pooled, deep=tuple(deep)) for pooled, *deep in zip(*leaves, strict=True)]
    prepared = model.prepare_from_features(along)
    latents = encoder.queries.of(model.has_image(prepared))
    states = model.forward_reference(prepared, latents, encoder.queries.hidden_state, encoder.queries.lora, along)
    total = torch.stack([_similarity(target, vector) for vector in pool(encoder.pooling, states)]).sum()
    gradients = torch.autograd.grad(total, leaves)
    parts = [(each.mean(dim=0) * (layer - mean)).sum(dim=-1) for each, layer, mean in zip(gradients, layers, means, strict=True)]
    return torch.stack(parts).sum(dim=0).double().cpu().numpy()


def by_blocks(encoder: Encoder, item: Item, target: Tensor, grid: Grid) -> np.ndarray:
    """For each cell the mean, over the blocks that it is in, of what hiding a block takes from the similarity.

    Args:
        encoder: any.
        item: with an image.
        target: the query's embedding (D,) or (G, D).
        grid: of the image.

    Returns:
        (P,) float64.
    """
    image = open_image(item.image)
    side = (min(BLOCK, grid.rows), min(BLOCK, grid.columns))
    corners = [(row, column) for row in range(grid.rows - side[0] + 1) for column in range(grid.columns - side[1] + 1)]
    blocks = [
        [(row + down) * grid.columns + column + across for down in range(side[0]) for across in range(side[1])] for row, column in corners
    ]
    encoded = _encode(encoder, [item, *(replace(item, image=hidden(image, grid, block)) for block in blocks)])
    whole, *without = (_similarity(target, own).item() for own in encoded)
    taken, count = np.zeros(len(grid)), np.zeros(len(grid))
    for block, left in zip(blocks, without, strict=True):
        taken[block] += whole - left
        count[block] += 1
    return taken / count


def _words(encoder: Encoder, item: Item, similarity_of: Callable[[Tensor], Tensor], whole: float) -> tuple[tuple[str, float], ...]:
    """Each of a text's first words, with what leaving it out takes; of a text of one word that is all there is."""
    words = (item.text or "").split()
    if len(words) < 2:
        return tuple((word, whole) for word in words)
    without = [replace(item, text=" ".join(words[:place] + words[place + 1 :])) for place in range(min(len(words), MOST_WORDS))]
    left = [similarity_of(vector).item() for vector in _encode(encoder, without)]
    return tuple((word, whole - each) for word, each in zip(words, left, strict=False))


METHODS: dict[str, MapOf] = {GRADIENTS: by_gradients, "blocks": by_blocks}


@torch.no_grad()
def _encode(encoder: Encoder, items: Sequence[Item]) -> Tensor:
    """Embeddings, past any cache: images with hidden cells come but once."""
    parts = [items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE)]
    prepared = (encoder.model.prepare([encoder.prompted(item) for item in part], encoder.generation_prompt) for part in parts)
    return torch.cat([encoder.encode_prepared(batch) for batch in prepared])


def _similarity(query: Tensor, item: Tensor) -> Tensor:
    """Inner product of two embeddings; of several vectors, the sum over the query's of the best with any of the item's."""
    if query.ndim == 1:
        return query @ item
    return (query @ item.T).amax(dim=1).sum()
