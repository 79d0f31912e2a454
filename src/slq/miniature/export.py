"""Sample data: the picture-book world as ordinary files, so that the rest of slq sees nothing but images and captions.

DIR/images/0000.png ...   96 x 96 images; every fifth makes a minimal pair with the one before (`world.minimal_pairs`)
DIR/captions.jsonl        one line an image: image, caption (test) or captions (train), style, concepts, pair_of, differs_in
DIR/knowledge/            the same images as a BEIR set whose queries are facts that never name what the image shows
DIR/composed/             the same images as a BEIR set whose queries are an image and a change: "but blue"
DIR/rendered/             the same images as a BEIR set whose queries are names rendered as images
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from slq.data import RetrievalSet, write_beir
from slq.errors import InputError
from slq.io.files import map_os_errors, write_jsonl
from slq.io.outputs import OutputFolder
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.language import caption, object_name
from slq.miniature.world.lettering import STROKES
from slq.miniature.world.minimal_pairs import DIFFERENCES, minimal_pair
from slq.miniature.world.scenes import SIGN, SPLITS, Group, Scene, render, sample_scene, split_of, without_colour
from slq.miniature.world.styles import COLOURS, HELD_OUT_STYLE, TRAINING_STYLES
from slq.types import Item

DEFAULT_COUNTS = {"train": 3000, "validation": 500, "test": 500}
CAPTIONS = {"train": 2, "validation": 1, "test": 1}
PAIR_EVERY = 5
TRIES = 1000
LONGEST_RENDERED = 8  # letters that fit on a board in an image of 96 pixels


@dataclass(frozen=True)
class SampleScene:
    """One scene of the sample data.

    Attributes:
        scene: what the image shows.
        pair_of: index of the scene that it makes a minimal pair with; None if it makes none.
        differs_in: one of `DIFFERENCES`; empty if it makes none.
    """

    scene: Scene
    pair_of: int | None = None
    differs_in: str = ""


def split_scenes(split: str, count: int, seed: int = 0, held_out_style: bool = False) -> list[SampleScene]:
    """Scenes of a split with different contents, of one to three groups, every concept about equally often.

    After every fourth scene comes one that makes a minimal pair with it, of one difference after the other.

    Args:
        split: train, validation or test.
        count: how many scenes.
        seed: of every choice.
        held_out_style: whether all are in the style that no training uses.

    Returns:
        `count` scenes; the same arguments give the same ones.

    Raises:
        InputError: for an unknown split, or a count below 1.
    """
    if split not in SPLITS:
        raise InputError(f"Unknown split {split!r}: choose one of {', '.join(SPLITS)}.")
    if count < 1:
        raise InputError(f"count must be at least 1, not {count}.")
    rng = random.Random(f"{split} {seed}")
    styles = (HELD_OUT_STYLE,) if held_out_style else TRAINING_STYLES
    names = list(concepts())
    samples: list[SampleScene] = []
    contents: set[tuple] = set()
    tries = 0
    while len(samples) < count:
        place, tries = len(samples), tries + 1
        # A concept may have no scene of this split with such a counterpart: after a while it is the next one's turn.
        first = names[(place + tries // TRIES) % len(names)]
        scene = sample_scene(rng, rng.choice([1, 1, 1, 2, 2, 3]), styles, first_concept=first)
        pair_is_due = place % PAIR_EVERY == PAIR_EVERY - 2 and place + 1 < count
        differs_in = DIFFERENCES[place // PAIR_EVERY % len(DIFFERENCES)] if pair_is_due else ""
        other = minimal_pair(scene, differs_in, rng) if differs_in else None
        both = [scene] + ([other] if other else [])
        if (differs_in and other is None) or any(split_of(one) != split or one.content in contents for one in both):
            continue
        tries = 0
        contents.update(one.content for one in both)
        samples += [SampleScene(scene)] + ([SampleScene(other, place, differs_in)] if other else [])
    return samples


def write_sample_data(
    folder: Path,
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    held_out_style: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Write a split's images, captions and three BEIR sets into a new folder.

    Args:
        folder: the output folder.
        split: train, validation or test.
        count: how many images; None for 3,000 (train) or 500.
        seed: of every choice.
        held_out_style: whether all are in the style that no training uses.
        overwrite: whether sample data that is there already is replaced.
        progress: called with 1 after each image.

    Returns:
        The number of images.

    Raises:
        InputError: for an unknown split, or a count below 1.
        OutputExistsError: if the folder holds something.
        DiskFullError: if there is no room.
    """
    samples = split_scenes(split, count if count is not None else DEFAULT_COUNTS.get(split, 1), seed, held_out_style)
    scenes = [one.scene for one in samples]
    names = [f"images/{number:04d}.png" for number in range(len(scenes))]
    with OutputFolder.create(folder, "sample-data", overwrite=overwrite) as output, map_os_errors(folder):
        folder = output.path
        (folder / "images").mkdir()
        for name, scene in zip(names, scenes, strict=True):
            render(scene).save(folder / name)
            progress(1)
        rng = random.Random(f"captions {split} {seed}")
        lines = [
            {
                "image": name,
                "caption": list(dict.fromkeys(caption(scene, rng) for _ in range(CAPTIONS[split]))),
                "style": scene.style,
                "concepts": [group.concept for group in scene.groups],
                **({"pair_of": names[one.pair_of], "differs_in": one.differs_in} if one.pair_of is not None else {}),
            }
            for name, scene, one in zip(names, scenes, samples, strict=True)
        ]
        write_jsonl(folder / "captions.jsonl", lines)
        _write_knowledge(folder / "knowledge", names, scenes)
        _write_composed(folder / "composed", names, scenes)
        _write_rendered(folder / "rendered", names, scenes)
    return len(scenes)


