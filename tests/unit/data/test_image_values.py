"""Whatever data sets hold as an image becomes the same image; what is none is refused in one short sentence."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch
from PIL import Image

from slq.data import as_item, open_image, read_items, read_pairs
from slq.data.roots import ImageRoot
from slq.errors import ImageError, InputError
from slq.types import Item
from slq.types.images import MAX_PIXELS, as_image

PIXELS = np.random.default_rng(3).integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png(pixels: np.ndarray = PIXELS) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def stream_at_its_end() -> io.BytesIO:
    stream = io.BytesIO()
    stream.write(png())
    return stream


class LikeAPath:
    def __init__(self, path: Path):
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def forms(file: Path, opened: BinaryIO) -> dict[str, object]:
    content, text = png(), base64.b64encode(png()).decode()
    lines = "\n".join(text[start : start + 76] for start in range(0, len(text), 76))
    return {
        "PIL": Image.fromarray(PIXELS),
        "lazily opened": Image.open(io.BytesIO(content)),
        "Path": file,
        "path as text": str(file),
        "like a path": LikeAPath(file),
        "file URI": file.as_uri(),
        "bytes": content,
        "bytearray": bytearray(content),
        "memoryview": memoryview(content),
        "numpy bytes": np.bytes_(content),
        "BytesIO": io.BytesIO(content),
        "BytesIO at its end": stream_at_its_end(),
        "open file": opened,
        "data URI": f"data:image/png;base64,{text}",
        "data URI, quoted": f"DATA:image/png;BASE64,{text.replace('+', '%2B')}",
        "base64 in lines": lines,
        "base64 without padding": text.rstrip("="),
        "hub": {"bytes": content, "path": "0.png"},
        "hub, no path": {"bytes": content, "path": None},
        "hub, no bytes": {"bytes": None, "path": str(file)},
        "hub, empty bytes": {"bytes": b"", "path": str(file)},
        "HWC": PIXELS,
        "HWC, reversed view": PIXELS[::-1][::-1],
        "CHW": np.moveaxis(PIXELS, 2, 0),
        "list": PIXELS.tolist(),
        "int64": PIXELS.astype(np.int64),
        "uint16": PIXELS.astype(np.uint16) * 257,
        "float to 1": PIXELS / 255,
        "float to 255": PIXELS.astype(np.float32),
        "float16": (PIXELS / 255).astype(np.float16),
        "overshooting": PIXELS / 255 * 1.002,
        "tensor": torch.tensor(PIXELS).permute(2, 0, 1),
        "tensor HWC": torch.tensor(PIXELS),
        "tensor with gradient": (torch.tensor(PIXELS).permute(2, 0, 1) / 255).requires_grad_(),
        "list of rows": [torch.tensor(row) for row in PIXELS],
    }


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("images") / "a b+ü.png"
    path.write_bytes(png())
    return path


def test_every_form_is_the_same_image(file):
    with file.open("rb") as opened:
        values = forms(file, opened)
        check(values)


def check(values: dict[str, object]) -> None:
    for name, value in values.items():
        shown = np.asarray(open_image(Item(image=value).image)).astype(int)
        assert shown.shape == PIXELS.shape, name
        assert np.abs(shown - PIXELS).max() <= (1 if name in ("float16", "overshooting") else 0), name
        if not isinstance(value, str) or name.startswith("data URI"):
            assert isinstance(as_item(value).content_hash, str), name
        assert as_item({"image": value}).content_hash == as_item({"image": value}).content_hash, name


def test_a_file_and_its_bytes_are_one_item(file):
    assert Item(image=file).content_hash == Item(image=png()).content_hash == Item(image=str(file)).content_hash
    assert Item(image=file).content_hash != Item(image=Image.fromarray(PIXELS)).content_hash
    held = bytearray(png())
    item = Item(image=held)
    held[:] = b"changed since"
    assert np.array_equal(np.asarray(open_image(item.image)), PIXELS)
    array = PIXELS.copy()
    item, array[:] = Item(image=array), 0
    assert np.array_equal(np.asarray(open_image(item.image)), PIXELS)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "1", "I;16", "F"])
def test_grey_and_transparent_arrays_are_read_as_such_images(mode):
    values = np.array([[0, 128, 255, 7, 9], [1, 2, 3, 4, 250]])
    image = Image.fromarray(values.astype(np.uint16) * 257) if mode == "I;16" else Image.fromarray(values.astype(np.uint8)).convert(mode)
    array = np.asarray(image)
    if mode == "LA":
        with pytest.raises(ImageError, match="1, 3 or 4 channels"):
            as_image(array)
        return
    assert np.array_equal(np.asarray(open_image(array)), np.asarray(open_image(image)))
    if array.ndim == 2:
        assert np.array_equal(np.asarray(open_image(array[..., None])), np.asarray(open_image(array[None])))


LONG = "x" * 1_000_000
REFUSED = {
    "an address": ("https://example.org/" + LONG, "nothing is fetched"),
    "a bucket": ("s3://bucket/a.png", "nothing is fetched"),
    "another machine": ("file://server/a.png", "another machine"),
    "empty text": ("", "empty text"),
    "blank": (" \n", "empty text"),
    "no base64": ("data:image/png;base64,***" + LONG, "cannot be decoded"),
    "empty data URI": ("data:image/png;base64,", "no bytes at all"),
    "empty bytes": (b"", "no bytes at all"),
    "text file": (io.StringIO(LONG), "opened as text"),
    "empty object": ({}, "neither 'bytes' nor 'path'"),
    "other object": ({"url" + LONG: "a"}, "neither 'bytes' nor 'path'"),
    "empty hub object": ({"bytes": None, "path": None}, "neither 'bytes' nor 'path'"),
    "a number": (3.5, "cannot be given as float"),
    "an object": (object(), "cannot be given as object"),
    "ragged list": ([[1, 2], [3]], "cannot be given as list"),
    "list of texts": ([LONG], "cannot be given as list"),
    "list of images": ([Image.new("RGB", (2, 2)), Image.new("RGB", (2, 2))], "cannot be given as list of shape"),
    "one row": (np.zeros(9), "cannot be given as ndarray of shape"),
    "batch": (np.zeros((1, 3, 4, 4)), "cannot be given as ndarray of shape"),
    "five channels": (np.zeros((6, 6, 5)), "1, 3 or 4 channels"),
    "no pixels": (np.zeros((0, 4)), "must have 1 to"),
    "too many pixels": (np.zeros((1, MAX_PIXELS + 1), bool), "must have 1 to"),
    "normalised": (np.full((2, 2), -2.1), "values from -2.1 to -2.1"),
    "not a number": (np.full((2, 2), np.nan), "values from nan"),
    "infinite": (np.array([[0, np.inf]]), "to inf"),
    "too bright": (np.full((2, 2), 70_000), "values from 70000"),
    "complex": (np.zeros((2, 2), complex), "complex128"),
    "long path": (LONG, "cannot be opened"),
    "NUL": ("a\0" + LONG, "cannot be opened"),
    "no image": (LONG.encode(), "not an image of a known kind"),
    "missing": (LONG[:200] + "/" + LONG[:200], "does not exist"),
    "a device": (Path("/dev/zero"), "a device"),
}


@pytest.mark.parametrize(("value", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_image_is_refused_in_one_short_sentence(value, reason):
    item = Item(image=value)  # one bad item must not keep a list of them from being made
    for use in (lambda: open_image(item.image), lambda: open_image(value)):
        with pytest.raises(ImageError, match=reason) as caught:
            use()
        assert len(str(caught.value)) < 600
    if reason != "not an image of a known kind":
        with pytest.raises(InputError) as caught:
            _ = item.content_hash
        assert len(str(caught.value)) < 600


def test_a_text_that_is_none_is_an_input_error():
    with pytest.raises(InputError, match="must be a str, not int"):
        _ = Item(3).content_hash  # type: ignore[arg-type]


def rows_of_tables(folder, own_cache) -> list[Path]:
    content, text = png(), base64.b64encode(png()).decode()
    folder.text("a.png", content)
    cells = ["a.png", f"data:image/png;base64,{text}", text, (folder.path / "a.png").as_uri()]
    rows = [{"image": cell, "text": f"caption {number}"} for number, cell in enumerate(cells)]
    typed = [{"image": {"bytes": content, "path": None}, "text": "caption 0"}, {"image": {"bytes": None, "path": "a.png"}, "text": "b"}]
    nested = [{"image": {"path": "a.png"}, "text": "c"}, {"image": PIXELS.tolist(), "text": "d"}]
    bare = [{"image": content, "text": "e"}]
    files = [folder.csv("a.csv", rows), folder.csv("a.tsv", rows, delimiter="\t"), folder.jsonl("a.jsonl", [*rows, *nested])]
    return [*files, folder.parquet("a.parquet", typed), folder.parquet("b.parquet", bare)]


def test_tables_hold_images_in_every_form(folder, own_cache):
    for path in rows_of_tables(folder, own_cache):
        pairs, items = read_pairs(path), read_items(path)
        assert not pairs.failures and not items.failures, path.name
        for item in (*(pair.query for pair in pairs.pairs), *items.items.values()):
            assert isinstance(item.image, Path) and np.array_equal(np.asarray(open_image(item.image)), PIXELS), path.name
        assert sum(len(pair.positives) for pair in pairs.pairs) == len(items.items) == pairs.num_rows
    assert len(list((own_cache / "slq" / "images").rglob("*.*"))) <= 3, "equal images share a file"


def test_an_unpacked_image_that_was_torn_is_written_again(folder, own_cache):
    root = ImageRoot.of(folder.path)
    path = root.find({"bytes": png(), "path": "x.png"})
    path.write_bytes(png()[:20])
    assert root.find(png()) != path, "without a name it has no suffix"
    assert root.find({"bytes": png(), "path": "y.PNG"}) == path and path.read_bytes() == png()
