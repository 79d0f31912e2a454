"""Maps of where in an image a similarity comes from, held to the deletion test: those that ship, and others that were tried."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slq.encoders.latent import LatentEncoder
from slq.judge import Grid, deletion_test, grid_of
from slq.judge.explaining import MapOf, by_blocks, by_gradients
from slq.models.attention import SLQ_SDPA
from slq.types import Item

TIMED = 10  # items


def attention(encoder: LatentEncoder, item: Item, target: Tensor, grid: Grid) -> np.ndarray:
    """How much the latent queries attend to each token of the image, over all layers and heads; the same whatever the query."""
    model, weights = encoder.model, []
    decoder, prepared = model.model.get_decoder(), model.prepare([item], encoder.generation_prompt)
    shows = prepared.inputs["input_ids"][0] == model.model.config.image_token_id
    with model.lock, torch.no_grad():
        prefix = model.prefill(prepared)
        decoder.set_attn_implementation("eager")  # the one that gives weights
        hooks = [
            layer.self_attn.register_forward_hook(lambda _module, _inputs, output: weights.append(output[1])) for layer in decoder.layers
        ]
        try:
            model.decode_latents(prefix, encoder.queries.of(model.has_image(prepared)), "final", encoder.queries.lora)
        finally:
            for hook in hooks:
                hook.remove()
            decoder.set_attn_implementation(SLQ_SDPA)
    return torch.stack([each[0].mean(dim=(0, 1))[: len(shows)][shows] for each in weights]).mean(dim=0).double().numpy()


def kept_prefix(encoder: LatentEncoder, item: Item, target: Tensor, grid: Grid) -> np.ndarray:
    """Gradient times input of the keys and values that are kept of the image: no vision encoder, and no pass over the prefix."""
    model = encoder.model
    prepared = model.prepare([item], encoder.generation_prompt)
    prefix, shows = model.prefill(prepared), prepared.inputs["input_ids"][0] == model.model.config.image_token_id
    layers: list[Any] = prefix.cache.layers
    for layer in layers:
        layer.keys, layer.values = layer.keys.requires_grad_(), layer.values.requires_grad_()
    leaves = [each for layer in layers for each in (layer.keys, layer.values)]
    states = model.decode_latents(prefix, encoder.queries.of(model.has_image(prepared)), "final", encoder.queries.lora)
    gradients = torch.autograd.grad(encoder.pooling(states)[0] @ target, leaves)
    parts = [(each * leaf).sum(dim=(0, 1, 3)) for each, leaf in zip(gradients, leaves, strict=True)]
    return torch.stack(parts).sum(dim=0)[shows].detach().double().numpy()


WAYS: Mapping[str, MapOf] = {
    "integrated gradients, 8 steps": by_gradients,
    "blocks of 2 x 2 hidden": by_blocks,
    "gradient half-way, 1 step": partial(by_gradients, steps=1),
    "attention of the latent queries": attention,
    "gradient x input of kept keys and values": kept_prefix,
}


def measured(encoder: LatentEncoder, pairs: Sequence[tuple[Item, Item]], seed: int) -> dict[str, Any]:
    """The deletion test of every way, and seconds of CPU time a map."""
    found = {}
    for name, map_of in WAYS.items():
        test = deletion_test(encoder, pairs, map_of, seed)
        clock = time.process_time()
        for item, query in pairs[:TIMED]:
            grid = grid_of(encoder.model, item)
            assert grid is not None
            map_of(encoder, item, torch.from_numpy(encoder.encode([query]).vectors[0]), grid)
        seconds = (time.process_time() - clock) / len(pairs[:TIMED])
        found[name] = {**asdict(test), "faithful": test.faithful, "seconds": seconds}
    return found
