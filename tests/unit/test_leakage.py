"""What a test set shares with a training set: copies are found however they were saved, different images are not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import invoke
from PIL import Image, ImageEnhance

from slq.data import from_pairs, read_beir, read_pairs, write_beir
from slq.data.pairs import PairFile
from slq.errors import InputError
from slq.evaluation import leakage
from slq.evaluation.leakage import find_leakage, image_id, normalised
from slq.miniature.export import split_scenes, write_sample_data
from slq.miniature.world.scenes import render
from slq.types import Item, Pair

COPIES: dict[str, Callable[[Image.Image, Path], None]] = {
    "saved_again.bmp": lambda image, path: image.save(path),
    "saved_again.jpg": lambda image, path: image.save(path, quality=75),
    "half.png": lambda image, path: image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC).save(path),
    "double.jpg": lambda image, path: image.resize((image.width * 2, image.height * 2), Image.Resampling.BICUBIC).save(path),
    "brighter.png": lambda image, path: ImageEnhance.Brightness(image).enhance(1.1).save(path),
    "darker.png": lambda image, path: ImageEnhance.Brightness(image).enhance(0.9).save(path),
}


def pair_file(folder: Path, images: dict[str, list[str]]) -> PairFile:
    """Pairs of the images of a folder with captions."""
    lines = [json.dumps({"image": name, "caption": captions}) for name, captions in images.items()]
    (folder / "captions.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return read_pairs(folder / "captions.jsonl")


def opened(images: list[Image.Image], prefix: str = "") -> PairFile:
    pairs = tuple(Pair(Item(image=image), (Item(f"{prefix} {i}"),), source=f"{prefix}{i}") for i, image in enumerate(images))
    return PairFile(pairs, (), Path())


@pytest.fixture(scope="module")
def worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ of 60 images; test/ of 12 others, and with copies of training images in copies/."""
    folder = tmp_path_factory.mktemp("leakage")
    write_sample_data(folder / "train", "train", 60)
    write_sample_data(folder / "test", "test", 12)
    (folder / "copies").mkdir()
    for number, (name, save) in enumerate(COPIES.items()):
        with Image.open(folder / "train" / "images" / f"{7 * number:04d}.png") as image:
            save(image.convert("RGB"), folder / "copies" / name)
    shutil.copy(folder / "train" / "images" / "0050.png", folder / "copies" / "exact.png")
    return folder


def test_every_copy_is_found_where_it_is(worlds):
    asked = pair_file(worlds / "copies", {name: ["nothing of the world"] for name in (*COPIES, "exact.png")})
    found = find_leakage(read_pairs(worlds / "train"), asked)
    origin = {Path(match.test).name: Path(match.train).name for match in found.images}
    assert origin == {**{name: f"{7 * number:04d}.png" for number, name in enumerate(COPIES)}, "exact.png": "0050.png"}
    assert [Path(match.test).name for match in found.by_content] == ["exact.png"]
    assert {Path(match.test).name for match in found.by_near_duplicate} == set(COPIES)
    assert found.by_id == () and found.texts == () and found.skipped == ()
    assert (found.train_images, found.test_images, found.test_texts) == (60, 7, 1)
    assert json.loads(json.dumps(found.to_json()))["images"] == 7


def test_other_scenes_with_the_same_names_are_not(worlds):
    """Both worlds call their images 0000.png and so on."""
    found = find_leakage(read_pairs(worlds / "train"), read_pairs(worlds / "test"))
    assert found.images == ()
    assert found.summary() == "0 of 12 images of the test set stand in the training set"


@pytest.mark.slow
def test_different_scenes_do_not_fall_together():
    """500 scenes with minimal pairs among them, and as many of photograph-like noise: every pair is compared."""
    scenes = [render(one.scene) for one in split_scenes("train", 500, seed=11)]
    assert find_leakage(opened(scenes[::2]), opened(scenes[1::2])).images == ()
    draw = np.random.default_rng(0)
    noise = [Image.fromarray(draw.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((160, 120)) for _ in range(500)]
    assert find_leakage(opened(noise[::2]), opened(noise[1::2])).images == ()


def test_plain_images_are_told_apart_by_colour():
    """Of a plain image the hash says nothing."""
    plain = [Image.new("RGB", (64, 64), colour) for colour in ("white", "black", "red", "blue", "gray")]
    assert find_leakage(opened(plain[:3]), opened(plain[3:])).images == ()
    (match,) = find_leakage(opened(plain), opened([Image.new("RGB", (32, 32), "#f80000")], "asked ")).by_near_duplicate
    assert (match.test, match.train) == ("asked 0", "2")


def test_blocks_give_what_one_loop_gives(worlds, monkeypatch):
    """The slow twin: every pair of images, one at a time."""
    import imagehash

    images = [Image.open(path).convert("RGB") for path in sorted((worlds / "train" / "images").iterdir())]
    known, asked = images[:40], [image.resize((48, 48)) for image in images[20:]]
    monkeypatch.setattr(leakage, "BLOCK", 100)
    monkeypatch.setattr(leakage, "COLOUR_GAP", 255)
    found = {match.test: (match.train, match.distance) for match in find_leakage(opened(known), opened(asked), 64).by_near_duplicate}
    known_hashes, asked_hashes = ([imagehash.phash(image, 16) for image in listed] for listed in (known, asked))
    slow = {}
    for number, one in enumerate(asked_hashes):
        distance, place = min((int(one - other), place) for place, other in enumerate(known_hashes))
        if distance <= 64:
            slow[f" {number}".strip()] = (str(place), distance)
    assert len(slow) >= 20 and found == slow


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("COCO_val2014_000000391895.jpg", "val2017/000000391895.png", True),
        ("COCO_val2014_000000391895.jpg", "COCO_train2014_000000391895.jpg", True),
        ("COCO_val2014_000000391895.jpg", "COCO_val2014_000000391896.jpg", False),
        ("1000092795.jpg", "flickr30k/1000092795.png", True),
        ("dev-1-0-img0.png", "dev/dev-1-0-img0.png", True),
        ("B008BHCT58.jpg", "B008BHCT58.png", True),
        ("0001.png", "0001.png", False),
        ("00000001.jpg", "00000001.jpg", False),
        ("IMG_1234.jpg", "IMG_1234.jpg", False),
        ("image.jpg", "image.jpg", False),
    ],
)
def test_names_that_say_which_image_it_is(one, other, same):
    assert (image_id(one) is not None and image_id(one) == image_id(other)) is same


