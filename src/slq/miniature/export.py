"""The picture-book world as ordinary files, so that the rest of the tool sees nothing but images and captions.

DIR/images/0000.png ...     96 x 96 images; every fifth has a twin that differs in one respect (`world.twins`)
DIR/captions.jsonl            one line an image: image, caption (test) or several captions (train), style, concepts, twin_of, respect
DIR/knowledge/                the same images as a BEIR set whose queries are facts that never name what is shown
DIR/composed/                 the same images as a BEIR set whose queries are an image and a change: "but blue"
DIR/drawn/                    the same images as a BEIR set whose queries are names drawn as images
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from slq.errors import InputError
from slq.io.files import map_os_errors
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.language import caption, noun
from slq.miniature.world.lettering import STROKES
from slq.miniature.world.scenes import SIGN, SPLITS, Group, Scene, render, sample_scene, split_of, without_colour
from slq.miniature.world.styles import COLOURS, HELD_OUT_STYLE, TRAINING_STYLES
from slq.miniature.world.twins import RESPECTS, twin
from slq.runtime import new_folder

DEFAULT_COUNTS = {"train": 3000, "validation": 500, "test": 500}
CAPTIONS = {"train": 2, "validation": 1, "test": 1}
TWIN_EVERY = 5
TRIES = 1000
BEIR_FILES = (
    *(f"{each}/{name}" for each in ("knowledge", "composed", "drawn") for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv")),
    "drawn/words/*.png",
)
LONGEST_DRAWN = 8  # letters that fit on a board in an image of 96 pixels


@dataclass(frozen=True)
class Drawn:
    """One scene of a world; a twin also tells the place of the scene it is the twin of, and the respect they differ in."""

    scene: Scene
    twin_of: int | None = None
    respect: str = ""


def split_scenes(split: str, count: int, seed: int = 0, held_out_style: bool = False) -> list[Drawn]:
    """`count` scenes of a split with different contents, of one to three groups, every concept about equally often.

    After every fourth scene comes its twin, in one respect after the other. Raises InputError for an unknown split or a count below 1.
    """
    if split not in SPLITS:
        raise InputError(f"Unknown split {split!r}: choose one of {', '.join(SPLITS)}.")
    if count < 1:
        raise InputError(f"count must be at least 1, not {count}.")
    rng = random.Random(f"{split} {seed}")
    styles = (HELD_OUT_STYLE,) if held_out_style else TRAINING_STYLES
    names = list(concepts())
    drawn: list[Drawn] = []
    contents: set[tuple] = set()
    tries = 0
    while len(drawn) < count:
        place, tries = len(drawn), tries + 1
        # A concept may have no scene of this split that has such a twin: after a while it is the next one's turn.
        first = names[(place + tries // TRIES) % len(names)]
        scene = sample_scene(rng, rng.choice([1, 1, 1, 2, 2, 3]), styles, first_concept=first)
        respect = RESPECTS[place // TWIN_EVERY % len(RESPECTS)] if place % TWIN_EVERY == TWIN_EVERY - 2 and place + 1 < count else ""
        other = twin(scene, respect, rng) if respect else None
        family = [scene] + ([other] if other else [])
        if (respect and other is None) or any(split_of(one) != split or one.content in contents for one in family):
            continue
        tries = 0
        contents.update(one.content for one in family)
        drawn += [Drawn(scene)] + ([Drawn(other, place, respect)] if other else [])
    return drawn


def write_world(
    folder: Path,
    split: str = "test",
    count: int | None = None,
    seed: int = 0,
    held_out_style: bool = False,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda count: None,
) -> int:
    """Write a split's images, captions and knowledge queries into a new folder; returns the number of images.

    Raises OutputExistsError if the folder holds something, DiskFullError if there is no room.
    """
    drawn = split_scenes(split, count if count is not None else DEFAULT_COUNTS.get(split, 1), seed, held_out_style)
    scenes = [one.scene for one in drawn]
    names = [f"images/{number:04d}.png" for number in range(len(scenes))]
    new_folder(folder, overwrite, ("captions.jsonl", *names, *BEIR_FILES))
    with map_os_errors(folder):
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
                **({"twin_of": names[one.twin_of], "respect": one.respect} if one.twin_of is not None else {}),
            }
            for name, scene, one in zip(names, scenes, drawn, strict=True)
        ]
        _write_jsonl(folder / "captions.jsonl", lines)
        _write_knowledge(folder / "knowledge", names, scenes)
        _write_composed(folder / "composed", names, scenes)
        _write_drawn(folder / "drawn", names, scenes)
    return len(scenes)


def _images_of(names: list[str], scenes: list[Scene]) -> dict[str, list[str]]:
    """Concept -> the images that show it."""
    shown: dict[str, list[str]] = {}
    for name, scene in zip(names, scenes, strict=True):
        for group in scene.groups:
            shown.setdefault(group.concept, []).append(name)
    return shown


def _write_knowledge(folder: Path, names: list[str], scenes: list[Scene]) -> None:
    """Every fact about something shown, in the phrasing that no training uses; each image that shows the thing is an answer."""
    shown = _images_of(names, scenes)
    facts = {f"fact-{number}": fact for number, fact in enumerate(all_facts()) if fact.concept in shown}
    queries = [
        {"_id": id_, "text": fact.benchmark_phrasing, "category": fact.category, "concept": fact.concept} for id_, fact in facts.items()
    ]
    _write_beir(folder, names, queries, {id_: shown[fact.concept] for id_, fact in facts.items()})


def _write_composed(folder: Path, names: list[str], scenes: list[Scene]) -> None:
    """Every image of one group of things whose recoloured twin is there too; the query's own image is masked."""
    alike: dict[tuple, list[int]] = {}
    for place, scene in enumerate(scenes):
        if len(scene.groups) == 1:
            alike.setdefault(without_colour(scene), []).append(place)
    pairs = [(a, b) for places in alike.values() for a in places for b in places if a != b]
    queries = [
        {"_id": f"change-{a}-{b}", "text": f"but {scenes[b].groups[0].colour}", "image": f"../{names[a]}", "masked": [names[a]]}
        for a, b in pairs
    ]
    _write_beir(folder, names, queries, {f"change-{a}-{b}": [names[b]] for a, b in pairs})


