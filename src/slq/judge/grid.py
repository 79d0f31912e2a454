"""Where the tokens of an image lie in it: a grid of cells, one a token, for models that see an image as one; and a map drawn over it.

Shapes: P image tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from slq.data.images import open_image
from slq.errors import InputError
from slq.models import FrozenModel, PreparedBatch
from slq.types import Item

STRONGEST = 0.6  # opacity of the hottest cell's colour
HOT, COLD = (214, 40, 40), (40, 80, 214)


@dataclass(frozen=True)
class Grid:
    """The cells of an image, row by row.

    Attributes:
        rows: of cells.
        columns: of cells.
        box: left, top, right and bottom of all cells together, in pixels of the image; cells of padding lie outside of it.
    """

    rows: int
    columns: int
    box: tuple[float, float, float, float]

    def __len__(self) -> int:
        return self.rows * self.columns

    def cell(self, place: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a cell, in whole pixels of the image.

        Args:
            place: of the cell, from 0.
        """
        left, top, right, bottom = self.box
        row, column = divmod(place, self.columns)
        across, down = (right - left) / self.columns, (bottom - top) / self.rows
        corners = (left + column * across, top + row * down, left + (column + 1) * across, top + (row + 1) * down)
        return round(corners[0]), round(corners[1]), round(corners[2]), round(corners[3])

    def inside(self, width: int, height: int) -> list[int]:
        """The cells that show some of the image.

        Args:
            width: of the image.
            height: of the image.
        """
        cells = [self.cell(place) for place in range(len(self))]
        return [place for place, (left, top, right, bottom) in enumerate(cells) if left < width and top < height and min(right, bottom) > 0]


def grid_of(model: FrozenModel, item: Item) -> Grid | None:
    """The grid of an item's image.

    Args:
        model: that sees it.
        item: with an image.

    Returns:
        None for a model that sees the image in several tiles, crops it, or is of a family that no test has run: a square number of tokens
        may as well be those of a resampler, which lie nowhere.

    Raises:
        InputError: for an item without an image, or with one that cannot be used.
    """
    if item.image is None:
        raise InputError("the item has no image, so there is nothing to lay a grid over")
    width, height = open_image(item.image).size
    if not model.verified or getattr(model.processor.image_processor, "do_center_crop", False):
        return None
    shape = _shape(model, model.prepare([Item(image=item.image)]))
    return None if shape is None else Grid(*shape, _box(model, width, height))


def hidden(image: Image.Image, grid: Grid, places: Sequence[int]) -> Image.Image:
    """The image with cells filled in the mean colour of all of it.

    Args:
        image: RGB.
        grid: of its cells.
        places: of the cells to hide.
    """
    covered, (red, green, blue) = image.copy(), np.asarray(image).reshape(-1, 3).mean(axis=0).round().astype(int).tolist()
    for place in places:
        covered.paste((red, green, blue), grid.cell(place))
    return covered


def draw(image: Image.Image, grid: Grid, values: np.ndarray) -> Image.Image:
    """A map laid over an image: red where the score comes from, blue where something speaks against it, clear where nothing matters.

    Args:
        image: RGB.
        grid: of its cells.
        values: (P,), one a cell.
    """
    strongest = float(np.abs(values).max()) or 1.0
    colours = Image.new("RGB", image.size, HOT)
    opacity = Image.new("L", image.size, 0)
    for place, value in enumerate(values.tolist()):
        colours.paste(HOT if value >= 0 else COLD, grid.cell(place))
        opacity.paste(round(255 * STRONGEST * abs(value) / strongest), grid.cell(place))
    return Image.composite(colours, image, opacity)


def _shape(model: FrozenModel, prepared: PreparedBatch) -> tuple[int, int] | None:
    """Rows and columns of an image's tokens."""
    inputs = prepared.inputs
    count = int((inputs["input_ids"] == model.model.config.image_token_id).sum())
    if "image_grid_thw" in inputs:  # of the Qwens: patches, several of which are merged into a token
        merged = model.processor.image_processor.merge_size
        frames, rows, columns = inputs["image_grid_thw"][0].tolist()
        shape = rows // merged, columns // merged
        return shape if frames == 1 and shape[0] * shape[1] == count else None
    tiles, side = math.prod(inputs["pixel_values"].shape[:-3]), math.isqrt(count)
    return (side, side) if tiles == 1 and side * side == count else None


def _box(model: FrozenModel, width: int, height: int) -> tuple[float, float, float, float]:
    """What of an image, and around it, a model sees: a square about all of it, or all of it, squeezed."""
    if model.item_processor.image_kwargs["pad_to_square"] is not None:
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        return -left, -top, side - left, side - top
    return 0, 0, width, height
