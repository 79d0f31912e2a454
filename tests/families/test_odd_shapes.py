"""Images of extreme shapes cost themselves alone, on every family, and no memory."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tiny_models import FAMILIES

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.models import processor
from slq.training.screening import screen_pairs
from slq.types import Item, Pair

SHAPES = {"dot": (1, 1), "line": (900, 4), "upright": (4, 900), "thread": (20_000, 1), "small": (27, 5), "limit": (200, 1)}
TOO_LONG = {"line", "upright", "thread"}


@pytest.mark.parametrize("folder", FAMILIES, indirect=True)
def test_images_of_every_shape_embed_or_are_skipped(model, folder, monkeypatch):
    monkeypatch.setattr(processor, "LONGEST_PADDED", 500)
    encoder = LatentEncoder(model, LatentQueries(2, model.dim))
    items = [Item(image=Image.new("RGB", shape, (200, 30, 30))) for shape in SHAPES.values()]
    embedded = encoder.encode([*items, "a text"], [*SHAPES, "text"], on_error="skip")
    refused = {failure.item for failure in embedded.failures}
    assert refused == (TOO_LONG if "qwen" in folder.name else set()), embedded.failures
    assert all("crop or pad it" in failure.reason for failure in embedded.failures)
    assert set(embedded.ids) == {*SHAPES, "text"} - refused and np.isfinite(embedded.vectors).all()
    kept, skipped = screen_pairs([Pair(item, (Item("x"),)) for item in items], model)
    assert (len(kept), len(skipped)) == (len(items) - len(refused), len(refused)), "training leaves out the same"


@pytest.mark.parametrize("folder", ["llava_next"], indirect=True)
def test_what_a_processor_refuses_is_the_fault_of_its_item(model, monkeypatch):
    """A family that is not known may refuse an image with any error."""
    own = model.processor.apply_chat_template

    def refuses(conversations, **options):
        if any(part.get("image") and part["image"].width == 13 for [turn] in conversations for part in turn["content"]):
            raise ZeroDivisionError("x" * 10**6)
        return own(conversations, **options)

    monkeypatch.setattr(model.processor, "apply_chat_template", refuses)
    encoder = LatentEncoder(model, LatentQueries(2, model.dim))
    embedded = encoder.encode([Item(image=Image.new("RGB", (width, 9))) for width in (12, 13, 14)], on_error="skip")
    assert embedded.ids == ("0", "2")
    (failure,) = embedded.failures
    assert failure.item == "1" and "the model's processor refuses an image" in failure.reason and len(failure.reason) < 400
    pairs = [Pair(Item(image=Image.new("RGB", (width, 9), color)), (Item("x"),)) for width in (12, 13, 14) for color in ("red", "blue")]
    kept, skipped = screen_pairs(pairs, model)
    assert [pair.query.image.width for pair in kept] == [12, 12, 14, 14], "training leaves out the same, and does not stop half-way"
    assert [each.id for each in skipped] == ["pair 2, query", "pair 3, query"] and "refuses an image" in skipped[0].reason


@pytest.mark.parametrize("folder", ["llava_next"], indirect=True)
def test_a_text_that_a_processor_refuses_costs_no_other_image(model, monkeypatch):
    own = model.processor.apply_chat_template

    def refuses(conversations, **options):
        if any("odd" in part.get("text", "") for [turn] in conversations for part in turn["content"]):
            raise ValueError("an odd text")
        return own(conversations, **options)

    monkeypatch.setattr(model.processor, "apply_chat_template", refuses)
    image = Image.new("RGB", (12, 9))
    kept, skipped = screen_pairs([Pair(Item("an odd text", image), (Item("x"),)), Pair(Item(image=image), (Item("y"),))], model)
    assert len(kept) == 2 and not skipped