def _write_drawn(folder: Path, names: list[str], scenes: list[Scene]) -> None:
    """Names that fit on a board, drawn as images; each image that shows the thing is an answer."""
    shown = {
        concept: images
        for concept, images in sorted(_images_of(names, scenes).items())
        if len(concept) <= LONGEST_DRAWN and set(concept) <= STROKES.keys()
    }
    (folder / "words").mkdir(parents=True)
    for number, concept in enumerate(shown):
        board = Scene((Group(SIGN, "", word=concept),), across=False, background="", style="flat", seed=number)
        render(board).save(folder / f"words/{concept}.png")
    queries = [{"_id": concept, "text": "", "image": f"words/{concept}.png", "concept": concept} for concept in shown]
    _write_beir(folder, names, queries, shown)


def _write_beir(folder: Path, names: list[str], queries: list[dict], answers: dict[str, list[str]]) -> None:
    (folder / "qrels").mkdir(parents=True)
    _write_jsonl(folder / "corpus.jsonl", [{"_id": name, "text": "", "image": f"../{name}"} for name in names])
    _write_jsonl(folder / "queries.jsonl", queries)
    rows = [f"{id_}\t{name}\t1" for id_, found in answers.items() for name in found]
    (folder / "qrels" / "test.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n", encoding="utf-8")


def _write_jsonl(path: Path, lines: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def contact_sheet(columns: int = 16) -> Image.Image:
    """Every concept once, each in another colour and style, with its name: what the world looks like."""
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
        pen.text((left + 4, top + cell - 1), noun(group), fill="black")
    return sheet
