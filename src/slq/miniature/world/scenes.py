"""Scenes: one to three groups of objects with colour, count, size, position and background; and their images.

Which split a scene belongs to is a hash over the printed form of its groups: the name and the fields of `Group` must stay as they are.
"""

from __future__ import annotations

import hashlib
import io
import random
from dataclasses import dataclass, replace

import resvg_py
from PIL import Image

from slq.miniature.world.concepts import concepts
from slq.miniature.world.lettering import BOARD_HEIGHT, WORDS, draw_word
from slq.miniature.world.styles import COLOURS, FILTERS, STYLES, SVG, TRAINING_STYLES, Paint, draw

IMAGE_SIZE = 96
MAX_COUNT = 4
SIGN = "sign"  # the one object without a fact sheet: a board with a printed word

BACKGROUNDS = {
    "": '<rect width="96" height="96" fill="#fdfdfb"/>',
    "on grass": '<rect width="96" height="96" fill="#e4f1fa"/><rect y="58" width="96" height="38" fill="#bfdc9f"/>',
    "on sand": '<rect width="96" height="96" fill="#f6ead0"/><path d="M0 66Q24 58 48 66T96 66V96H0Z" fill="#ead7a4"/>',
    "in the snow": '<rect width="96" height="96" fill="#dbe4ee"/><path d="M0 70Q30 56 60 68T96 64V96H0Z" fill="#fff"/>'
    '<g fill="#fff"><circle cx="14" cy="14" r="2"/><circle cx="44" cy="8" r="2"/><circle cx="76" cy="18" r="2"/></g>',
    "at night": '<rect width="96" height="96" fill="#343a60"/><g fill="#f3efc2"><circle cx="10" cy="10" r="1.5"/>'
    '<circle cx="36" cy="5" r="1.5"/><circle cx="62" cy="12" r="1.5"/><circle cx="88" cy="7" r="1.5"/></g>',
    "in a room": '<rect width="96" height="96" fill="#f3e9ee"/><rect y="72" width="96" height="24" fill="#d9c3b0"/>',
}


@dataclass(frozen=True)
class Group:
    """`count` equal objects of one colour; or, for a sign, the word printed on it."""

    concept: str
    colour: str
    count: int = 1
    small: bool = False
    word: str = ""


@dataclass(frozen=True)
class Scene:
    """What an image shows.

    Attributes:
        groups: one to three, in reading order.
        across: whether the groups stand from left to right; else from top to bottom, as always beside a sign.
        background: a key of `BACKGROUNDS`.
        style: a key of `STYLES`.
        seed: of everything that a caption does not tell, such as the exact position and angle of each object.
    """

    groups: tuple[Group, ...]
    across: bool
    background: str
    style: str
    seed: int

    @property
    def content(self) -> tuple:
        """Everything that a caption could tell; two scenes of equal content differ in style and seed alone."""
        return (self.groups, self.across or len(self.groups) == 1, self.background)


# A scene's content decides its split, so no content is in two of them. Ranges of a hash modulo ten.
SPLITS = {"train": range(2, 10), "validation": range(1, 2), "test": range(0, 1)}


def without_colour(scene: Scene) -> tuple:
    """Content without colours: what a recoloured scene shares with the one it came from.

    Args:
        scene: what is drawn.
    """
    return replace(scene, groups=tuple(replace(group, colour="") for group in scene.groups)).content


def split_of(scene: Scene) -> str:
    """The split a scene belongs to; recolouring never changes it.

    Args:
        scene: what is drawn.
    """
    place = int(hashlib.sha256(repr(without_colour(scene)).encode()).hexdigest(), 16) % 10
    return next(split for split, hashes in SPLITS.items() if place in hashes)


def sample_group(rng: random.Random, concept: str, max_count: int) -> Group:
    """A group of one concept in a random colour, count and size.

    Args:
        rng: random numbers.
        concept: what it is of.
        max_count: how many objects at most.
    """
    count = rng.choice([1, 1, 1, 2, 3, 4][: 2 + max_count]) if max_count > 1 else 1
    return Group(concept, rng.choice(list(COLOURS)), count, small=count == 1 and rng.random() < 0.25)


def sample_scene(
    rng: random.Random,
    num_groups: int,
    styles: tuple[str, ...] = TRAINING_STYLES,
    first_concept: str | None = None,
    signs: float = 0.0,
) -> Scene:
    """A random scene.

    Args:
        rng: source of every choice.
        num_groups: 1 to 3.
        styles: to choose from.
        first_concept: a concept that one of the groups must be of.
        signs: probability that one group is a sign.

    Returns:
        A scene whose groups are of different concepts.
    """
    names = list(concepts())
    chosen = rng.sample(names, num_groups)
    if first_concept is not None and first_concept not in chosen:
        chosen[0] = first_concept
    rng.shuffle(chosen)
    max_count = {1: MAX_COUNT, 2: 3, 3: 1}[num_groups]
    groups = [sample_group(rng, concept, max_count) for concept in chosen]
    scene = Scene(
        groups=tuple(groups),
        across=rng.random() < 0.5,
        background=rng.choice(list(BACKGROUNDS)),
        style=rng.choice(styles),
        seed=rng.randrange(2**31),
    )
    return with_sign(scene, rng) if rng.random() < signs else scene


