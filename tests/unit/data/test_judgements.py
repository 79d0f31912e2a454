"""Judgements in the forms that other tools write, and what a query may find: candidates of its own, but not itself."""

from __future__ import annotations

import io
import json
import re

import pytest
from PIL import Image

from slq.data import read_beir, read_items, write_beir
from slq.data.judgements import find_qrels, read_qrels, relevance_of
from slq.errors import DataError, InputError
from slq.types import Item

CORPUS = [{"_id": "d1", "text": "bark"}, {"_id": "d2", "text": "meow"}, {"_id": "d3", "text": "moo"}]
QUERIES = [{"_id": "q1", "text": "what barks"}, {"_id": "q2", "text": "what meows"}]
JUDGED = {"q1": {"d1": 2, "d3": 0}, "q2": {"d2": 1}}
FORMS = {
    "test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td3\t0\nq2\td2\t1\n",
    "test.txt": "q1 0 d1 2\nq1 0 d3 -1\n\nq2 0 d2 1\n",  # TREC
    "test.trec": "q1\t0\td1\t2\r\nq1\tQ0\td3\t0\r\nq2\t0\td2\t1\r\n",
    "test.qrels": "q1 d1 2.0\nq1 d3 0.0\nq2 d2 1.0\n",  # floats, as pandas writes them
    "test.json": json.dumps({"q1": {"d1": 2, "d3": 0}, "q2": ["d2"]}),
    "test.jsonl": '{"qid": "q1", "docid": "d1", "relevance": 2}\n{"qid": "q1", "docid": "d3", "relevance": 0}\n'
    '{"qid": "q2", "docid": "d2", "relevance": 1}\n',
    "test.csv": "query_id,doc_id,label\nq1,d1,2\nq1,d3,0\nq2,d2,1\n",
}  # fmt: skip


@pytest.fixture
def asked(folder):
    folder.jsonl("corpus.jsonl", CORPUS)
    folder.jsonl("queries.jsonl", QUERIES)
    return folder


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same_judgements(asked, name):
    asked.text(f"qrels/{name}", FORMS[name])
    assert read_beir(asked.path).qrels == JUDGED


def test_the_hubs_tables_hold_judgements_in_shards(asked):
    rows = [{"query-id": "q1", "corpus-id": "d1", "score": 2}, {"query-id": "q2", "corpus-id": "d2", "score": 1}]
    for number, row in enumerate(rows):
        asked.parquet(f"qrels/test-0000{number}-of-00002.parquet", [row])
    assert [file.name for file in find_qrels(asked.path, "test")] == ["test-00000-of-00002.parquet", "test-00001-of-00002.parquet"]
    assert read_beir(asked.path).qrels == {"q1": {"d1": 2}, "q2": {"d2": 1}}


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("test.txt", "q1 0 d1 2\nq1 d2 1\n", "test.txt line 2: 3 field(s) where the first line has 4"),
        ("test.txt", "q1 d1\n", "begins with 'q1 d1'; a line must be query-id corpus-id score"),
        ("test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t0.5\n", "the score '0.5' is not a whole number"),
        ("test.tsv", "query-id\tcorpus-id\tscore\nq1\td1\tnan\n", "the score 'nan' is not a whole number"),
        ("test.json", '{"q1": 3}', "query 'q1': holds no judgements"),
        ("test.json", "{}", "holds no judgements; write an object"),
        ("test.csv", "a,b\n1,2\n", "has the columns a, b; it must have query-id corpus-id score"),
    ],
)
def test_what_is_wrong_is_named(asked, name, content, complaint):
    asked.text(f"qrels/{name}", content)
    with pytest.raises(DataError, match=re.escape(complaint)):
        read_beir(asked.path)


def test_two_forms_of_one_split_are_refused(asked):
    for name in ("test.tsv", "test.json"):
        asked.text(f"qrels/{name}", FORMS[name])
    with pytest.raises(DataError, match=r"holds test.json and test.tsv; keep the one to read"):
        read_beir(asked.path)


def test_scores_are_whole_numbers():
    assert [relevance_of(each, "") for each in (3, "2", "1.0", 0.0, "-1", -2.0, True)] == [3, 2, 1, 0, 0, 0, 1]
    for wrong in ("1e400", None, "x", [1], float("inf")):
        with pytest.raises(DataError, match="not a whole number"):
            relevance_of(wrong, "here")


def test_ids_are_texts(asked):
    asked.text("qrels/test.json", json.dumps({"7": {"8": 1}}))
    assert list(read_qrels(asked.path / "qrels/test.json")) == [("test.json query '7'", "7", "8", 1)]


# --- a query in its own corpus ---------------------------------------------------------------------------------------------


