"""Sample data: which scenes there are, their minimal pairs, and files that say what the images show."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from seeing import check_minimal_pair, read_caption

from slq.data import RetrievalSet, read_beir, read_pairs
from slq.errors import InputError
from slq.miniature.export import LONGEST_RENDERED, SampleScene, split_scenes, write_sample_data
from slq.miniature.world.concepts import all_facts, concepts
from slq.miniature.world.language import caption, phrase
from slq.miniature.world.minimal_pairs import DIFFERENCES
from slq.miniature.world.scenes import BACKGROUNDS, IMAGE_SIZE, MAX_COUNT, SIGN, SPLITS, Group, Scene, render, split_of
from slq.miniature.world.styles import HELD_OUT_STYLE, TRAINING_STYLES

COUNT = 60  # images of the sample data that is written


@cache
def samples_of(split: str, count: int = 500, seed: int = 0) -> list[SampleScene]:
    return split_scenes(split, count, seed)


# Which scenes


@pytest.mark.slow
@pytest.mark.parametrize(("split", "count"), [("test", 500), ("train", 2000)])
def test_scenes_are_of_their_split_and_all_different(split, count):
    scenes = [one.scene for one in samples_of(split, count)]
    assert len(scenes) == count == len({scene.content for scene in scenes})
    assert {split_of(scene) for scene in scenes} == {split}
    assert len({caption(scene) for scene in scenes}) == count
    assert {len(scene.groups) for scene in scenes} == {1, 2, 3}
    assert not [scene for scene in scenes if any(group.concept == SIGN for group in scene.groups)]
    assert {scene.style for scene in scenes} == set(TRAINING_STYLES)


@pytest.mark.parametrize(("split", "count"), [("test", 500), ("train", 2000)])
def test_every_fifth_scene_makes_a_minimal_pair_with_the_one_before(split, count):
    samples = samples_of(split, count)
    assert [place for place, one in enumerate(samples) if one.pair_of is not None] == list(range(4, count, 5))
    for place, one in enumerate(samples):
        if one.pair_of is None:
            assert one.differs_in == ""
        else:
            assert one.pair_of == place - 1
            check_minimal_pair(samples[one.pair_of].scene, one.scene, one.differs_in)
    assert Counter(one.differs_in for one in samples if one.differs_in) == {differs_in: count // 25 for differs_in in DIFFERENCES}


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9, 11, 26])
def test_few_scenes_are_as_many_as_asked_and_no_pair_is_broken(count):
    samples = split_scenes("train", count)
    assert len(samples) == count
    assert [one.pair_of for one in samples if one.pair_of is not None] == list(range(3, count - 1, 5))
    assert [one.differs_in for one in samples if one.differs_in] == [DIFFERENCES[number % 5] for number in range(count // 5)]


def test_every_concept_comes_about_equally_often():
    of_test = Counter(group.concept for one in samples_of("test") for group in one.scene.groups)
    assert of_test.keys() == concepts().keys() and min(of_test.values()) >= 2
    of_train = Counter(group.concept for one in samples_of("train", 2000) for group in one.scene.groups)
    mean = of_train.total() / len(concepts())
    assert of_train.keys() == concepts().keys()
    assert 0.5 * mean < min(of_train.values()) and max(of_train.values()) < 1.7 * mean


def test_a_concept_without_a_fitting_scene_gives_its_turn_to_the_next():
    """Some concepts have no image of one group in the test split, so none that can be recoloured."""
    names = list(concepts())
    lacking = {name for name in names if not any(split_of(scene) == "test" for scene in alone(name))}
    samples = samples_of("test")
    turns = [one.pair_of for one in samples if one.differs_in == "recoloured"]
    stuck = [place for place in turns if names[place % len(names)] in lacking]
    assert stuck, "no such turn: this test could not fail"
    for place in turns:
        follower = place
        while names[follower % len(names)] in lacking:
            follower += 1
        assert [group.concept for group in samples[place].scene.groups] == [names[follower % len(names)]]


def alone(name: str) -> list[Scene]:
    groups = [Group(name, "red", count) for count in range(1, MAX_COUNT + 1)] + [Group(name, "red", small=True)]
    return [Scene((group,), True, background, "flat", 0) for group in groups for background in BACKGROUNDS]


def test_scenes_repeat_with_the_seed_and_differ_between_splits():
    assert split_scenes("test", 20, seed=3) == split_scenes("test", 20, seed=3)
    first = {split: [one.scene for one in split_scenes(split, 20, seed=3)] for split in SPLITS}
    others = {split: [one.scene for one in split_scenes(split, 20, seed=4)] for split in SPLITS}
    assert all(first[split] != others[split] for split in SPLITS)
    assert not {scene.content for scene in first["train"]} & {scene.content for scene in first["test"]}


def test_the_held_out_style_comes_alone_and_only_if_wished():
    assert {one.scene.style for one in split_scenes("test", 20, held_out_style=True)} == {HELD_OUT_STYLE}


def test_unknown_splits_and_no_images_are_refused():
    with pytest.raises(InputError, match="train, validation, test"):
        split_scenes("tset", 5)
    with pytest.raises(InputError, match="at least 1, not 0"):
        split_scenes("test", 0)


# What is written


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world") / "test"
    steps: list[int] = []
    assert write_sample_data(folder, "test", COUNT, progress=steps.append) == COUNT == sum(steps)
    return folder


@pytest.fixture(scope="module")
def samples() -> list[SampleScene]:
    return split_scenes("test", COUNT)


def name_of(place: int) -> str:
    return f"images/{place:04d}.png"


def jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_set(world: Path, name: str) -> RetrievalSet:
    """A set as the tool reads it: every image is in its corpus, and nothing is skipped."""
    found = read_beir(world / name)
    assert found.failures == ()
    assert list(found.corpus) == [name_of(place) for place in range(COUNT)]
    for id_, item in found.corpus.items():
        assert isinstance(item.image, Path) and item.image.samefile(world / id_)
    assert list(found.queries) == list(found.qrels)
    return found


def showing(samples: list[SampleScene], concept: str) -> set[str]:
    return {name_of(place) for place, one in enumerate(samples) if concept in {group.concept for group in one.scene.groups}}


def test_captions_tell_what_each_image_shows(world, samples):
    lines = jsonl(world / "captions.jsonl")
    for place, (line, one) in enumerate(zip(lines, samples, strict=True)):
        scene = one.scene
        assert line["image"] == name_of(place)
        with Image.open(world / line["image"]) as image:
            assert image.tobytes() == render(scene).tobytes()
        (text,) = line["caption"]
        assert read_caption(text)[0] == [phrase(group) for group in scene.groups] and read_caption(text)[2] == scene.background
        assert (line["style"], line["concepts"]) == (scene.style, [group.concept for group in scene.groups])
        pair = {} if one.pair_of is None else {"pair_of": name_of(one.pair_of), "differs_in": one.differs_in}
        assert {key: value for key, value in line.items() if key in ("pair_of", "differs_in")} == pair
    assert sum("pair_of" in line for line in lines) == COUNT // 5
    pairs = read_pairs(world / "captions.jsonl")
    assert len(pairs.pairs) == COUNT and not pairs.failures


def test_training_images_have_several_captions(tmp_path):
    write_sample_data(tmp_path / "train", "train", 20)
    counts = Counter(len(line["caption"]) for line in jsonl(tmp_path / "train" / "captions.jsonl"))
    assert counts.keys() <= {1, 2} and counts[2] > counts[1]
    assert all(len(set(line["caption"])) == len(line["caption"]) for line in jsonl(tmp_path / "train" / "captions.jsonl"))


def test_knowledge_asks_every_fact_of_what_is_shown_in_its_benchmark_phrasing(world, samples):
    found = read_set(world, "knowledge")
    present = {group.concept for one in samples for group in one.scene.groups}
    wanted = {fact.benchmark_phrasing: fact for fact in all_facts() if fact.concept in present}
    assert {item.text for item in found.queries.values()} == wanted.keys()
    assert len(found.queries) == len(wanted)
    for id_, item in found.queries.items():
        fact = wanted[item.text]
        assert item.image is None
        assert found.qrels[id_].keys() == showing(samples, fact.concept)
        assert found.categories[id_] == fact.category
    assert not found.excluded


def test_composed_asks_for_the_recoloured_image_and_masks_its_own(world, samples):
    found = read_set(world, "composed")
    asked = set()
    for id_, item in found.queries.items():
        (own,) = found.excluded[id_]
        (answer,) = found.qrels[id_]
        assert isinstance(item.image, Path) and item.image.samefile(world / own)
        (before,), (after,) = (samples[int(Path(name).stem)].scene.groups for name in (own, answer))
        assert item.text == f"but {after.colour}" != f"but {before.colour}"
        assert (before.concept, before.count, before.small) == (after.concept, after.count, after.small)
        asked.add((own, answer))
    counterparts = {(name_of(one.pair_of), name_of(place)) for place, one in enumerate(samples) if one.differs_in == "recoloured"}
    assert len(counterparts) == 3
    assert asked >= counterparts | {(second, first) for first, second in counterparts}
    assert {pair[::-1] for pair in asked} == asked
    assert found.excluded.keys() == found.queries.keys()


def test_rendered_asks_for_concepts_by_their_names_as_images(world, samples):
    found = read_set(world, "rendered")
    present = {group.concept for one in samples for group in one.scene.groups}
    assert found.queries.keys() == {name for name in present if len(name) <= LONGEST_RENDERED and name.isalpha()}
    assert 0.5 * len(present) < len(found.queries) < len(present)
    boards = set()
    for name, item in found.queries.items():
        assert not item.text
        assert isinstance(item.image, Path) and item.image.samefile(world / "rendered" / "words" / f"{name}.png")
        with Image.open(item.image) as board:
            assert board.size == (IMAGE_SIZE, IMAGE_SIZE)
            boards.add(board.convert("RGB").tobytes())
            dark = np.asarray(board.convert("L")) < 110
        _, columns = np.nonzero(dark[30:66, 12:84])
        assert dark[30:66].mean() > 0.02 and np.ptp(columns) > 30, f"{name} cannot be read"
        assert found.qrels[name].keys() == showing(samples, name)
    assert len(boards) == len(found.queries), "two names look alike"
    assert {path.stem for path in (world / "rendered" / "words").iterdir()} == found.queries.keys()
    assert not found.excluded