def test_images_by_id_need_not_be_readable(tmp_path):
    files = {}
    for side, name in (("train", "000000391895.jpg"), ("test", "COCO_val2014_000000391895.jpg")):
        (tmp_path / side).mkdir()
        (tmp_path / side / name).write_bytes(b"no image" + side.encode())
        Image.new("RGB", (20, 20), "red" if side == "train" else "blue").save(tmp_path / side / "plain.png")
        files[side] = pair_file(tmp_path / side, {name: ["A dog, running."], "plain.png": [side]})
    (tmp_path / "test" / "plain.png").unlink()  # gone after its file was read
    found = find_leakage(files["train"], files["test"])
    (match,) = found.images
    assert match == found.by_id[0] and "COCO_val2014" in match.test and match.train.endswith("000000391895.jpg")
    assert [Path(failure.item).name for failure in found.skipped] == [
        "000000391895.jpg",
        "COCO_val2014_000000391895.jpg",
        "plain.png",
    ]


def test_texts_are_listed_apart(tmp_path):
    train = [Pair(Item("A dog, running."), (Item("two cats"),), (Item("a negative"),), source="line 1")]
    test = [Pair(Item("a  dog running"), (Item("Two Cats!"), Item("three cats"), Item("...")), source="line 5")]
    found = find_leakage(PairFile(tuple(train), (), tmp_path), PairFile(tuple(test), (), tmp_path))
    assert [(match.test, match.train) for match in found.texts] == [("line 5", "line 1")] * 2
    assert found.images == () and (found.train_texts, found.test_texts) == (3, 3)


def test_normalised_texts_keep_other_scripts_and_symbols():
    assert normalised("\uff21\uff22  \uff23") == "ab c"  # full width
    assert normalised("C++") != normalised("C")
    assert normalised("猫。") == "猫" and normalised("...") == ""


def test_a_retrieval_set_is_compared_with_all_that_it_holds(worlds, tmp_path):
    asked = from_pairs(read_pairs(worlds / "test"), "text_to_image")
    write_beir(tmp_path / "beir", asked)
    found = find_leakage(from_pairs(read_pairs(worlds / "test"), "image_to_text"), read_beir(tmp_path / "beir", allow_outside=True))
    assert len(found.by_content) == 12 and len(found.texts) == len({item.text for item in asked.queries.values()})


def test_a_distance_that_says_nothing_is_refused():
    for distance in (-1, 65):
        with pytest.raises(InputError, match="between 0 and 64"):
            find_leakage(opened([]), opened([]), distance)


# --- the command line -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def leaky(worlds: Path) -> Path:
    """A test set in which the seven copies stand among the captions of the training set."""
    pair_file(worlds / "copies", {name: ["nothing of the world"] for name in (*COPIES, "exact.png")})
    return worlds / "copies"


def test_command_reports_and_fails_where_images_overlap(worlds, leaky, tmp_path):
    said = invoke("leakage", worlds / "train", leaky, "--output", tmp_path / "found.json", code=1).output
    assert "7 of 7 test images stand among 60 training images: 0 same id, 1 same file, 6 near-duplicate." in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["images"] == 7 and len(found["by_near_duplicate"]) == 6 and found["max_hamming_distance"] == 20
    strict = invoke("leakage", worlds / "train", leaky, "--max-hamming-distance", 0, code=1).output
    assert "1 same file" in strict and "6 near-duplicate" not in strict


def test_command_passes_where_only_texts_do(worlds):
    said = invoke("leakage", worlds / "train", worlds / "test" / "knowledge").output
    assert "0 of 12 test images stand" in said


@pytest.mark.slow
def test_training_warns_and_keeps_what_it_found(worlds, leaky, tmp_path):
    few = ("--max-steps", 1, "--num-latents", 2, "--batch-size", 8, "--device", "cpu")
    arguments = ("train", worlds / "train", "--output", tmp_path / "out", "--test-set", leaky, "--test-set", worlds / "test", *few)
    warned = invoke(*arguments).stderr
    assert f"Warning: {leaky}: 7 of 7 images of the test set stand in the training set" in warned
    assert f"Warning: {worlds / 'test'}" not in warned
    kept = json.loads((tmp_path / "out" / "leakage.json").read_text())
    assert {name: one["images"] for name, one in kept.items()} == {str(leaky): 7, str(worlds / "test"): 0}
