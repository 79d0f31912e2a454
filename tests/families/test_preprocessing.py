"""Named ways from items to tokens: what each does to images and words, and that an adapter brings its own back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tolerance import ROUNDED, assert_close

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import FingerprintMismatchError, ModelError
from slq.models import FrozenModel, Preprocessing, load_model
from slq.models.preprocessing import MAX_PIXELS
from slq.models.processor import _interpolated
from slq.types import Item

NATIVE = Preprocessing("native")
LIGHT = (200, 40, 90)
WIDE = Image.new("RGB", (224, 112), LIGHT)


@pytest.fixture(scope="module")
def folders(tiny) -> dict[str, Path]:
    return {name: tiny(name) for name in ("internvl", "qwen3_vl", "idefics3")}


def load(folder: Path, preprocessing: Preprocessing | None = None) -> FrozenModel:
    return load_model(str(folder), device="cpu", preprocessing=preprocessing)


def image_tokens(model: FrozenModel, image: Image.Image) -> int:
    ids = model.prepare([Item(image=image)]).inputs["input_ids"]
    return int((ids == model.model.config.image_token_id).sum())


def text_of(model: FrozenModel, item: Item) -> str:
    return model.processor.tokenizer.decode(model.prepare([item]).inputs["input_ids"][0])


# Images


@pytest.mark.parametrize("size", [(224, 112), (90, 120), (40, 30), (56, 56)])
def test_internvl_as_in_the_paper_is_one_grey_padded_tile_made_bilinear_without_smoothing(folders, size):
    """As in SLQ's code: normalised numbers, interpolated; the one difference is that pixels are rounded to 256 steps in between."""
    model = load(folders["internvl"])
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    pixels = model.prepare([Item(image=noise)]).inputs["pixel_values"]
    assert pixels.shape == (1, 3, 56, 56) and image_tokens(model, noise) == 4
    side = max(size)
    square = Image.new("RGB", (side, side), (127, 127, 127))
    square.paste(noise, ((side - size[0]) // 2, (side - size[1]) // 2))
    processor = model.processor.image_processor
    numbers = (torch.from_numpy(np.array(square)).float() / 255 - torch.tensor(processor.image_mean)) / torch.tensor(processor.image_std)
    wanted = torch.nn.functional.interpolate(numbers.permute(2, 0, 1)[None], size=(56, 56), mode="bilinear")
    steps = (pixels - wanted).abs() * torch.tensor(processor.image_std)[:, None, None] * 255
    assert steps.max() <= 0.51


@pytest.mark.parametrize("size", [(640, 640), (224, 224), (97, 97), (3, 3), (1, 1), (448, 448)])
def test_interpolation_is_torchs(size):
    pixels = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(pixels).permute(2, 0, 1)[None].double(), size=(448, 448), mode="bilinear")
    found = np.asarray(_interpolated(Image.fromarray(pixels), 448, 448))
    assert np.array_equal(found, wanted[0].add(1e-6).round().byte().permute(1, 2, 0).numpy())


def test_what_internvl_as_in_the_paper_does_otherwise_than_its_processor_is_stated(folders):
    kwargs = load(folders["internvl"]).identity.preprocessing["image_kwargs"]
    assert (kwargs["antialias"], kwargs["image_newline"]) == (False, False)
    for other in (load(folders["internvl"], NATIVE), load(folders["qwen3_vl"])):
        assert not {"antialias", "image_newline"} & other.identity.preprocessing["image_kwargs"].keys()


def test_no_line_break_stands_behind_internvls_image_as_in_the_paper(folders):
    item = Item("but blue", WIDE)
    assert "</img>but blue<|im_end|>" in text_of(load(folders["internvl"]), item)
    assert "</img>\nbut blue<|im_end|>" in text_of(load(folders["internvl"], NATIVE), item)


def test_internvl_native_is_tiles_of_the_image_as_it_is(folders):
    model = load(folders["internvl"], NATIVE)
    pixels = model.prepare([Item(image=WIDE)]).inputs["pixel_values"]
    assert len(pixels) > 1 and image_tokens(model, WIDE) == 4 * len(pixels)
    assert_close(pixels[0], pixels[0][:, :1, :1].expand_as(pixels[0]), steps=ROUNDED, why="one colour, no grey")


def test_idefics_is_one_view_or_split(folders):
    large = WIDE.resize((224, 224))
    one, split = image_tokens(load(folders["idefics3"]), large), image_tokens(load(folders["idefics3"], NATIVE), large)
    assert one == 4 and split > 4 and split % 4 == 0


def test_qwen_keeps_the_shape_within_a_bound(folders):
    """Tokens of 32 x 32 pixels; the tiny processor's own bound is 16 of them."""
    square, long = Image.new("RGB", (512, 512)), Image.new("RGB", (512, 128))
    default = load(folders["qwen3_vl"])
    assert image_tokens(default, square) == 16 and image_tokens(default, long) == 16
    few = load(folders["qwen3_vl"], Preprocessing(max_pixels=9 * 32 * 32))
    assert image_tokens(few, square) == 9
    many = load(folders["qwen3_vl"], Preprocessing("native", max_pixels=10**6))
    assert image_tokens(many, square) == 256 and image_tokens(many, long) == 64
    least = load(folders["qwen3_vl"], Preprocessing(max_pixels=2 * 32 * 32))  # less than the processor's own least
    assert image_tokens(least, square) <= 2


def test_the_default_bound_holds_where_a_processor_has_a_wide_one():
    """The published Qwen3-VL takes up to 16,777,216 pixels."""
    from slq.models.families import families
    from slq.models.shapes import build_processor

    processor = build_processor("qwen3_vl")
    sizes = [families.get("qwen3_vl").image_options(each, processor)["size"] for each in (Preprocessing(), NATIVE)]
    assert [size["longest_edge"] for size in sizes] == [MAX_PIXELS, 16777216]
    assert MAX_PIXELS == 1280 * 32**2 and {size["shortest_edge"] for size in sizes} == {65536}


def test_what_has_a_fixed_size_has_no_bound(folders):
    with pytest.raises(ModelError, match=r"nothing to bound: leave out max_pixels\.$"):
        load(folders["internvl"], Preprocessing(max_pixels=1000))


# Words


def test_an_instruction_stands_behind_every_item(folders):
    model = load(folders["internvl"], Preprocessing(instruction="In one word:"))
    assert "a red cat\nIn one word:<|im_end|>" in text_of(model, Item("a red cat"))
    assert "<IMG_CONTEXT></img>\nIn one word:<|im_end|>" in text_of(model, Item(image=WIDE))
    assert "</img>but blue\nIn one word:<|im_end|>" in text_of(model, Item("but blue", WIDE))
    assert "In one word" not in text_of(load(folders["internvl"]), Item("a red cat"))


def test_texts_are_cut_where_asked_and_the_instruction_never_is(folders):
    model = load(folders["internvl"], Preprocessing(max_text_tokens=5, instruction="In one word:"))
    kept = text_of(model, Item("a red cat " * 50)).split("\nIn one word:")[0].split("user\n")[1]
    assert len(model.processor.tokenizer(kept, add_special_tokens=False)["input_ids"]) == 5


# Saved settings


def test_an_adapter_brings_its_settings_and_refuses_others(folders, tmp_path):
    settings = Preprocessing("native", max_pixels=9 * 32 * 32, max_text_tokens=20, instruction="In one word:")
    encoder = LatentEncoder(load(folders["qwen3_vl"], settings), LatentQueries.create(4, 64, generator=torch.Generator().manual_seed(0)))
    encoder.save_pretrained(tmp_path / "adapter")
    again = LatentEncoder.from_pretrained(tmp_path / "adapter", device="cpu")
    assert again.model.preprocessing == settings == Preprocessing.from_dict(again.model.identity.preprocessing)
    items = [Item("a red cat"), Item("but blue", WIDE)]
    assert torch.equal(again.encode_batch(items), encoder.encode_batch(items))
    with pytest.raises(FingerprintMismatchError, match="preprocessing name 'native'"):
        LatentEncoder.from_pretrained(tmp_path / "adapter", load(folders["qwen3_vl"]))


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"name": "best"}, "choose one of paper, native"), ({"max_text_tokens": 0}, "at least 1"), ({"max_pixels": 0}, "at least 1")],
)
def test_settings_that_cannot_be(settings, named):
    with pytest.raises(ModelError, match=named):
        Preprocessing(**settings)