def with_sign(scene: Scene, rng: random.Random) -> Scene:
    """The same scene with a sign in place of one group, and room for its word: groups stand one above another.

    Args:
        scene: what is drawn.
        rng: random numbers.
    """
    groups = list(scene.groups)
    groups[rng.randrange(len(groups))] = Group(SIGN, "", word=rng.choice(WORDS))
    return replace(scene, groups=tuple(groups), across=False)


def recolour(scene: Scene, place: int, colour: str) -> Scene:
    """The same scene with one group in another colour.

    Args:
        scene: what is drawn.
        place: of the group, from 0.
        colour: its new one.
    """
    groups = list(scene.groups)
    groups[place] = replace(groups[place], colour=colour)
    return replace(scene, groups=tuple(groups))


def _boxes(scene: Scene) -> list[tuple[float, float, float, float]]:
    """x, y, width and height in pixels of each group's cell in the 96 x 96 image."""
    parts = len(scene.groups)
    if parts == 1:
        return [(4, 4, 88, 88)]
    step = 92 / parts
    if scene.across:
        return [(2 + step * i, 8, step, 80) for i in range(parts)]
    return [(8, 2 + step * i, 80, step) for i in range(parts)]


def _places(count: int, width: float, height: float) -> list[tuple[float, float, float]]:
    """Centre x, centre y and size of each object inside a cell."""
    rows_columns = {1: (1, 1), 2: (1, 2), 3: (2, 2), 4: (2, 2)}[count]
    rows, columns = rows_columns if width >= height else rows_columns[::-1]
    if width > 1.8 * height and count > 2:
        rows, columns = 1, count
    if height > 1.8 * width and count > 2:
        rows, columns = count, 1
    size = min(width / columns, height / rows)
    places = []
    for i in range(count):
        row, column = divmod(i, columns)
        in_row = min(columns, count - row * columns)
        x = width / 2 + (column - (in_row - 1) / 2) * min(width / columns, size * 1.15)
        y = height / 2 + (row - (rows - 1) / 2) * min(height / rows, size * 1.15)
        places.append((x, y, size))
    return places


@dataclass(frozen=True)
class PlacedObject:
    """One object of the image.

    Attributes:
        group: index of its group.
        x, y: its centre in pixels.
        size: of its box in pixels.
        degrees: how far it is turned.
        flipped: whether it is mirrored.
    """

    group: int
    x: float
    y: float
    size: float
    degrees: float
    flipped: bool


def placed_objects(scene: Scene) -> list[PlacedObject]:
    """Where each object of the scene stands, in the groups' order.

    Args:
        scene: what is drawn.
    """
    rng = random.Random(f"places {scene.seed}")
    placed = []
    for number, (group, (left, top, width, height)) in enumerate(zip(scene.groups, _boxes(scene), strict=True)):
        sign = group.concept == SIGN
        flipped = rng.random() < 0.5 and not sign
        for x, y, size in [(width / 2, height / 2, width)] if sign else _places(group.count, width, height):
            size *= rng.uniform(0.86, 1.0) * (0.6 if group.small else 0.95)
            shift = 0.02 if sign else 0.05
            x += left + rng.uniform(-shift, shift) * size
            y += top + rng.uniform(-shift, shift) * size
            placed.append(PlacedObject(number, x, y, size, rng.uniform(-8, 8) * (0.4 if sign else 1), flipped))
    return placed


def to_svg(scene: Scene) -> str:
    """The scene as an SVG document of 96 x 96 units.

    Args:
        scene: what is drawn.
    """
    rng = random.Random(scene.seed)
    style = STYLES[scene.style]
    fragments = []
    for number, (group, (_, _, width, height)) in enumerate(zip(scene.groups, _boxes(scene), strict=True)):
        if group.concept == SIGN:
            fragments.append(draw_word(group.word, min(BOARD_HEIGHT, 100 * height / width)))
        else:
            fragments.append(draw(group.concept, Paint.mix(group.colour, style, rng), style, f"g{number}"))
    parts = []
    for one in placed_objects(scene):
        scale = one.size / 100
        parts.append(
            f'<g transform="translate({one.x:.2f} {one.y:.2f}) rotate({one.degrees:.1f}) '
            f'scale({-scale if one.flipped else scale:.4f} {scale:.4f}) translate(-50 -50)">{fragments[one.group]}</g>'
        )
    filtered, defs = "", ""
    if style.filter:
        body = FILTERS[style.filter].format(seed=rng.randrange(1000))
        defs = f'<filter id="f" filterUnits="userSpaceOnUse" x="0" y="0" width="96" height="96">{body}</filter>'
        filtered = ' filter="url(#f)"'
    return (
        f'<svg xmlns="{SVG}" viewBox="0 0 {IMAGE_SIZE} {IMAGE_SIZE}">{defs}{BACKGROUNDS[scene.background]}'
        f"<g{filtered}>{''.join(parts)}</g></svg>"
    )


def render(scene: Scene) -> Image.Image:
    """The scene as an RGB image of 96 x 96 pixels; equal scenes give equal pixels.

    Args:
        scene: what is drawn.
    """
    png = resvg_py.svg_to_bytes(svg_string=to_svg(scene), width=IMAGE_SIZE, height=IMAGE_SIZE)
    return Image.open(io.BytesIO(bytes(png))).convert("RGB")
