"""Item.content_hash: never equal for what the model sees differently."""

from __future__ import annotations

import os
import pickle
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from slq.data.images import open_image
from slq.errors import ImageError
from slq.types import Item, content_hash

RED, BLUE = (255, 0, 0), (0, 0, 255)


def palette_image(colours: list[int], transparency: int | bytes | None = None) -> Image.Image:
    image = Image.new("P", (2, 1))
    image.putpalette(colours)
    image.putpixel((1, 0), 1)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def turned(orientation: int | None) -> Image.Image:
    image = Image.new("RGB", (2, 2), RED)
    image.putpixel((0, 0), BLUE)
    if orientation is not None:
        image.getexif()[0x0112] = orientation
    return image


def different(*items: Item) -> None:
    assert len({item.content_hash for item in items}) == len(items)


def test_palettes_are_told_apart():
    different(*(Item(image=palette_image(colours)) for colours in ([*RED, *BLUE], [*BLUE, *RED], [*RED, *BLUE, 0, 0, 0])))


def test_transparency_is_told_apart():
    different(*(Item(image=palette_image([*RED, *BLUE], transparency)) for transparency in (None, 0, 1, b"\x00\x80")))
    grey, clear = Image.new("L", (2, 2), 7), Image.new("L", (2, 2), 7)
    clear.info["transparency"] = 7
    different(Item(image=grey), Item(image=clear))


def test_orientations_are_told_apart():
    different(*(Item(image=turned(orientation)) for orientation in (None, 2, 3, 6, 8)))


def test_sizes_and_modes_are_told_apart():
    flat = [Image.new("L", size) for size in ((2, 3), (3, 2), (6, 1))]
    different(*map(Item, [None] * 4, [*flat, Image.new("RGB", (2, 1))]))


def test_text_and_image_do_not_run_into_each_other(tmp_path):
    """What stands behind a picture in its file is not the text beside it."""
    for name, content in (("a.png", b"bytes"), ("b.png", b"bytes\0text" + b"words"), ("c.png", b"bytes\0text 5\0words")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (tmp_path / f"{name}.png" for name in "abc")
    different(Item("words", a), Item(None, b), Item(None, c), Item("", a), Item(None, a), Item("words"), Item(""), Item())
    different(Item("a\0text 1\0b"), Item("a"), Item("\ud83d\ude00"), Item("😀"))


def test_equal_content_has_equal_hashes(tmp_path):
    image = turned(6)
    image.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    assert Item("x", tmp_path / "a.png").content_hash == Item("x", tmp_path / "b.png").content_hash
    assert Item("x", image).content_hash == Item("x", turned(6)).content_hash
    opened = Image.open(BytesIO((tmp_path / "a.png").read_bytes()))
    before = Item(image=opened).content_hash
    opened.load()
    assert Item(image=opened).content_hash == before, "whether the pixels were read before does not matter"


def test_a_file_that_changed_is_hashed_again(tmp_path):
    file = tmp_path / "a.png"
    turned(None).save(file)
    item = Item(image=file)
    first, memory = item.content_hash, pickle.loads(pickle.dumps(item))
    assert item.content_hash == memory.content_hash == first
    Image.new("RGB", (2, 2), BLUE).save(file)
    os.utime(file, ns=(1, 1))
    assert item.content_hash == memory.content_hash == Item(image=file).content_hash != first
    file.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        _ = item.content_hash


def test_no_item_and_an_unreadable_one_have_none(tmp_path):
    assert content_hash(None) is None and content_hash(Item(image=tmp_path / "none.png")) is None
    assert content_hash(Item(image=tmp_path)) is None, "a folder"
    assert content_hash(Item("words")) == Item("words").content_hash


MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "HSV", "I;16", "I", "F")


@st.composite
def images(draw) -> Image.Image:
    """Small images of every mode, with palettes, transparency and EXIF from few choices, so that two are often nearly the same."""
    mode, size = draw(st.sampled_from(MODES)), draw(st.sampled_from([(2, 1), (1, 2), (2, 2)]))
    count = len(Image.new(mode, size).tobytes())
    pixels = draw(st.sampled_from([bytes(count), bytes(range(count)), bytes([1, *[0] * (count - 1)])]))
    image = Image.frombytes(mode, size, pixels)
    if mode in ("P", "PA") and draw(st.booleans()):
        image.putpalette(draw(st.sampled_from([[*RED, *BLUE], [*BLUE, *RED], [*RED, *RED]])))
    transparencies = {"P": [None, 0, 1, b"\x00", b"\x80\x00"], "L": [None, 0, 1], "I;16": [None, 0, 1]}
    transparency = draw(st.sampled_from(transparencies.get(mode, [None])))
    if transparency is not None:
        image.info["transparency"] = transparency
    orientation = draw(st.sampled_from([None, 1, 3, 6]))
    if orientation is not None and draw(st.booleans()):
        image.getexif()[0x0112] = orientation
    elif orientation is not None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.info["exif"] = exif.tobytes()
    return image


def seen(image: Image.Image) -> tuple[object, ...]:
    rgb = open_image(image)
    return rgb.mode, rgb.size, rgb.tobytes()


@settings(max_examples=200, deadline=None)
@given(images(), images())
def test_equal_hashes_mean_that_the_model_sees_the_same(one, other):
    if Item(image=one).content_hash == Item(image=other).content_hash:
        assert seen(one) == seen(other)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.none() | st.text(), st.none() | st.binary(min_size=1, max_size=8)), min_size=2, max_size=6, unique=True))
def test_every_text_with_every_file_has_a_hash_of_its_own(tmp_path_factory, contents):
    folder = tmp_path_factory.mktemp("files")
    items = []
    for number, (text, content) in enumerate(contents):
        if content is not None:
            (folder / str(number)).write_bytes(content)
        items.append(Item(text, None if content is None else folder / str(number)))
    different(*items)
