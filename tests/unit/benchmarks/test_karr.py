"""KARR-Bench in its own layout: both ways, by category, with one answer or several."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_scored import encoded, hit, image, write_lines, write_parquet

from slq.benchmarks import load_benchmark
from slq.errors import DataError
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")

ROWS = [
    {"image": "images/0.jpg", "text": "the animal with (2+7) lives", "caption": "a cat", "category": "logic"},
    {"image": "images/1.jpg", "text": "what cuts bread", "caption": "a knife", "category": "tools"},
    {"image": "images/2.jpg", "caption": "it keeps the rain off", "category": "tools"},
]


@pytest.fixture
def karr(tmp_path: Path) -> Path:
    write_lines(tmp_path / "karr.jsonl", ROWS)
    for number in range(3):
        image(tmp_path / f"images/{number}.jpg", number)
    return tmp_path


def judge(folder: Path, *lines: str, name: str = "test") -> None:
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / f"qrels/{name}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]) + "\n")


def test_one_answer_each(karr):
    found = load_benchmark("karr", karr)
    to_image, to_text = found.sets
    ids = [row["image"] for row in ROWS]
    assert to_image.queries == dict(
        zip(ids, map(Item, ("the animal with (2+7) lives", "what cuts bread", "it keeps the rain off")), strict=True)
    )
    assert to_image.corpus == to_text.queries == {id_: Item(image=karr / id_) for id_ in ids}
    assert to_image.qrels == to_text.qrels == {id_: {id_: 1} for id_ in ids}
    assert to_image.categories == to_text.categories == dict(zip(ids, ("logic", "tools", "tools"), strict=True))
    assert to_image.depths == to_text.depths == (1, 5, 10)
    assert "3 queries over 3 images, both ways and by category, a query's one answer is its own image" in found.protocol
    for one in found.sets:
        assert hit(one, 1) == 1.0 and hit(one, 1, "constant") == 0.0


def test_several_answers(karr):
    judge(
        karr,
        "images/0.jpg\timages/0.jpg\t1",
        "images/0.jpg\timages/1.jpg\t2",
        *[f"images/{n}.jpg\timages/{n}.jpg\t1" for n in (1, 2)],
    )
    found = load_benchmark("karr", karr)
    to_image, to_text = found.sets
    assert to_image.qrels["images/0.jpg"] == {"images/0.jpg": 1, "images/1.jpg": 2}
    assert to_text.qrels["images/1.jpg"] == {"images/0.jpg": 2, "images/1.jpg": 1}
    assert "judgements of test.tsv" in found.protocol
    assert hit(to_image, 1) == 1.0


def test_ids_of_several_queries_for_an_image(karr):
    write_lines(karr / "karr.jsonl", [*ROWS, {**ROWS[0], "text": "it has nine lives"}, {**ROWS[0], "text": "purrs", "_id": "q"}])
    to_image, to_text = load_benchmark("karr", karr).sets
    assert list(to_image.queries)[3:] == ["images/0.jpg#1", "q"] and len(to_image.corpus) == 3
    assert to_text.qrels["images/0.jpg"] == {"images/0.jpg": 1, "images/0.jpg#1": 1, "q": 1}


def test_an_image_that_answers_nothing_is_only_a_candidate(karr):
    judge(karr, *[f"images/{n}.jpg\timages/0.jpg\t1" for n in range(3)], "images/1.jpg\timages/2.jpg\t0")
    to_image, to_text = load_benchmark("karr", karr).sets
    assert len(to_image.corpus) == 3 and list(to_text.queries) == ["images/0.jpg"]
    assert to_image.qrels["images/1.jpg"] == {"images/0.jpg": 1, "images/2.jpg": 0}


def test_images_in_a_table(tmp_path):
    rows = [{"image": {"bytes": encoded(n), "path": None}, "text": f"riddle {n}", "category": "x"} for n in range(3)]
    write_parquet(tmp_path / "karr.parquet", rows)
    to_image, _ = load_benchmark("karr", tmp_path).sets
    assert list(to_image.corpus) == ["0", "1", "2"] and hit(to_image, 1) == 1.0


def test_prompts_are_those_for_captions(karr):
    found = load_benchmark("karr", karr, prompts=True)
    assert found.sets[0].queries["images/1.jpg"].text == "what cuts bread\nSummary above sentence in one word:"
    assert set(found.prompts) == {"image", "text"}


def test_missing_images_count_as_missed(karr):
    (karr / "images/1.jpg").unlink()
    for one in load_benchmark("karr", karr).sets:
        assert [failure.item for failure in one.failures] == ["images/1.jpg"] and hit(one, 10) == 2 / 3
    for number in (0, 2):
        (karr / f"images/{number}.jpg").unlink()
    with pytest.raises(DataError, match=r"none of the 3 images is there: .*; put the images where the column 'image' says"):
        load_benchmark("karr", karr)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["images/0.jpg\timages/9.jpg\t1"], "test.tsv line 2: the id 'images/9.jpg' is not in the table"),
        (["q\timages/0.jpg\t1"], "test.tsv line 2: the id 'q' is not in the table"),
        (["images/0.jpg\timages/0.jpg\thigh"], "the score 'high' is not a whole number"),
        (["images/0.jpg\timages/0.jpg\t1"], "no image answers the query 'images/1.jpg'; judge it or remove its row"),
    ],
)
def test_what_is_wrong_with_the_judgements_is_said(karr, lines, complaint):
    judge(karr, *lines)
    with pytest.raises(DataError, match=complaint):
        load_benchmark("karr", karr)


def test_what_is_wrong_with_the_files_is_said(karr):
    judge(karr, "images/0.jpg\timages/0.jpg\t1", name="dev")
    judge(karr, "images/0.jpg\timages/0.jpg\t1", name="extra")
    with pytest.raises(DataError, match=r"qrels holds dev.tsv and extra.tsv; name the one to read test.tsv"):
        load_benchmark("karr", karr)
    (karr / "qrels/extra.tsv").unlink()
    (karr / "qrels/dev.tsv").write_text("a\tb\nc\td\n")
    with pytest.raises(DataError, match="begins with 'a b'; a line must be query-id corpus-id score"):
        load_benchmark("karr", karr)
    (karr / "karr.csv").write_text("image,text\n")
    with pytest.raises(DataError, match=r"holds karr.jsonl and karr.csv; keep the one to read"):
        load_benchmark("karr", karr)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"image": "images/0.jpg", "text": " "}, "line 4: neither 'text' nor 'caption' holds a text"),
        ({"image": "images/0.jpg", "text": "x", "_id": "images/0.jpg"}, "line 4: repeats the id 'images/0.jpg'"),
        ("broken", "line 4: a JSON string, not an object"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(karr, row, complaint):
    write_lines(karr / "karr.jsonl", [*ROWS, row])
    with pytest.raises(DataError, match=complaint):
        load_benchmark("karr", karr)


def test_the_data_is_not_public(tmp_path):
    with pytest.raises(DataError, match="KARR-Bench is not public; give the folder of a copy of your own"):
        load_benchmark("karr")
    with pytest.raises(DataError, match=r"holds no karr.jsonl .*; put the table with the columns image, text, category there"):
        load_benchmark("karr", tmp_path)


@pytest.mark.parametrize("below", ["", "data"])
def test_the_layout_of_the_hub_with_shards(tmp_path, below):
    (tmp_path / below).mkdir(exist_ok=True)
    rows = []
    for number in range(4):
        rows.append({"image": {"bytes": encoded(number), "path": "0.jpg"}, "text": f"query {number}", "category": "logic"})
    write_parquet(tmp_path / below / "train-00000-of-00002.parquet", [*rows[:2], {**rows[0], "text": "another query"}])
    write_parquet(tmp_path / below / "train-00001-of-00002.parquet", rows[2:])
    to_image, to_text = load_benchmark("karr", tmp_path).sets
    assert list(to_image.corpus) == ["0.jpg", "0.jpg (2)", "0.jpg (3)", "0.jpg (4)"], "four images of one file name"
    assert list(to_image.queries) == ["0.jpg", "0.jpg (2)", "0.jpg#1", "0.jpg (3)", "0.jpg (4)"]
    assert to_image.qrels["0.jpg#1"] == {"0.jpg": 1} and to_text.qrels["0.jpg"] == {"0.jpg": 1, "0.jpg#1": 1}
    assert len({item.content_hash for item in to_image.corpus.values()}) == 4


def test_images_of_one_name_in_other_folders_are_two(tmp_path):
    write_lines(tmp_path / "karr.jsonl", [{"image": f"{folder}/0.jpg", "text": f"from {folder}"} for folder in "ab"])
    for number, folder in enumerate("ab"):
        image(tmp_path / folder / "0.jpg", number)
    assert list(load_benchmark("karr", tmp_path).sets[0].corpus) == ["a/0.jpg", "b/0.jpg"]


def test_a_copy_names_no_image_elsewhere(karr, tmp_path_factory):
    secret = image(tmp_path_factory.mktemp("elsewhere") / "secret.jpg", 9)
    rows = [
        {**ROWS[0], "image": name, "_id": str(number)} for number, name in enumerate([str(secret), f"../{secret.parent.name}/secret.jpg"])
    ]
    write_lines(karr / "karr.jsonl", [*ROWS, *rows])
    to_image, _ = load_benchmark("karr", karr).sets
    assert len(to_image.corpus) == 3 and all("outside of the benchmark's folder" in each.reason for each in to_image.failures)
    assert len(to_image.failures) == 2
