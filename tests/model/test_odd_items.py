"""Odd items embed like any other: unusual image files, and unusual texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawn import drawn
from PIL import Image
from tolerance import FORWARD, assert_close

from slq.encoders.latent import LatentEncoder
from slq.types import Item


@pytest.fixture(scope="module")
def alone(encoder: LatentEncoder) -> Callable[[Item], np.ndarray]:
    """The vector an item gets in a batch of its own."""

    def embed(item: Item) -> np.ndarray:
        return encoder.encode([item], batch_size=1).vectors[0]

    return embed


def odd_images(folder: Path) -> dict[str, tuple[Path, Image.Image]]:
    """Files of unusual kinds, each with the plain image it shows."""
    folder.mkdir()
    shown: dict[str, tuple[Path, Image.Image]] = {}
    plain = drawn()

    first, second = drawn(seed=2).quantize(64), drawn(seed=3).quantize(64)
    first.save(folder / "animated.gif", save_all=True, append_images=[second])
    shown["animated gif"] = (folder / "animated.gif", first.convert("RGB"))

    cmyk = plain.convert("CMYK")
    cmyk.save(folder / "cmyk.jpg", quality=100)
    with Image.open(folder / "cmyk.jpg") as stored:
        shown["cmyk jpeg"] = (folder / "cmyk.jpg", stored.convert("RGB"))

    grey = np.random.default_rng(4).integers(0, 256, (30, 40), dtype=np.uint8)
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    shown["16-bit png"] = (folder / "deep.png", Image.fromarray(grey).convert("RGB"))

    palette = Image.new("P", (40, 30))
    palette.putpalette([255, 0, 0, 0, 0, 255, 0, 200, 0])
    palette.paste(1, (0, 0, 20, 30))
    palette.save(folder / "palette.png", transparency=0)
    flat = Image.new("RGB", (40, 30), "white")
    flat.paste((0, 0, 255), (0, 0, 20, 30))
    shown["transparent palette"] = (folder / "palette.png", flat)

    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter before it is shown
    plain.save(folder / "turned.png", exif=exif)
    shown["turned by exif"] = (folder / "turned.png", plain.transpose(Image.Transpose.ROTATE_270))

    for width, height in ((1, 1), (2000, 3), (3, 2000)):
        odd = drawn(width, height, seed=5)
        odd.save(folder / f"{width}.png")
        shown[f"{width} x {height}"] = (folder / f"{width}.png", odd)
    return shown


def test_odd_images_embed_as_what_they_show(encoder, alone, tmp_path):
    odd = odd_images(tmp_path / "odd")
    embedded = encoder.encode([Item(image=file) for file, _ in odd.values()], list(odd))
    assert embedded.failures == () and np.isfinite(embedded.vectors).all()
    for name, vector in zip(embedded.ids, embedded.vectors, strict=True):
        assert_close(vector, alone(Item(image=odd[name][1])), steps=FORWARD, why=name)
    # Made square and small without smoothing, as SLQ's code does it, a line of three pixels may fall between those that are read.
    thick = [vector for name, vector in zip(embedded.ids, embedded.vectors, strict=True) if name not in ("2000 x 3", "3 x 2000")]
    assert len({vector.round(3).tobytes() for vector in thick}) == len(odd) - 2, "two different images got one vector"


def test_exif_changes_the_embedding_by_turning_the_image(alone, tmp_path):
    """Else the comparison above would hold for an encoder that is blind to which way is up."""
    file, upright = odd_images(tmp_path / "odd")["turned by exif"]
    as_stored = upright.transpose(Image.Transpose.ROTATE_90)
    assert np.abs(alone(Item(image=file)) - alone(Item(image=as_stored))).max() > 1e-3


ODD_TEXTS = {
    "short": "cat",
    "long": "a red cat sits on a mat beside the house " * 2440,  # 100,040 characters
    "long without a space": "a" * 100_000,
    "arabic": "قطة حمراء تجلس على السجادة",
    "chinese": "一只红色的猫坐在垫子上",
    "emoji": "🐈‍⬛ 👩‍👩‍👧‍👦 🏳️‍🌈",
    "combining": "n\u0303\u0323" * 50,
    "invisible": "\u200b\u200b",
    "control characters": "a\x00b\x1b[31m\r\n",
    "control tokens": "<image> <|end|> <|assistant|>",
    "template": "{{ messages }} {% for x in y %} </s>",
    "one letter": "x",
}


def test_odd_texts_embed_alike_in_a_batch_and_alone(encoder, alone):
    with pytest.warns(UserWarning, match="had more than 128 tokens"):
        embedded = encoder.encode([Item(text) for text in ODD_TEXTS.values()], list(ODD_TEXTS))
    assert embedded.ids == tuple(ODD_TEXTS) and np.isfinite(embedded.vectors).all()
    for name, vector in zip(embedded.ids, embedded.vectors, strict=True):
        assert_close(vector, alone(Item(ODD_TEXTS[name])), steps=FORWARD, why=name)
    assert len({vector.round(4).tobytes() for vector in embedded.vectors}) == len(ODD_TEXTS), "two different texts got one vector"


def test_a_long_text_says_nothing_about_indexing_errors(model, caplog, capfd):
    model.processor.tokenizer.deprecation_warnings.clear()  # transformers says it once
    model.message(Item("a" * 100_000))
    said = caplog.text + capfd.readouterr().err
    assert "indexing errors" not in said


@pytest.mark.filterwarnings("ignore:.*had more than 128 tokens")  # which is what the test is about
def test_only_the_first_tokens_of_a_text_count(model, alone):
    tokenizer = model.processor.tokenizer
    text = "a red cat sits on a mat " * 100
    shared = text[: tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"][127][1]]
    assert len(tokenizer(shared, add_special_tokens=False)["input_ids"]) == 128
    one, other = alone(Item(shared + " and a blue dog")), alone(Item(shared + " by the sea" * 30))
    assert np.array_equal(one, other) and np.array_equal(one, alone(Item(shared)))
    assert np.abs(one - alone(Item("a blue dog " + text))).max() > 1e-3


@pytest.mark.parametrize(
    "text", ["<image>", "<image>" * 300, "<img><image></img>", "<<image>image>", "<|end|>\n<|assistant|>", "<im\x00age>"]
)
def test_words_never_pass_for_control_tokens(text, model):
    tokenizer = model.processor.tokenizer
    added = torch.tensor([number for token, number in tokenizer.get_added_vocab().items() if len(token) > 1])
    image = drawn()

    def control_tokens(item: Item) -> list[int]:
        tokens = model.prepare([item]).inputs["input_ids"][0]
        return tokens[torch.isin(tokens, added)].tolist()

    for opened in (None, image):
        assert control_tokens(Item(text, opened)) == control_tokens(Item("a red cat", opened)), "the words were read as control tokens"
    image_token = tokenizer.convert_tokens_to_ids(model.processor.image_token)
    assert image_token in control_tokens(Item(text, image)) and image_token not in control_tokens(Item(text))
