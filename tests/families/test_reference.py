"""The method written out by hand for two families, from the submodules of transformers alone, against what our model gives.

Shapes: B batch, T tokens, N latent queries, S whole sequence (T + N), D hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tolerance import FORWARD, GRADIENT, assert_close
from torch.nn import functional
from transformers import AutoModelForImageTextToText, AutoProcessor

from slq.losses.info_nce import info_nce
from slq.models import FrozenModel, load_model
from slq.pooling import MeanPooling
from slq.types import Item

NUM_LATENTS, TEMPERATURE = 5, 0.07
PARTS = {"internvl": ("images", "padding"), "qwen3_vl": ("images", "padding", "positions", "deepstack")}
IMAGES = [
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)).resize((width, height))
    for seed, (width, height) in enumerate([(160, 64), (64, 128), (96, 96)])
]
QUERIES = [Item(image=IMAGES[0]), Item("but green", IMAGES[1]), Item("two blue boats under a bridge")]
CANDIDATES = [Item("a red cat"), Item(image=IMAGES[2]), Item("boats, blue ones, on the wide and quiet river")]


@pytest.fixture(scope="module", params=["internvl", "qwen3_vl"])
def folder(request, tiny):
    return tiny(request.param)


@pytest.fixture(scope="module")
def model(folder) -> FrozenModel:
    return load_model(str(folder), device="cpu")


@pytest.fixture(scope="module")
def latents() -> torch.Tensor:
    return (torch.randn(NUM_LATENTS, 64, generator=torch.Generator().manual_seed(3)) / 8).requires_grad_()


# --- the reference --------------------------------------------------------------------------------------------------------


def tokenized(processor: Any, items: list[Item], square: bool) -> dict[str, torch.Tensor]:
    """One user turn an item, and the generation prompt. square: InternVL's images, one tile, as SLQ's code has them.

    On grey, bilinear without smoothing, no line break behind them; rounded to 256 steps, where SLQ's code rounds to bfloat16.
    """
    conversations = []
    for item in items:
        parts: list[dict[str, Any]] = []
        if item.image is not None:
            image = item.image
            if square:
                side = max(image.size)
                image = Image.new("RGB", (side, side), (127, 127, 127))
                image.paste(item.image, ((side - item.image.width) // 2, (side - item.image.height) // 2))
                pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].double()
                tile = functional.interpolate(pixels, size=(56, 56), mode="bilinear")[0].add(1e-6).round().byte()
                image = Image.fromarray(tile.permute(1, 2, 0).numpy())
            parts.append({"type": "image", "image": image})
        if item.text is not None:
            parts.append({"type": "text", "text": item.text})
        conversations.append([{"role": "user", "content": parts}])
    options = {
        "padding": True,
        "padding_side": "left",
        **({"crop_to_patches": False} if square else {}),
    }
    return processor.apply_chat_template(
        conversations,
        chat_template=processor.chat_template.replace("<IMG_CONTEXT>\n", "<IMG_CONTEXT>"),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )


def internvl_features(model: Any, pixels: torch.Tensor) -> torch.Tensor:
    """Image tokens (P, D): patch states without the class token, 2 x 2 neighbours side by side, projected."""
    states = model.vision_tower(pixels).last_hidden_state[:, 1:]
    count, patches, width = states.shape
    side = int(patches**0.5)
    grid = states.view(count, side // 2, 2, side // 2, 2, width)  # image, row, row in pair, column, column in pair, width
    merged = grid.permute(0, 1, 3, 2, 4, 5).reshape(count, patches // 4, 4 * width)
    return model.multi_modal_projector(merged).flatten(0, 1)


def multi_axis_positions(ids: list[int], mask: list[int], image_token: int, grids: Any) -> torch.Tensor:
    """Time, row and column (3, S) of each token: text counts on, an image spans a grid, and counting goes on behind its longer side."""
    positions = torch.zeros(3, len(ids), dtype=torch.long)
    place, following = 0, 0
    while place < len(ids):
        if not mask[place]:
            place += 1
        elif ids[place] != image_token:
            positions[:, place] = following
            place, following = place + 1, following + 1
        else:
            _, height, width = next(grids).tolist()
            rows, columns = height // 2, width // 2
            for number in range(rows * columns):
                row, column = divmod(number, columns)
                positions[:, place + number] = torch.tensor([following, following + row, following + column])
            place, following = place + rows * columns, following + max(rows, columns)
    return positions


def attention(mask_BS: torch.Tensor) -> torch.Tensor:
    """What is added to the scores (B, 1, S, S): nothing for tokens that are not padding and not later; a padded row sees itself."""
    length = mask_BS.shape[1]
    seen = torch.ones(length, length, dtype=torch.bool).tril() & mask_BS.bool()[:, None, None]
    seen = seen | torch.eye(length, dtype=torch.bool)
    return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)


def reference(model: Any, inputs: dict[str, torch.Tensor], latents_ND: torch.Tensor, leave_out: str = "") -> torch.Tensor:
    """Embeddings (B, D): the whole sequence through the decoder, layer by layer. leave_out: one of `PARTS`, to see that it matters."""
    body, decoder = model.model, model.model.language_model
    ids, count = inputs["input_ids"], len(latents_ND)
    pictured_BT = ids == model.config.image_token_id
    deep: list[torch.Tensor] = []
    if model.config.model_type == "internvl":
        features = internvl_features(body, inputs["pixel_values"])
    else:
        seen = body.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"])
        features, deep = seen.pooler_output, seen.deepstack_features
    embedded_BTD = decoder.embed_tokens(ids).clone()
    if leave_out != "images":
        embedded_BTD[pictured_BT] = features
    hidden_BSD = torch.cat([embedded_BTD, latents_ND.expand(len(ids), -1, -1)], dim=1)

    mask_BS = functional.pad(inputs["attention_mask"], (0, count), value=1)
    if leave_out == "padding":
        mask_BS = torch.ones_like(mask_BS)
    if model.config.model_type == "internvl" or leave_out == "positions":
        positions = (mask_BS.cumsum(1) - 1).clamp(min=0)
        positions = positions if model.config.model_type == "internvl" else positions.expand(3, -1, -1)
    else:
        grids, filler = iter(inputs["image_grid_thw"]), [-1] * count
        rows = zip(ids.tolist(), mask_BS.tolist(), strict=True)
        positions = torch.stack([multi_axis_positions(row + filler, mask, model.config.image_token_id, grids) for row, mask in rows], dim=1)
    rotations = decoder.rotary_emb(hidden_BSD, positions)
    pictured_BS = functional.pad(pictured_BT, (0, count))
    for number, layer in enumerate(decoder.layers):
        hidden_BSD = layer(hidden_BSD, attention_mask=attention(mask_BS), position_embeddings=rotations)
        if number < len(deep) and leave_out != "deepstack":
            hidden_BSD = hidden_BSD.clone()
            hidden_BSD[pictured_BS] = hidden_BSD[pictured_BS] + deep[number]
    mean_BD = decoder.norm(hidden_BSD)[:, -count:].mean(dim=1)
    return mean_BD / mean_BD.square().sum(dim=1, keepdim=True).sqrt()


def symmetric_loss(embedded_BD: torch.Tensor) -> torch.Tensor:
    """InfoNCE both ways: the first half are queries, the second half their candidates, in the same order."""
    queries_BD, candidates_BD = embedded_BD.chunk(2)
    logits_BB = queries_BD @ candidates_BD.T / TEMPERATURE
    labels = torch.arange(len(logits_BB))
    return (functional.cross_entropy(logits_BB, labels) + functional.cross_entropy(logits_BB.T, labels)) / 2


# --- the comparison -------------------------------------------------------------------------------------------------------


def ours(model: FrozenModel, latents_ND: torch.Tensor, fast: bool) -> tuple[torch.Tensor, torch.Tensor]:
    prepared = model.prepare(QUERIES + CANDIDATES)
    states = model.decode_latents(model.prefill(prepared), latents_ND) if fast else model.forward_reference(prepared, latents_ND)
    embedded = MeanPooling()(states)
    queries, candidates = embedded.chunk(2)
    return embedded, info_nce(queries, candidates, torch.eye(len(QUERIES), dtype=torch.bool), TEMPERATURE)


@pytest.mark.numeric
@pytest.mark.parametrize("fast", [True, False], ids=["prefix-split", "concatenated"])
def test_embeddings_loss_and_gradient_are_those_of_the_reference(folder, model, latents, fast):
    processor, network = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    inputs = tokenized(processor, QUERIES + CANDIDATES, square=folder.name == "internvl")
    wanted = reference(network, inputs, latents)
    loss = symmetric_loss(wanted)
    found, found_loss = ours(model, latents, fast)
    assert_close(found, wanted, steps=FORWARD)
    assert_close(found_loss.item(), loss.item(), steps=FORWARD)
    gradient, found_gradient = (torch.autograd.grad(value, latents)[0] for value in (loss, found_loss))
    assert gradient.abs().max() > 1e-3
    assert_close(found_gradient, gradient, steps=GRADIENT)


def test_each_part_of_the_reference_matters(folder, model, latents):
    processor, network = AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder)
    inputs = tokenized(processor, QUERIES + CANDIDATES, square=folder.name == "internvl")
    wanted = reference(network, inputs, latents)
    for part in PARTS[folder.name]:
        assert (reference(network, inputs, latents, leave_out=part) - wanted).abs().max() > 1e-2, part
