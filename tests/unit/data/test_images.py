"""Images of every kind become the RGB they show; broken ones are refused with a reason."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from slq.data import IMAGE_SUFFIXES, find_images, open_image
from slq.data.images import _quiet_pillow
from slq.errors import DataError, ImageError
from slq.types import Item

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
ORIENTATION = 0x0112


def save(path: Path, image: Image.Image, **options: object) -> Path:
    image.save(path, **options)
    return path


def noise(width: int = 64, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def png_claiming(width: int, height: int) -> bytes:
    """A PNG that claims a size and has next to no pixels."""
    chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b"\0")]
    framed = [struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(framed)


def near(pixel: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 4) -> bool:
    return all(abs(value - wanted) <= tolerance for value, wanted in zip(pixel, expected, strict=True))


HEIF = {".heic", ".heif"}


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES - HEIF))
def test_each_suffix_opens(tmp_path, suffix):
    image = open_image(save(tmp_path / f"a{suffix}", Image.new("RGB", (5, 3), RED)))
    assert (image.mode, image.size) == ("RGB", (5, 3))
    assert near(image.getpixel((2, 1)), RED)


def test_path_may_be_a_str_and_the_suffix_may_lie(tmp_path):
    path = save(tmp_path / "really_a_png.jpg", Image.new("RGB", (2, 2), BLUE), format="PNG")
    assert open_image(str(path)).getpixel((0, 0)) == BLUE


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    for name in ("a.gif", "a.webp", "a.png", "a.tif"):
        path = save(tmp_path / name, frames[0], save_all=True, append_images=frames[1:])
        assert near(open_image(path).getpixel((1, 1)), RED), name


def test_cmyk_is_converted(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)))
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    assert near(open_image(path).getpixel((8, 8)), RED)


def test_16_bit_grey_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], dtype=np.uint16)
    for name in ("a.png", "a.tif"):
        path = save(tmp_path / name, Image.fromarray(values))
        with Image.open(path) as stored:
            assert stored.mode == "I;16"
        assert np.asarray(open_image(path))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_dark_16_bit_grey_stays_dark(tmp_path):
    path = save(tmp_path / "a.png", Image.fromarray(np.full((2, 2), 255, dtype=np.uint16)))
    assert open_image(path).getpixel((0, 0)) == (1, 1, 1)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 32768, 65535], np.int32, [0, 128, 255]),
        ([0, 128, 255], np.int32, [0, 128, 255]),
        ([-100, 0, 100], np.int32, [0, 128, 255]),
        ([0, 2**30, 2**31 - 1], np.int32, [0, 128, 255]),
        ([0, 0.5, 1], np.float32, [0, 128, 255]),
        ([0, 128, 255], np.float32, [0, 128, 255]),
        ([0, 32768, 65535], np.float32, [0, 128, 255]),
        ([np.nan, 0, 1], np.float32, [0, 0, 255]),
        ([7, 7, 7], np.float32, [7, 7, 7]),
        ([-3e38, 0, 3e38], np.float32, [0, 128, 255]),
        ([-np.inf, 0, np.inf], np.float32, [0, 128, 255]),
    ],
)
def test_deep_grey_of_modes_i_and_f(values, dtype, expected):
    grey = np.asarray(open_image(Image.fromarray(np.array([values], dtype=dtype))))[0, :, 0]
    assert np.abs(grey.astype(int) - expected).max() <= 1, grey


def test_transparency_becomes_white(tmp_path):
    image = Image.new("RGBA", (3, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (255, 0, 0, 255))
    image.putpixel((2, 0), (0, 0, 0, 127))
    shown = open_image(save(tmp_path / "a.png", image))
    assert [shown.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), RED, (128, 128, 128)]


def test_transparency_of_palettes_grey_and_single_colours_becomes_white(tmp_path):
    palette = Image.new("P", (2, 1))
    palette.putpalette([*RED, *GREEN])
    palette.putpixel((1, 0), 1)
    with_bytes = save(tmp_path / "bytes.png", palette, transparency=b"\x00\xff")
    for path in (save(tmp_path / "a.gif", palette, transparency=0), save(tmp_path / "a.png", palette, transparency=0), with_bytes):
        shown = open_image(path)
        assert [shown.getpixel((x, 0)) for x in range(2)] == [(255, 255, 255), GREEN], path.name
    grey = Image.fromarray(np.array([[0, 65535, 256]], dtype=np.uint16))
    shown = open_image(save(tmp_path / "grey.png", grey, transparency=0))
    assert np.asarray(shown)[0, :, 0].tolist() == [255, 255, 1]
    shown = open_image(Image.new("LA", (1, 1), (0, 0)))
    assert shown.getpixel((0, 0)) == (255, 255, 255)


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_exif_orientation_6_turns_clockwise(tmp_path, name):
    image = Image.new("RGB", (32, 16), RED)
    image.paste(BLUE, (0, 0, 16, 16))  # blue left half: on top once turned
    shown = open_image(save(tmp_path / name, image, exif=exif_of(6)))
    assert shown.size == (16, 32)
    assert near(shown.getpixel((8, 4)), BLUE, 30)
    assert near(shown.getpixel((8, 28)), RED, 30)
    assert open_image(shown).size == (16, 32), "turned once, not again"


def test_broken_exif_does_not_lose_the_image(tmp_path):
    path = save(tmp_path / "a.jpg", Image.new("RGB", (16, 8), RED), exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert open_image(path).size == (16, 8)


def test_an_open_image_is_copied_not_changed():
    image = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert open_image(image).getpixel((0, 0)) == (255, 255, 255)
    assert (image.mode, image.getpixel((0, 0))) == ("RGBA", (0, 0, 0, 0))
    plain = Image.new("RGB", (2, 2))
    open_image(plain).putpixel((0, 0), RED)
    assert plain.getpixel((0, 0)) == (0, 0, 0)


def test_missing_files_folders_and_empty_files(tmp_path):
    (tmp_path / "empty.png").touch()
    cases = [
        (tmp_path / "no.png", "no.png does not exist"),
        (tmp_path / "no" / "a.png", "does not exist"),
        (tmp_path, "is not a file but a folder"),
        (tmp_path / "empty.png", "empty.png is empty"),
        (tmp_path / ("x" * 300 + ".png"), "cannot be opened"),
        (tmp_path / "nul\0.png", "cannot be opened|does not exist"),
        (tmp_path / "empty.png" / "a.png", "cannot be opened|does not exist"),
    ]
    for path, complaint in cases:
        with pytest.raises(ImageError, match=complaint):
            open_image(path)


@pytest.mark.parametrize(
    "content",
    [b"this is a letter, not an image", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"<svg/>", b"P6 1 1 255\n\xff\0\0", b"\0" * 100, b"\x89PNG"],
)
def test_a_file_that_is_no_image(tmp_path, content):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a.png is not an image of a known kind"):
        open_image(path)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif"])
def test_truncated_images_are_refused(tmp_path, name):
    content = save(tmp_path / name, noise()).read_bytes()
    for part in (0.25, 0.5, 0.9):
        (tmp_path / name).write_bytes(content[: int(len(content) * part)])
        with pytest.raises(ImageError, match=f"{name}.*(truncated or damaged|known kind).*replace or remove it"):
            open_image(tmp_path / name)


def test_corrupt_pixels_are_refused(tmp_path):
    content = bytearray(save(tmp_path / "a.png", noise()).read_bytes())
    content[200:260] = bytes(60)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="truncated or damaged"):
        open_image(tmp_path / "a.png")


def test_no_damage_raises_anything_but_image_error(tmp_path):
    rng = np.random.default_rng(1)
    refused = 0
    for name in ("a.jpg", "a.png", "a.webp", "a.gif", "a.bmp", "a.tif"):
        good = save(tmp_path / name, noise(8, 8)).read_bytes()
        for _ in range(12):
            content = bytearray(good)
            for place in rng.integers(0, len(content), 4):
                content[place] = rng.integers(256)
            (tmp_path / name).write_bytes(content)
            try:
                assert open_image(tmp_path / name, max_pixels=10_000).mode == "RGB"
            except ImageError as error:
                refused += 1
                assert name in str(error)
    assert refused > 8


@pytest.mark.parametrize(("width", "height"), [(10_000, 6_000), (12_000, 10_000), (50_000, 50_000)])
def test_too_many_pixels_are_refused_from_the_header(tmp_path, width, height):
    path = tmp_path / "huge.png"
    path.write_bytes(png_claiming(width, height))  # below Pillow's limit, above it (a warning), far above it (an error)
    with pytest.raises(ImageError, match=r"huge.png has .*50,000,000.* allowed"):
        open_image(path)


def test_the_limit_is_exact_and_holds_for_open_images(tmp_path):
    path = save(tmp_path / "a.png", Image.new("RGB", (10, 10)))
    assert open_image(path, max_pixels=100).size == (10, 10)
    with pytest.raises(ImageError, match="10 x 10 pixels, more than the 99 allowed"):
        open_image(path, max_pixels=99)
    with pytest.raises(ImageError, match="the open image has 10 x 10"):
        open_image(Image.new("RGB", (10, 10)), max_pixels=99)


def test_an_image_without_pixels_or_without_its_file_is_refused():
    with pytest.raises(ImageError, match="no pixels"):
        open_image(Image.new("RGB", (0, 5)))
    stream = io.BytesIO()
    noise().save(stream, "PNG")
    closed = Image.open(stream)
    stream.close()
    with pytest.raises(ImageError, match="the open image is truncated or damaged"):
        open_image(closed)


def test_pillow_warnings_stay_inside_and_the_filters_are_put_back(tmp_path):
    path = tmp_path / "huge.png"
    path.write_bytes(png_claiming(12_000, 10_000))
    before = list(warnings.filters)
    with pytest.raises(ImageError, match="truncated or damaged"):
        open_image(path, max_pixels=10**9)  # allowed by the caller, warned of by Pillow, then found without pixels
    good = save(tmp_path / "a.png", noise())
    threads = [threading.Thread(target=lambda: [open_image(good) for _ in range(20)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(warnings.filters) == before


def test_pillow_stays_quiet_until_the_last_one_is_out():
    with _quiet_pillow:
        with _quiet_pillow:
            pass
        warnings.warn_explicit("from Pillow", UserWarning, "Image.py", 1, module="PIL.Image")
        with pytest.raises(UserWarning, match="from another"):
            warnings.warn_explicit("from another", UserWarning, "other.py", 1, module="other")
    with pytest.raises(UserWarning, match="from Pillow"):
        warnings.warn_explicit("from Pillow", UserWarning, "Image.py", 1, module="PIL.Image")


def test_find_images_is_recursive_sorted_and_skips_hidden(folder):
    folder.images("b.PNG", "a.jpg", "sub/deep/c.TIFF", ".hidden.png", ".cache/d.png", "sub/._e.jpg")
    folder.text("notes.txt", "no image")
    (folder.path / "folder.png").mkdir()
    assert [path.relative_to(folder.path).as_posix() for path in find_images(folder.path)] == [
        "a.jpg",
        "b.PNG",
        "sub/deep/c.TIFF",
    ]
    assert find_images(folder.path / "folder.png") == []
    with pytest.raises(DataError, match="no is not a folder"):
        find_images(folder.path / "no")


def test_find_images_works_below_a_hidden_folder(folder):
    folder.images(".cache/a.png")
    assert len(find_images(folder.path / ".cache")) == 1


def test_what_phones_and_editors_write_opens(tmp_path):
    frames = [Image.new("RGB", (6, 4), colour) for colour in (RED, BLUE)]
    for name, options in (
        ("mpo.jpg", {"format": "MPO", "save_all": True, "append_images": frames[1:]}),
        ("a.jfif", {"format": "JPEG"}),
        ("a.jpe", {"format": "JPEG"}),
        ("lies.png", {"format": "AVIF"}),
    ):
        assert near(open_image(save(tmp_path / name, frames[0], **options)).getpixel((3, 2)), RED, 8), name


@pytest.mark.parametrize("suffix", sorted(HEIF))
def test_a_photograph_of_an_iphone_opens_the_right_way_up(tmp_path, suffix):
    pytest.importorskip("pillow_heif", reason="HEIC is read by an extra: pip install 'slq[heif]'").register_heif_opener()
    image = Image.new("RGB", (64, 32), RED)
    image.paste(BLUE, (0, 0, 32, 16))  # top left
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # held upright: a quarter turn to the right
    turned = open_image(save(tmp_path / f"a{suffix}", image, exif=exif.tobytes()))
    assert (turned.mode, turned.size) == ("RGB", (32, 64))
    assert near(turned.getpixel((29, 2)), BLUE) and near(turned.getpixel((2, 2)), RED) and near(turned.getpixel((29, 61)), RED)
    cut = tmp_path / "cut.heic"
    cut.write_bytes(save(tmp_path / f"noise{suffix}", noise()).read_bytes()[:-1000])
    with pytest.raises(ImageError, match=r"^the image .*cut\.heic is truncated or damaged \([^\n]+\); replace or remove it$"):
        open_image(cut)


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"hevc"])
def test_a_photograph_of_an_iphone_names_the_extra_that_reads_it(tmp_path, brand, monkeypatch):
    monkeypatch.setattr("slq.data.images._reads_heif", lambda: False)
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    assert find_images(tmp_path) == [tmp_path / "IMG_1.HEIC"], "it is listed, and not lost in silence"
    with pytest.raises(ImageError, match=r'HEIC, which pillow-heif reads; run: pip install "slq\[heif\]"'):
        open_image(tmp_path / "IMG_1.HEIC")


def test_images_of_kinds_that_are_not_read_are_found_and_refused(folder):
    folder.images("a.png")
    for name in ("b.svg", "c.jp2", "d.NEF", "e.psd"):
        folder.text(name, "<svg/>")
    (folder.path / "f.png").symlink_to(folder.path / "gone.png")
    found = find_images(folder.path)
    assert [path.name for path in found] == ["a.png", "b.svg", "c.jp2", "d.NEF", "e.psd", "f.png"]
    for path in found[1:]:
        with pytest.raises(ImageError, match=r"not an image of a known kind|does not exist"):
            open_image(path)


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    path = tmp_path / "huge.png"
    with path.open("wb") as file:
        file.truncate(600 * 2**20)  # sparse: it takes no room
    for use in (lambda: open_image(path), lambda: Item(image=path).content_hash):
        with pytest.raises(ImageError, match="more than the 536,870,912 allowed"):
            use()
    with pytest.raises(ImageError, match="a device"):
        _ = Item(image="/dev/zero").content_hash


def test_an_open_bomb_is_not_decoded_to_be_hashed():
    opened = Image.open(io.BytesIO(png_claiming(9_000, 8_000)))
    with pytest.raises(ImageError, match="more than the 50,000,000 allowed"):
        _ = Item(image=opened).content_hash
    with pytest.raises(ImageError, match="more than the 50,000,000 allowed"):
        open_image(opened)