def _images_of(names: list[str], scenes: list[Scene]) -> dict[str, list[str]]:
    """Concept -> the images that show it."""
    images: dict[str, list[str]] = {}
    for name, scene in zip(names, scenes, strict=True):
        for group in scene.groups:
            images.setdefault(group.concept, []).append(name)
    return images


def _write_knowledge(folder: Path, names: list[str], scenes: list[Scene]) -> None:
    """Every fact about a concept of the images, in the phrasing that no training uses; each image that shows the concept is relevant."""
    images = _images_of(names, scenes)
    facts = {f"fact-{number}": fact for number, fact in enumerate(all_facts()) if fact.concept in images}
    queries = {id_: Item(fact.benchmark_phrasing) for id_, fact in facts.items()}
    categories = {id_: fact.category for id_, fact in facts.items()}
    _write_beir(folder, names, queries, {id_: images[fact.concept] for id_, fact in facts.items()}, categories=categories)


def _write_composed(folder: Path, names: list[str], scenes: list[Scene]) -> None:
    """Every image of one group whose recoloured counterpart is there too; the query's own image is left out of its ranking."""
    equal_but_for_colour: dict[tuple, list[int]] = {}
    for place, scene in enumerate(scenes):
        if len(scene.groups) == 1:
            equal_but_for_colour.setdefault(without_colour(scene), []).append(place)
    pairs = {f"change-{a}-{b}": (a, b) for places in equal_but_for_colour.values() for a in places for b in places if a != b}
    queries = {id_: Item(f"but {scenes[b].groups[0].colour}", folder.parent / names[a]) for id_, (a, b) in pairs.items()}
    excluded = {id_: frozenset([names[a]]) for id_, (a, _) in pairs.items()}
    _write_beir(folder, names, queries, {id_: [names[b]] for id_, (_, b) in pairs.items()}, excluded=excluded)


def _write_rendered(folder: Path, names: list[str], scenes: list[Scene]) -> None:
    """Names that fit on a board, rendered as images; each image that shows the concept is relevant."""
    images = {
        concept: found
        for concept, found in sorted(_images_of(names, scenes).items())
        if len(concept) <= LONGEST_RENDERED and set(concept) <= STROKES.keys()
    }
    (folder / "words").mkdir(parents=True)
    for number, concept in enumerate(images):
        board = Scene((Group(SIGN, "", word=concept),), across=False, background="", style="flat", seed=number)
        render(board).save(folder / f"words/{concept}.png")
    _write_beir(folder, names, {concept: Item(image=folder / f"words/{concept}.png") for concept in images}, images)


def _write_beir(folder: Path, names: list[str], queries: dict[str, Item], relevant: dict[str, list[str]], **more: Any) -> None:
    """A set over all images; more: `categories` or `excluded` of its queries."""
    corpus = {name: Item(image=folder.parent / name) for name in names}
    qrels = {id_: dict.fromkeys(found, 1) for id_, found in relevant.items()}
    write_beir(folder, RetrievalSet(folder.name, queries, corpus, qrels, (), **more))


def contact_sheet(columns: int = 16) -> Image.Image:
    """Every concept once with its name, each in another colour and style: an overview of the world.

    Args:
        columns: how many stand in a row.

    Returns:
        One image.
    """
    names = list(concepts())
    cell, label = 96, 14
    rows = -(-len(names) // columns)
    sheet = Image.new("RGB", (columns * cell, rows * (cell + label)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, name in enumerate(names):
        colour = list(COLOURS)[place % len(COLOURS)]
        group = Group(name, colour)
        scene = Scene((group,), True, "", TRAINING_STYLES[place % len(TRAINING_STYLES)], seed=place)
        left, top = place % columns * cell, place // columns * (cell + label)
        sheet.paste(render(scene), (left, top))
        pen.text((left + 4, top + cell - 1), object_name(group), fill="black")
    return sheet
