"""Karpathy's dataset_coco.json: its training pairs are train and restval, never val or test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slq.benchmarks import load_benchmark
from slq.data import read_pairs
from slq.data.karpathy import HELD_OUT_SPLITS
from slq.errors import DataError
from slq.types import Item

SPLITS = ("train", "val", "test", "restval", "train")


def image(number, split, folder="train2014"):
    """One entry as the real file has it."""
    captions = [f"caption {number}", f"Another caption, {number}."]
    return {
        "filepath": folder,
        "sentids": [2 * number, 2 * number + 1],
        "filename": f"COCO_{folder}_{number:012d}.jpg",
        "imgid": number,
        "split": split,
        "sentences": [{"tokens": raw.split(), "raw": raw, "imgid": number, "sentid": 2 * number + i} for i, raw in enumerate(captions)],
        "cocoid": number,
    }


def coco(folder, images):
    return folder.text("dataset_coco.json", json.dumps({"images": images, "dataset": "coco"}))


@pytest.fixture
def images(folder):
    made = [image(number, split, "train2014" if split == "train" else "val2014") for number, split in enumerate(SPLITS)]
    folder.images(*(f"{one['filepath']}/{one['filename']}" for one in made))
    return made


def numbers(file):
    return [int(Path(pair.query.image).stem[-12:]) for pair in file.pairs]


def test_training_pairs_are_train_and_restval(folder, images):
    found = read_pairs(coco(folder, images))
    assert numbers(found) == [0, 3, 4] and found.failures == ()
    assert found.pairs[1].query == Item(image=folder.path / "val2014" / "COCO_val2014_000000000003.jpg")
    assert found.pairs[1].positives == (Item("caption 3"), Item("Another caption, 3."))
    assert found.pairs[1].source == "dataset_coco.json image 4"


def test_other_splits_only_when_asked_for(folder, images):
    path = coco(folder, images)
    assert numbers(read_pairs(path, splits=HELD_OUT_SPLITS)) == [1, 2]
    assert numbers(read_pairs(path, splits=("restval",))) == [3]
    with pytest.raises(DataError, match=r"no image of the split nowhere, only of train .*, val .*, test .*, restval"):
        read_pairs(path, splits=("nowhere",))


def test_flickr_has_no_folders(folder):
    entry = {key: value for key, value in image(1000092795, "train").items() if key not in ("filepath", "cocoid")}
    folder.images("1000092795.jpg")
    assert numbers(read_pairs(coco(folder, [{**entry, "filename": "1000092795.jpg"}]))) == [1000092795]


def test_bad_entries_are_listed(folder, images):
    bad = [
        image(9, "train"),
        {**images[0], "filename": None},
        {**images[0], "sentences": []},
        {**images[0], "sentences": [{"raw": ""}]},
        "no object",
        {"filename": "a.jpg"},
    ]
    found = read_pairs(coco(folder, [*images, *bad]))
    assert numbers(found) == [0, 3, 4]
    assert [failure.item for failure in found.failures] == [f"dataset_coco.json image {number}" for number in range(6, 12)]
    wanted = ["does not exist", "'filename' is missing", "'sentences' is missing", "empty", "no 'split'", "no 'split'"]
    for failure, words in zip(found.failures, wanted, strict=True):
        assert words in failure.reason
    with pytest.raises(DataError, match="6 row"):
        read_pairs(coco(folder, [*images, *bad]), strict=True)


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", "not an object"), ('{"images": 3}', "no list 'images'"), ("{", "not valid JSON"), ('{"images": []}', "only of none")],
)
def test_other_json_is_refused(folder, content, message):
    with pytest.raises(DataError, match=message):
        read_pairs(folder.text("some.json", content))


def test_a_missing_file_is_refused(folder):
    with pytest.raises(DataError, match="does not exist"):
        read_pairs(folder.path / "dataset_coco.json")


def coco_captions(folder, name="captions_val2014.json", **changed):
    """COCO's own file, of three images with a caption each and one more for the first."""
    listed = [{"id": 10 + number, "file_name": f"COCO_val2014_{number:012d}.jpg", "height": 2, "width": 2} for number in range(3)]
    captions = [{"image_id": image_id, "id": place, "caption": f"caption {place}"} for place, image_id in enumerate((10, 11, 12, 10))]
    return folder.text(name, json.dumps({"info": {}, "images": listed, "annotations": captions, "licenses": [], **changed}))


@pytest.mark.parametrize("splits", [("train", "restval"), ("val", "test"), ("test",)])
def test_cocos_own_captions_are_read_whole(folder, splits):
    folder.images(*(f"val2014/COCO_val2014_{number:012d}.jpg" for number in range(3)))
    found = read_pairs(coco_captions(folder), splits=splits)
    assert numbers(found) == [0, 1, 2] and found.failures == () and found.num_rows == 3
    assert found.pairs[0].positives == (Item("caption 0"), Item("caption 3"))


def test_what_is_wrong_in_cocos_captions_is_listed(folder):
    folder.images("val2017/COCO_val2014_000000000000.jpg", "images/COCO_val2014_000000000001.jpg")
    captions = [{"image_id": 10, "caption": "one"}, {"image_id": 99, "caption": "lost"}, {"image_id": 11, "caption": ""}, 3]
    captions += [{"image_id": 12, "caption": "of a missing image"}, {"image_id": [], "caption": "of a list"}]
    found = read_pairs(coco_captions(folder, "captions_val2017.json", annotations=captions))
    assert numbers(found) == [0]
    reasons = {failure.item: failure.reason for failure in found.failures}
    named = [
        f"captions_val2017.json {place}" for place in ("annotation 2", "annotation 3", "annotation 4", "annotation 6", "image 2", "image 3")
    ]
    assert list(reasons) == named
    assert "has no caption" in reasons[named[-2]] and "does not exist in ., images, flickr30k-images" in reasons[named[-1]]


@pytest.mark.parametrize("place", ["{path}", "{name}", "images/{path}", "images/{name}", "flickr30k-images/{name}"])
def test_images_are_looked_for_alike_for_training_and_for_measuring(folder, place):
    made = image(0, "test", "val2014")
    folder.images(place.format(path=f"val2014/{made['filename']}", name=made["filename"]))
    pairs = read_pairs(coco(folder, [made]), splits=("test",)).pairs
    scored = load_benchmark("coco", folder.path, "all")
    assert [pair.query.image.resolve() for pair in pairs] == [item.image.resolve() for item in scored.sets[0].corpus.values()]
