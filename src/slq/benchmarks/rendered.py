"""Texts rendered as images: black on white, 800 x 400, DejaVu Sans at 40 points (a point is a pixel), wrapped at spaces.

The text is centred from top to bottom, and each line begins 20 pixels from the left, as in SLQ's and E5-V's code. Font
and wrapping change the scores, so both are fixed: the font is the file that matplotlib brings along, which has accents and typographic
quotes where Pillow's own font draws boxes; Pillow sets it by its basic layout, whether or not it was built with Raqm.
A text too long for the image is set in smaller type, two points at a time.
"""

from __future__ import annotations

import hashlib
import io
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from slq.benchmarks.files import cached_file
from slq.errors import MissingExtraError

SIZE = (800, 400)
POINTS = 40
SMALLEST = 8
MARGIN = 20
FONT = "DejaVuSans.ttf"


def render_text(text: str) -> Image.Image:
    """The text as an image, grey; equal texts give equal pixels.

    Args:
        text: in a font as large as fits.

    >>> render_text("a cat").size
    (800, 400)
    """
    width, height = (side - 2 * MARGIN for side in SIZE)
    lines: list[str] = []
    for points in range(POINTS, SMALLEST - 1, -2):
        font = _font(points)
        lines, line_height = wrap(text, font, width), sum(font.getmetrics())
        if len(lines) * line_height <= height:
            break
    image = Image.new("L", SIZE, 255)
    pen = ImageDraw.Draw(image)
    top = (SIZE[1] - len(lines) * line_height) // 2
    for number, line in enumerate(lines):
        pen.text((MARGIN, top + number * line_height), line, fill=0, font=font)
    return image


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Lines as full as they may be, broken at white space; a word wider than a line is broken where the line ends.

    Args:
        text: what is rendered.
        font: in which.
        width: of a line, in pixels.
    """
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if font.getlength(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while font.getlength(word) > width and len(word) > 1:
            end = next(end for end in range(len(word) - 1, 0, -1) if end == 1 or font.getlength(word[:end]) <= width)
            lines.append(word[:end])
            word = word[end:]
        line = word
    return [*lines, line] if line else lines


def rendered_file(text: str) -> Path:
    """The image of a text as a file in the user's cache folder, rendered when it is first wanted.

    Args:
        text: what is rendered.
    """
    key = hashlib.sha256(f"centred {font_hash()} {SIZE} {POINTS} {SMALLEST} {MARGIN} {text}".encode("utf-8", "surrogatepass")).hexdigest()
    return cached_file("rendered", key, ".png", lambda: _png(render_text(text)))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@cache
def font_hash() -> str:
    """The first digits of the font file's sha256: another font gives other scores."""
    return hashlib.sha256(_font_file().read_bytes()).hexdigest()[:12]


@cache
def _font(points: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(_font_file()), points, layout_engine=ImageFont.Layout.BASIC)


@cache
def _font_file() -> Path:
    spec = find_spec("matplotlib")  # matplotlib itself is not imported
    for place in (spec.submodule_search_locations or ()) if spec else ():
        if (file := Path(place) / "mpl-data" / "fonts" / "ttf" / FONT).is_file():
            return file
    raise MissingExtraError(f'Drawing texts needs the font {FONT} of matplotlib; run: pip install "slq[plots]"')
