"""KARR-Bench in its own layout: both ways, by category, with one answer or several."""

from __future__ import annotations

from pathlib import Path

import pytest
from hand_scored import encoded, hit, picture, write_lines, write_parquet

from slq.benchmarks import load_benchmark
from slq.errors import DataFileError
from slq.types import Item

pytestmark = pytest.mark.usefixtures("own_cache")

ROWS = [
    {"image": "pictures/0.jpg", "text": "the animal with (2+7) lives", "caption": "a cat", "category": "logic"},
    {"image": "pictures/1.jpg", "text": "what cuts bread", "caption": "a knife", "category": "tools"},
    {"image": "pictures/2.jpg", "caption": "it keeps the rain off", "category": "tools"},
]


@pytest.fixture
def karr(tmp_path: Path) -> Path:
    write_lines(tmp_path / "karr.jsonl", ROWS)
    for number in range(3):
        picture(tmp_path / f"pictures/{number}.jpg", number)
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
    assert "3 queries over 3 pictures, both ways and by category, a query's one answer is its own picture" in found.protocol
    for one in found.sets:
        assert hit(one, 1) == 1.0 and hit(one, 1, "constant") == 0.0


def test_several_answers(karr):
    judge(
        karr,
        "pictures/0.jpg\tpictures/0.jpg\t1",
        "pictures/0.jpg\tpictures/1.jpg\t2",
        *[f"pictures/{n}.jpg\tpictures/{n}.jpg\t1" for n in (1, 2)],
    )
    found = load_benchmark("karr", karr)
    to_image, to_text = found.sets
    assert to_image.qrels["pictures/0.jpg"] == {"pictures/0.jpg": 1, "pictures/1.jpg": 2}
    assert to_text.qrels["pictures/1.jpg"] == {"pictures/0.jpg": 2, "pictures/1.jpg": 1}
    assert "judgements of test.tsv" in found.protocol
    assert hit(to_image, 1) == 1.0


def test_ids_of_several_queries_for_a_picture(karr):
    write_lines(karr / "karr.jsonl", [*ROWS, {**ROWS[0], "text": "it has nine lives"}, {**ROWS[0], "text": "purrs", "_id": "q"}])
    to_image, to_text = load_benchmark("karr", karr).sets
    assert list(to_image.queries)[3:] == ["pictures/0.jpg#1", "q"] and len(to_image.corpus) == 3
    assert to_text.qrels["pictures/0.jpg"] == {"pictures/0.jpg": 1, "pictures/0.jpg#1": 1, "q": 1}


def test_a_picture_that_answers_nothing_is_only_a_candidate(karr):
    judge(karr, *[f"pictures/{n}.jpg\tpictures/0.jpg\t1" for n in range(3)], "pictures/1.jpg\tpictures/2.jpg\t0")
    to_image, to_text = load_benchmark("karr", karr).sets
    assert len(to_image.corpus) == 3 and list(to_text.queries) == ["pictures/0.jpg"]
    assert to_image.qrels["pictures/1.jpg"] == {"pictures/0.jpg": 1, "pictures/2.jpg": 0}


def test_pictures_in_a_table(tmp_path):
    rows = [{"image": {"bytes": encoded(n), "path": None}, "text": f"riddle {n}", "category": "x"} for n in range(3)]
    write_parquet(tmp_path / "karr.parquet", rows)
    to_image, _ = load_benchmark("karr", tmp_path).sets
    assert list(to_image.corpus) == ["0", "1", "2"] and hit(to_image, 1) == 1.0


def test_prompts_are_those_for_captions(karr):
    found = load_benchmark("karr", karr, prompts=True)
    assert found.sets[0].queries["pictures/1.jpg"].text == "what cuts bread\nSummary above sentence in one word:"
    assert set(found.prompts) == {"image", "text"}


def test_missing_pictures_count_as_missed(karr):
    (karr / "pictures/1.jpg").unlink()
    for one in load_benchmark("karr", karr).sets:
        assert [failure.item for failure in one.failures] == ["pictures/1.jpg"] and hit(one, 10) == 2 / 3
    for number in (0, 2):
        (karr / f"pictures/{number}.jpg").unlink()
    with pytest.raises(DataFileError, match=r"none of the 3 pictures is there: .*; put the pictures where the column 'image' says"):
        load_benchmark("karr", karr)


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (["pictures/0.jpg\tpictures/9.jpg\t1"], "test.tsv line 2: the id 'pictures/9.jpg' is not in the table"),
        (["q\tpictures/0.jpg\t1"], "test.tsv line 2: the id 'q' is not in the table"),
        (["pictures/0.jpg\tpictures/0.jpg\thigh"], "the score 'high' is not a whole number"),
        (["pictures/0.jpg\tpictures/0.jpg\t1"], "no picture answers the query 'pictures/1.jpg'; judge it or remove its row"),
    ],
)
def test_what_is_wrong_with_the_judgements_is_said(karr, lines, complaint):
    judge(karr, *lines)
    with pytest.raises(DataFileError, match=complaint):
        load_benchmark("karr", karr)


def test_what_is_wrong_with_the_files_is_said(karr):
    judge(karr, "pictures/0.jpg\tpictures/0.jpg\t1", name="dev")
    judge(karr, "pictures/0.jpg\tpictures/0.jpg\t1", name="extra")
    with pytest.raises(DataFileError, match=r"qrels holds dev.tsv and extra.tsv; name the one to read test.tsv"):
        load_benchmark("karr", karr)
    (karr / "qrels/extra.tsv").unlink()
    (karr / "qrels/dev.tsv").write_text("a\tb\nc\td\n")
    with pytest.raises(DataFileError, match="has the header a, b; its first line must be query-id corpus-id score"):
        load_benchmark("karr", karr)
    (karr / "karr.csv").write_text("image,text\n")
    with pytest.raises(DataFileError, match=r"holds karr.jsonl and karr.csv; keep the one to read"):
        load_benchmark("karr", karr)


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"image": "pictures/0.jpg", "text": " "}, "line 4: neither 'text' nor 'caption' holds a text"),
        ({"image": "pictures/0.jpg", "text": "x", "_id": "pictures/0.jpg"}, "line 4: repeats the id 'pictures/0.jpg'"),
        ("broken", "line 4: a JSON string, not an object"),
    ],
)
def test_what_is_wrong_with_a_row_is_said(karr, row, complaint):
    write_lines(karr / "karr.jsonl", [*ROWS, row])
    with pytest.raises(DataFileError, match=complaint):
        load_benchmark("karr", karr)


def test_the_data_is_not_public(tmp_path):
    with pytest.raises(DataFileError, match="KARR-Bench is not public; give the folder of a copy of your own"):
        load_benchmark("karr")
    with pytest.raises(DataFileError, match=r"holds no karr.jsonl .*; put the table with the columns image, text, category there"):
        load_benchmark("karr", tmp_path)
