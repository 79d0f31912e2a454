"""MMEB's tasks: candidates of their own for each query, in an order that says nothing."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hand_scored import COMMIT, encoded, hit, hub_copy, image, write_lines, write_parquet

from slq.benchmarks import load_benchmark
from slq.benchmarks.mmeb import GROUPS, SUBSETS
from slq.errors import DataError
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")

LABELS = [f"label {number}" for number in range(40)]


def classification(number: int, **other: Any) -> dict:
    """An image asks for its label; the right one stands first, as in the original."""
    right = LABELS[number % len(LABELS)]
    return {
        "qry_inst": "<|image_1|> Represent the given image for classification",
        "qry_text": "",
        "qry_img_path": f"ImageNet-1K/{number}.png",
        "tgt_inst": "",
        "tgt_text": [right, *[label for label in LABELS if label != right]],
        "tgt_img_path": [""] * len(LABELS),
    } | other


def retrieval(number: int) -> dict:
    """A text asks for an image with words."""
    names = [f"EDIS/{(number + other) % 6}.png" for other in range(6)]
    return {
        "qry_inst": "Find a news image that matches the provided caption:",
        "qry_text": f"caption {number}\n",
        "qry_img_path": "",
        "tgt_inst": "<|image_1|> Represent the given image with related text information:",
        "tgt_text": [f"headline {name}" for name in names],
        "tgt_img_path": names,
    }


@pytest.fixture
def mmeb(tmp_path: Path) -> Path:
    write_lines(tmp_path / "ImageNet-1K/test.jsonl", [classification(number) for number in range(30)])
    write_parquet(tmp_path / "EDIS/test-00000-of-00001.parquet", [retrieval(number) for number in range(6)])
    for number in range(30):
        image(tmp_path / f"images/ImageNet-1K/{number}.png", number)
    for number in range(6):
        image(tmp_path / f"images/EDIS/{number}.png", number)
    return tmp_path


def test_there_are_36_tasks():
    assert len(SUBSETS) == len(set(SUBSETS)) == 36
    assert {group: len(names) for group, names in GROUPS.items()} == {"classification": 10, "vqa": 10, "retrieval": 12, "grounding": 4}


def test_each_query_has_its_own_candidates(mmeb):
    found = load_benchmark("mmeb", mmeb)
    images, news = found.sets
    assert (images.name, news.name) == ("ImageNet-1K", "EDIS") and images.depths == (1,)
    assert images.queries["query 7"] == Item(image=mmeb / "images/ImageNet-1K/7.png")
    assert sorted(item.text for item in images.corpus.values()) == sorted(LABELS)
    assert all(len(images.candidates[id_]) == len(LABELS) for id_ in images.queries)
    (right,) = images.qrels["query 7"]
    assert images.corpus[right] == Item("label 7")
    assert news.queries["query 2"] == Item("caption 2")
    (right,) = news.qrels["query 2"]
    assert news.corpus[right] == Item("headline EDIS/2.png", mmeb / "images/EDIS/2.png") and len(news.corpus) == 6


def test_order_says_nothing(mmeb):
    """The right answer stands first in the files; here it stands anywhere, the same each time."""
    images = load_benchmark("mmeb", mmeb).sets[0]
    places = [images.candidates[id_].index(next(iter(images.qrels[id_]))) for id_ in images.queries]
    assert places.count(0) < 5 and len(set(places)) > 10
    column = list(images.corpus)
    places = [column.index(next(iter(images.qrels[id_]))) for id_ in images.queries]
    assert sum(abs(place - number) for number, place in enumerate(places)) > 100, "nor does the corpus tell"
    again = load_benchmark("mmeb", mmeb).sets[0]
    assert again.candidates == images.candidates and list(again.corpus) == column


def test_perfect_random_and_constant_scores(mmeb):
    images, news = load_benchmark("mmeb", mmeb).sets
    for one in (images, news):
        assert hit(one, 1) == 1.0 and hit(one, 1, "constant") == 0.0
    assert hit(images, 1, "random") < 0.2


def test_groups_say_what_they_lack(mmeb):
    found = load_benchmark("mmeb", mmeb)
    assert found.averages == {
        "classification (1 of 10)": ("ImageNet-1K",),
        "retrieval (1 of 12)": ("EDIS",),
        "in distribution (1 of 20)": ("ImageNet-1K",),
        "out of distribution (1 of 16)": ("EDIS",),
        "overall (2 of 36)": ("ImageNet-1K", "EDIS"),
    }
    assert found.protocol.endswith("without instructions; NOT the published data: 34 of 36 tasks are missing.")
    for name in GROUPS["grounding"]:
        write_lines(mmeb / name / "test.jsonl", [retrieval(0)])
    found = load_benchmark("mmeb", mmeb, "grounding")
    assert found.averages == {"grounding": GROUPS["grounding"]} and "NOT" not in found.protocol


def test_all_36_make_the_overall_mean(mmeb):
    for name in SUBSETS:
        write_lines(mmeb / name / "test.jsonl", [retrieval(0)])
    (mmeb / "EDIS/test-00000-of-00001.parquet").unlink()
    found = load_benchmark("mmeb", mmeb)
    assert found.averages.keys() == {*GROUPS, "in distribution", "out of distribution", "overall"} and "NOT" not in found.protocol
    assert found.averages["overall"] == SUBSETS and len(found.sets) == 36
    inside, outside = (set(found.averages[name]) for name in ("in distribution", "out of distribution"))
    assert len(inside) == 20 and len(outside) == 16 and inside | outside == set(SUBSETS)
    assert {"MSCOCO", "CIRR", "Visual7W"} <= inside and {"FashionIQ", "GQA", "Country211", "RefCOCO"} <= outside


def test_instructions_are_switchable(mmeb):
    found = load_benchmark("mmeb", mmeb, prompts=True)
    images, news = found.sets
    assert images.queries["query 0"] == Item("Represent the given image for classification", mmeb / "images/ImageNet-1K/0.png")
    assert news.queries["query 0"] == Item("Find a news image that matches the provided caption: caption 0")
    (right,) = news.qrels["query 0"]
    assert news.corpus[right].text == "Represent the given image with related text information: headline EDIS/0.png"
    assert set(found.prompts) == {"query", "corpus"} and "with MMEB's instructions" in found.protocol


def test_tables_whose_texts_hold_the_instructions(tmp_path):
    row = classification(0, qry_text="<|image_1|>\nRepresent the given image")
    write_lines(tmp_path / "VOC2007/test.jsonl", [{key: value for key, value in row.items() if not key.endswith("inst")}])
    image(tmp_path / "ImageNet-1K/0.png")
    for prompts in (False, True):
        found = load_benchmark("mmeb", tmp_path, prompts=prompts)
        assert found.prompts == {} and "with the instructions that stand in the texts" in found.protocol
        assert found.sets[0].queries["query 0"].text == "Represent the given image"


def test_equal_candidates_are_one(tmp_path):
    row = {**classification(0), "tgt_text": ["cat", "dog", "cat", "cow"], "tgt_img_path": None, "qry_text": "?", "qry_img_path": None}
    write_lines(tmp_path / "VOC2007/test.jsonl", [row])
    (one,) = load_benchmark("mmeb", tmp_path).sets
    assert len(one.candidates["query 0"]) == 3 and hit(one, 1) == 1.0


def test_the_archive_is_read_where_images_are_not_unpacked(mmeb, own_cache):
    with zipfile.ZipFile(mmeb / "images.zip", "w") as archive:
        archive.writestr("EDIS/3.png", encoded(99))
        archive.writestr("images/EDIS/4.png", encoded(98))
    for number in (3, 4):
        (mmeb / f"images/EDIS/{number}.png").unlink()
    news = load_benchmark("mmeb", mmeb).sets[1]
    unpacked = [item.image for item in news.corpus.values() if item.image.is_relative_to(own_cache)]
    assert {file.read_bytes() for file in unpacked} == {encoded(99), encoded(98)} and news.failures == ()
    shutil.copytree(mmeb, mmeb.with_name("copy"))
    others = [item.image for item in load_benchmark("mmeb", mmeb.with_name("copy")).sets[1].corpus.values()]
    assert len(unpacked) == 2 and not set(unpacked) & set(others), "an archive's checksums say nothing of another one's images"
    (mmeb / "images.zip").write_bytes(b"no zip")
    with pytest.raises(DataError, match=r"images.zip is not a readable zip file"):
        load_benchmark("mmeb", mmeb)


def test_missing_images_count_as_missed(mmeb):
    (mmeb / "images/ImageNet-1K/7.png").unlink()
    (mmeb / "images/EDIS/2.png").unlink()
    images, news = load_benchmark("mmeb", mmeb).sets
    assert [failure.item for failure in images.failures] == ["query 7"] and hit(images, 1) == 29 / 30
    assert len(news.failures) == 1 and "EDIS/2.png is not in" in news.failures[0].reason
    assert len(news.corpus) == 5 and len(news.candidates["query 0"]) == 5 and hit(news, 1) == 5 / 6
    for number in range(6):
        (mmeb / f"images/EDIS/{number}.png").unlink(missing_ok=True)
    with pytest.raises(
        DataError, match=r"none of the 6 images is there: .*; unpack images.zip of TIGER-Lab/MMEB-eval beside the folder EDIS"
    ):
        load_benchmark("mmeb", mmeb)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"tgt_img_path": ["", ""]}, r"ImageNet-1K/test.jsonl line 1: 40 texts and 2 images as candidates"),
        ({"tgt_text": ["cat"], "tgt_img_path": [""]}, r"1 candidate\(s\), where the right one stands among others"),
        ({"tgt_text": [1, 2]}, "the candidates must be texts and paths"),
        ({"qry_img_path": ""}, "an item has neither text nor image"),
        ({"qry_text": 7}, "a query and its instruction must be texts"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(mmeb, change, complaint):
    write_lines(mmeb / "ImageNet-1K/test.jsonl", [classification(0, **change)])
    with pytest.raises(DataError, match=complaint):
        load_benchmark("mmeb", mmeb)


def test_what_is_wrong_with_the_folder_is_said(tmp_path):
    with pytest.raises(DataError, match=r"holds none of MMEB's tables \(such as ImageNet-1K/test-\*.parquet\); give the folder that does"):
        load_benchmark("mmeb", tmp_path)
    write_lines(tmp_path / "GQA/test.jsonl", [{"qry": "?"}])
    with pytest.raises(DataError, match=r"GQA/test.jsonl line 1: the column 'qry_text' is missing \(there are qry\)"):
        load_benchmark("mmeb", tmp_path)
    (tmp_path / "GQA/test.jsonl").rename(tmp_path / "GQA/train.jsonl")
    with pytest.raises(DataError, match="GQA holds no table of the split 'test', only of train"):
        load_benchmark("mmeb", tmp_path)


def test_the_hub(own_cache):
    snapshot = hub_copy(own_cache / "hub", "TIGER-Lab/MMEB-eval")
    write_parquet(snapshot / "EDIS/test-00000-of-00001.parquet", [retrieval(number) for number in range(6)])
    with zipfile.ZipFile(snapshot / "images.zip", "w") as archive:
        for number in range(6):
            archive.writestr(f"EDIS/{number}.png", encoded(number))
    found = load_benchmark("mmeb", variant="retrieval")
    assert found.revision == COMMIT and hit(found.sets[0], 1) == 1.0
