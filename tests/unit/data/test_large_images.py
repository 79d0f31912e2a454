"""JPEG files of more pixels than are allowed: read at a smaller size in place of refused, within the memory of what comes out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slq.data import open_image
from slq.data.images import image_pixels
from slq.errors import ImageError

RED, BLUE = (255, 0, 0), (0, 0, 255)
ORIENTATION = 0x0112


def jpeg(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, format="JPEG", quality=95, **options)
    return path


def png(path: Path, image: Image.Image) -> Path:
    image.save(path)
    return path


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def near(pixel: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    return all(abs(value - wanted) <= 8 for value, wanted in zip(pixel, expected, strict=True))


@pytest.mark.parametrize(("allowed", "size"), [(64 * 48, (64, 48)), (64 * 48 - 1, (32, 24)), (600, (16, 12)), (48, (8, 6))])
def test_a_jpeg_of_too_many_pixels_is_read_at_a_smaller_size(allowed, size, tmp_path):
    halves = Image.new("RGB", (64, 48), RED)
    halves.paste(BLUE, (32, 0, 64, 48))
    for options in ({}, {"progressive": True}) if allowed >= 64 * 48 // 4 else ({},):
        image = open_image(jpeg(tmp_path / "a.jpg", halves, **options), max_pixels=allowed)
        assert image.size == size
        assert near(image.getpixel((1, 1)), RED) and near(image.getpixel((size[0] - 2, 1)), BLUE)


def test_a_jpeg_is_read_no_smaller_than_an_eighth(tmp_path):
    path = jpeg(tmp_path / "a.jpg", noise())
    with pytest.raises(ImageError, match=r"64 x 48 pixels, more than the 47 allowed; scale it down, or save it as JPEG, which is read at"):
        open_image(path, max_pixels=47)
    with pytest.raises(ImageError, match="64 x 48 pixels, more than the 767 allowed"):
        open_image(jpeg(path, noise(), progressive=True), max_pixels=767)  # at an eighth it would be few enough


def test_a_smaller_reading_keeps_orientation_and_leaves_others_as_they_are(tmp_path):
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    path = jpeg(tmp_path / "a.jpg", noise(), exif=exif)
    assert open_image(path).size == (48, 64) and open_image(path, max_pixels=1000).size == (24, 32)
    with Image.open(path) as opened:
        plain = np.asarray(opened.convert("RGB").transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(np.asarray(open_image(path, max_pixels=64 * 48)), plain), "of as many as allowed every pixel is read"
    with pytest.raises(ImageError, match="64 x 48 pixels, more than the 1,000 allowed"):
        open_image(png(tmp_path / "a.png", noise()), max_pixels=1000)


def test_a_jpeg_that_pillow_takes_for_a_bomb_is_read_too(tmp_path, monkeypatch):
    path = jpeg(tmp_path / "a.jpg", noise())
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_image(path, max_pixels=1000).size == (32, 24)
    assert image_pixels(path) == 2000
    with pytest.raises(ImageError, match="more than the 1,000 pixels allowed"):
        open_image(png(tmp_path / "a.png", noise()), max_pixels=1000)


@pytest.mark.slow
def test_a_photograph_of_100_megapixels_takes_the_memory_of_25(tmp_path):
    path = jpeg(tmp_path / "a.jpg", Image.new("L", (12_000, 9_000), 200))
    script = (
        "import resource, sys; from slq.data import open_image; rss = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024; "
        "before = rss(); image = open_image(sys.argv[1]); print(*image.size, rss() - before)"
    )
    width, height, grown = map(int, subprocess.run([sys.executable, "-c", script, path], capture_output=True, check=True).stdout.split())
    assert (width, height) == (6000, 4500) and grown < 200, f"{grown} MB; in full its RGB alone has 324"