def arguana(folder, judged="q1\td2\t1\nq2\td3\t1\nq3\tq3\t1\n"):
    """Queries 1 and 3 stand in the corpus under their ids, query 2 under another one; query 3 is its own answer."""
    texts = {"q1": "dogs bark", "q2": "cats meow", "q3": "cows moo"}
    corpus = {"q1": "dogs bark", "copy": "cats meow", "q3": "cows moo", "d2": "no they do not", "d3": "they purr"}
    folder.jsonl("corpus.jsonl", [{"_id": id_, "text": text} for id_, text in corpus.items()])
    folder.jsonl("queries.jsonl", [{"_id": id_, "text": text, "excluded": ["d3"] if id_ == "q1" else []} for id_, text in texts.items()])
    folder.text("qrels/test.tsv", "query-id\tcorpus-id\tscore\n" + judged)
    return folder.path


@pytest.mark.parametrize(
    ("exclude_self", "excluded", "told"),
    [
        ("id", {"q1": {"q1", "d3"}}, ("do not find themselves (by id): 1",)),
        ("content", {"q1": {"q1", "d3"}, "q2": {"copy"}}, ("do not find themselves (by content): 2",)),
        ("no", {"q1": {"d3"}}, ()),
    ],
)  # fmt: skip
def test_a_query_does_not_find_itself(folder, exclude_self, excluded, told):
    found = read_beir(arguana(folder), exclude_self=exclude_self)
    assert found.excluded == excluded and len(found.notes) == bool(told) and all(each in found.notes[0] for each in told)


def test_an_unknown_way_is_refused(folder):
    with pytest.raises(InputError, match="exclude_self must be 'id', 'content' or 'no', not 'text'"):
        read_beir(arguana(folder), exclude_self="text")


# --- candidates of its own, images inside of tables --------------------------------------------------------------------------


def png(shade: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def test_a_query_may_have_candidates_of_its_own(folder, tmp_path):
    """As in Winoground and SugarCrepe: an image is to tell its caption from one other, not from all."""
    folder.images("a.png", "b.png")
    folder.jsonl("corpus.jsonl", [{"_id": id_, "text": f"caption {id_}"} for id_ in ("a0", "a1", "b0", "b1")])
    rows = [{"_id": "a", "image": "a.png", "candidates": ["a1", "a0"]}, {"_id": "b", "image": "b.png", "candidates": None}]
    folder.jsonl("queries.jsonl", rows)
    folder.text("qrels/test.tsv", "a a0 1\nb b0 1\n")
    found = read_beir(folder.path)
    assert found.candidates == {"a": ("a0", "a1")}
    write_beir(tmp_path / "again", found)
    assert read_beir(tmp_path / "again", allow_outside=True).candidates == found.candidates
    folder.jsonl("queries.jsonl", [{**rows[0], "candidates": ["a0", "zz"]}, rows[1]])
    with pytest.raises(DataError, match=r"query 'a' has the candidate 'zz', which is not in corpus.jsonl; correct its 'candidates'"):
        read_beir(folder.path)


@pytest.mark.parametrize("layout", ["{}.parquet", "{}/test-00000-of-00001.parquet"])
def test_images_may_stand_in_tables(folder, own_cache, layout):
    folder.parquet(
        layout.format("corpus"),
        [{"id": "d1", "image": {"bytes": png(1), "path": "x.png"}}, {"id": "d2", "image": {"bytes": png(2), "path": None}}],
    )
    folder.parquet(layout.format("queries"), [{"id": "q1", "text": "the first", "image": {"bytes": png(3), "path": None}}])
    folder.text("qrels/test.txt", "q1 0 d1 1\n")
    found = read_beir(folder.path)
    assert list(found.corpus) == ["d1", "d2"] and found.queries["q1"].text == "the first" and not found.failures
    assert found.corpus["d1"].image.read_bytes() == png(1) and found.queries["q1"].image.read_bytes() == png(3)


def test_several_images_in_an_item_are_one_sentence(folder):
    folder.images("a.png", "b.png")
    rows = [
        {"_id": "two", "image": ["a.png", "b.png"]},
        {"_id": "hub", "images": [{"bytes": b"x", "path": None}, {"bytes": b"y", "path": None}]},
        {"_id": "one", "image": ["a.png"]},
    ]
    folder.jsonl("items.jsonl", [rows[0], rows[2]])
    folder.parquet("corpus.parquet", rows[1:2])
    folder.jsonl("queries.jsonl", [{"_id": "q", "text": "a"}])
    folder.text("qrels/test.txt", "q hub 1\n")
    said = "an item has 2 images, and one is encoded an item; join them into one, or give each an item"
    with pytest.raises(DataError, match=said):
        read_beir(folder.path)
    found = read_items(folder.path / "items.jsonl")
    assert found.items == {"one": Item(image=folder.path / "a.png")} and [failure.reason for failure in found.failures] == [said]
