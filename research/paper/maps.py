"""What each latent looks at: its attention to an image's tokens, drawn over the image.

Shapes: B images, N latent queries, T prefix tokens, P image tokens, H heads, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from research.paper import plots
from research.paper.study import Study, say
from research.paper.tuning import chosen
from slq.encoders.latent import LatentEncoder
from slq.errors import ModelError
from slq.models import load_model
from slq.types import Item

IMAGES, SHOWN = 6, 8


def run(study: Study) -> dict[str, Any]:
    """Maps of the first seed's latents over images of the test set, and how far the latents differ in what they look at."""
    say("maps")
    model = load_model(study.model_name, **{**study.loading, "attn_implementation": "eager"})  # it alone hands out its weights
    encoder = LatentEncoder.from_pretrained(chosen(study, "latents")[0].folder, model)
    items = [pair.query for pair in study.pairs("test")[:IMAGES]]
    looks_BNP = attention_to_images(encoder, items)
    side = round(looks_BNP.shape[2] ** 0.5)
    if side * side != looks_BNP.shape[2]:
        raise ModelError(f"Maps need images of a square of tokens; this model's have {looks_BNP.shape[2]}.")
    shown = np.linspace(0, looks_BNP.shape[1] - 1, min(SHOWN, looks_BNP.shape[1])).round().astype(int)
    drawn = [
        {"mean": look_NP.mean(0).reshape(side, side)} | {f"latent {place + 1}": look_NP[place].reshape(side, side) for place in shown}
        for look_NP in looks_BNP.numpy()
    ]
    plots.maps(study.out / "maps.png", [np.asarray(_opened(item)) for item in items], drawn)
    shares_BN = looks_BNP.sum(dim=2)
    return study.write(
        "maps",
        {
            "attention_to_the_image_by_latent": shares_BN.mean(dim=0).tolist(),
            "cosine_between_latents_maps": _mean_cosine(looks_BNP),
        },
    )


@torch.no_grad()
def attention_to_images(encoder: LatentEncoder, items: Sequence[Item]) -> Tensor:
    """Attention of each latent to each image token (B, N, P), the mean over heads and layers; a latent's whole attention sums to 1.

    Items have one image each, of equally many tokens. The model must have been loaded with attn_implementation `eager`.
    """
    model, seen = encoder.model, []
    handles = [
        layer.self_attn.register_forward_hook(lambda _module, _inputs, output: seen.append(output[1]))
        for layer in model.model.get_decoder().layers
    ]
    try:
        prepared = model.prepare([encoder.prompted(item) for item in items], encoder.generation_prompt)
        model.forward_reference(prepared, encoder.queries.of(model.has_image(prepared)))
    finally:
        for handle in handles:
            handle.remove()
    if any(weights is None for weights in seen):
        raise ModelError("Attention cannot be looked at: load the model with attn_implementation='eager'.")
    count = encoder.queries.num_latents
    mean_BNT = torch.stack([weights_BHTT.float().mean(dim=1)[:, -count:] for weights_BHTT in seen]).mean(dim=0)
    of_image_BT = prepared.inputs["input_ids"] == model.model.config.image_token_id
    return torch.stack([look_NT[:, : len(mask_T)][:, mask_T] for look_NT, mask_T in zip(mean_BNT.cpu(), of_image_BT, strict=True)])


def _mean_cosine(looks_BNP: Tensor) -> float:
    """The mean cosine between the maps of different latents over the same image."""
    units_BNP = torch.nn.functional.normalize(looks_BNP, dim=-1)
    cosines_BNN = units_BNP @ units_BNP.mT
    count = cosines_BNN.shape[1]
    return ((cosines_BNN.sum(dim=(1, 2)) - count) / max(1, count * (count - 1))).mean().item()


def _opened(item: Item) -> Image.Image:
    assert item.image is not None
    return (item.image if isinstance(item.image, Image.Image) else Image.open(item.image)).convert("RGB")
