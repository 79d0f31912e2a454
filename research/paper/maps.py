"""What each latent looks at: its attention to a picture's tokens, drawn over the picture.

Shapes: B pictures, N latent queries, T prefix tokens, P picture tokens, H heads, L layers.
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
from slq.backbone import load_backbone
from slq.errors import BackboneError
from slq.retriever import Retriever
from slq.types import Item

PICTURES, SHOWN = 6, 8


def run(study: Study) -> dict[str, Any]:
    """Maps of the first seed's latents over pictures of the test set, and how far the latents differ in what they look at."""
    say("maps")
    backbone = load_backbone(study.backbone_name, **{**study.loading, "attn_implementation": "eager"})  # it alone hands out its weights
    retriever = Retriever.from_pretrained(chosen(study, "latents")[0].folder, backbone)
    items = [pair.query for pair in study.pairs("test")[:PICTURES]]
    looks_BNP = attention_to_pictures(retriever, items)
    side = round(looks_BNP.shape[2] ** 0.5)
    if side * side != looks_BNP.shape[2]:
        raise BackboneError(f"Maps need pictures of a square of tokens; this backbone's have {looks_BNP.shape[2]}.")
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
            "attention_to_the_picture_by_latent": shares_BN.mean(dim=0).tolist(),
            "cosine_between_latents_maps": _mean_cosine(looks_BNP),
        },
    )


@torch.no_grad()
def attention_to_pictures(retriever: Retriever, items: Sequence[Item]) -> Tensor:
    """Attention of each latent to each picture token (B, N, P), the mean over heads and layers; a latent's whole attention sums to 1.

    Items have one picture each, of equally many tokens. The backbone must have been loaded with attn_implementation `eager`.
    """
    backbone, seen = retriever.backbone, []
    handles = [
        layer.self_attn.register_forward_hook(lambda _module, _inputs, output: seen.append(output[1]))
        for layer in backbone.model.get_decoder().layers
    ]
    try:
        prepared = backbone.prepare([retriever.worded(item) for item in items], retriever.generation_prompt)
        backbone.full(prepared, retriever.queries.of(backbone.pictured(prepared)))
    finally:
        for handle in handles:
            handle.remove()
    if any(weights is None for weights in seen):
        raise BackboneError("Attention cannot be looked at: load the backbone with attn_implementation='eager'.")
    count = retriever.queries.num_latents
    mean_BNT = torch.stack([weights_BHTT.float().mean(dim=1)[:, -count:] for weights_BHTT in seen]).mean(dim=0)
    of_picture_BT = prepared.inputs["input_ids"] == backbone.model.config.image_token_id
    return torch.stack([look_NT[:, : len(mask_T)][:, mask_T] for look_NT, mask_T in zip(mean_BNT.cpu(), of_picture_BT, strict=True)])


def _mean_cosine(looks_BNP: Tensor) -> float:
    """The mean cosine between the maps of different latents over the same picture."""
    units_BNP = torch.nn.functional.normalize(looks_BNP, dim=-1)
    cosines_BNN = units_BNP @ units_BNP.mT
    count = cosines_BNN.shape[1]
    return ((cosines_BNN.sum(dim=(1, 2)) - count) / max(1, count * (count - 1))).mean().item()


def _opened(item: Item) -> Image.Image:
    assert item.image is not None
    return (item.image if isinstance(item.image, Image.Image) else Image.open(item.image)).convert("RGB")
