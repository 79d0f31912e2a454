"""BEIR folders read and written, and retrieval sets made of caption pairs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
from PIL import Image

from slq.data import RetrievalSet, from_pairs, read_beir, read_pairs, write_beir
from slq.errors import DataError, InputError, OutputError, OutputExistsError
from slq.types import Item, Pair

CORPUS = [{"_id": "d1", "title": "Dogs", "text": "bark"}, {"_id": "d2", "text": "meow"}]
QUERIES = [{"_id": "q1", "text": "what barks"}, {"_id": "q2", "text": "what meows"}]
QRELS = [("q1", "d1", 1), ("q2", "d2", 2)]


def beir(folder, corpus=CORPUS, queries=QUERIES, qrels=QRELS, split="test"):
    folder.jsonl("corpus.jsonl", corpus)
    folder.jsonl("queries.jsonl", queries)
    lines = ["query-id\tcorpus-id\tscore", *("\t".join(map(str, line)) for line in qrels)]
    folder.text(f"qrels/{split}.tsv", "\n".join(lines) + "\n")
    return folder.path


def test_reads_a_beir_folder(folder):
    folder.images("images/a.png")
    corpus = [
        *CORPUS,
        {"_id": 3, "title": "", "text": "", "image": "images/a.png"},
        {"_id": "d4", "title": " ", "text": "x", "metadata": {}},
    ]
    queries = [*QUERIES, {"_id": "unjudged", "text": "?"}, {"_id": "q4", "text": "like this", "image": "images/a.png"}]
    found = read_beir(beir(folder, corpus, queries, [*QRELS, ("q4", "3", 1), ("q1", "d2", -1)]))
    image = folder.path / "images/a.png"
    assert found.name == folder.path.name
    assert found.corpus == {"d1": Item("Dogs bark"), "d2": Item("meow"), "3": Item(image=image), "d4": Item("x")}
    assert found.queries == {"q1": Item("what barks"), "q2": Item("what meows"), "q4": Item("like this", image)}
    assert found.qrels == {"q1": {"d1": 1, "d2": 0}, "q2": {"d2": 2}, "q4": {"3": 1}}
    assert found.failures == ()


@pytest.mark.parametrize("name", ["corpus", "queries"])
def test_a_duplicate_id_names_both_lines(folder, name):
    rows = {"corpus": CORPUS, "queries": QUERIES}[name]
    beir(folder, **{name: [*rows, rows[0]]})
    with pytest.raises(DataError, match=f"{name}.jsonl line 3: repeats the id '.1' of {name}.jsonl line 1"):
        read_beir(folder.path)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (("q1", "d9", 1), "test.tsv line 4: the id 'd9' is not in corpus.jsonl"),
        (("q9", "d1", 1), "test.tsv line 4: the id 'q9' is not in queries.jsonl"),
        (("q1", "d1"), "test.tsv line 4: 2 field"),
        (("q1", "d2", "high"), "test.tsv line 4: the score 'high' is not a whole number"),
        (("q1", "d1", 2), "test.tsv line 4: judges 'q1' and 'd1' again with another score"),
    ],
)
def test_a_broken_judgement_names_its_line(folder, line, complaint):
    with pytest.raises(DataError, match=complaint):
        read_beir(beir(folder, qrels=[*QRELS, line]))


def test_qrels_without_the_header_or_the_split(folder):
    beir(folder, split="dev")
    with pytest.raises(DataError, match=r"test.tsv does not exist; choose a split that the folder has: dev"):
        read_beir(folder.path)
    folder.text("qrels/test.tsv", "q1\td1\t1\nq2\td2\t1\n")
    assert read_beir(folder.path).qrels == {"q1": {"d1": 1}, "q2": {"d2": 1}}
    folder.text("qrels/test.tsv", "a\tb\nq2\td2\n")
    with pytest.raises(DataError, match=r"begins with 'a b'; a line must be query-id corpus-id score"):
        read_beir(folder.path)
    assert len(read_beir(folder.path, split="dev").queries) == 2


def test_missing_files(folder):
    beir(folder)
    (folder.path / "corpus.jsonl").unlink()
    with pytest.raises(DataError, match=r"corpus.jsonl does not exist"):
        read_beir(folder.path)
    with pytest.raises(DataError, match="does not exist"):
        read_beir(folder.path / "no")


def test_items_that_cannot_be_used_become_failures(folder):
    corpus = [*CORPUS, {"_id": "d3", "image": "no.png"}, {"_id": "d4", "text": ""}, {"text": "no id"}, "{broken"]
    queries = [*QUERIES, {"_id": "q3", "text": " "}]
    found = read_beir(beir(folder, corpus, queries, [*QRELS, ("q1", "d3", 1), ("q3", "d1", 1)]))
    assert [failure.item for failure in found.failures] == [
        *(f"corpus.jsonl line {n}" for n in (3, 4, 5, 6)),
        "queries.jsonl line 3",
    ]
    expected = ["'d3': .*no.png does not exist", "'d4': the text is empty", "'_id' is missing", "not valid JSON", "'q3': "]
    for failure, reason in zip(found.failures, expected, strict=True):
        assert re.search(reason, failure.reason)
    assert set(found.corpus) == {"d1", "d2"}
    assert found.qrels == {"q1": {"d1": 1, "d3": 1}, "q2": {"d2": 2}}, "what cannot be found counts as missed"


def test_a_set_without_judged_queries_is_refused(folder):
    with pytest.raises(DataError, match="judges none of the usable queries"):
        read_beir(beir(folder, queries=[{"_id": "q1", "text": ""}, QUERIES[1]], qrels=[("q1", "d1", 1)]))


def test_queries_may_have_a_category_and_exclusions(folder):
    corpus = [*CORPUS, {"_id": "failed", "text": ""}]
    queries = [
        {**QUERIES[0], "category": "sounds", "excluded": ["d2", "failed", "d2"]},
        {**QUERIES[1], "category": 7, "excluded": []},
        {"_id": "q3", "text": "?", "category": "", "excluded": None},
        {"_id": "unjudged", "text": "?", "category": "sounds", "excluded": ["d1"]},
        {"_id": "broken", "text": "", "category": "sounds", "excluded": ["d1"]},
    ]
    found = read_beir(beir(folder, corpus, queries, [*QRELS, ("q3", "d1", 1), ("broken", "d1", 1)]))
    assert set(found.queries) == {"q1", "q2", "q3"}
    assert found.categories == {"q1": "sounds", "q2": "7"}
    assert found.excluded == {"q1": {"d2", "failed"}}


def test_exclusions_may_be_called_masked_as_before(folder):
    queries = [{**QUERIES[0], "masked": ["d2"]}, {**QUERIES[1], "excluded": ["d1"], "masked": ["d2"]}]
    assert read_beir(beir(folder, queries=queries)).excluded == {"q1": {"d2"}, QUERIES[1]["_id"]: {"d1"}}


def test_the_corpus_has_no_categories_and_exclusions(folder):
    corpus = [{**CORPUS[0], "_id": "q1", "category": "dogs", "excluded": ["d2"]}, CORPUS[1]]
    found = read_beir(beir(folder, corpus, qrels=[("q1", "d2", 1)]), exclude_self="no")
    assert (found.categories, found.excluded) == ({}, {})


def test_exclusions_may_be_whole_numbers_as_ids_may(folder):
    found = read_beir(beir(folder, corpus=[*CORPUS, {"_id": 9, "text": "nine"}], queries=[{**QUERIES[0], "excluded": [9]}, QUERIES[1]]))
    assert found.excluded == {"q1": {"9"}}


@pytest.mark.parametrize("category", [["a"], {"a": 1}, True])
def test_a_category_that_is_no_name_is_refused(folder, category):
    with pytest.raises(DataError, match=r"queries\.jsonl line 1: 'category' must be a name"):
        read_beir(beir(folder, queries=[{**QUERIES[0], "category": category}, QUERIES[1]]))


@pytest.mark.parametrize(
    ("excluded", "complaint"),
    [
        ("d1", "queries.jsonl line 3: 'excluded' must be a list of corpus ids, not 'd1'"),
        ({"d1": 1}, "queries.jsonl line 3: 'excluded' must be a list of corpus ids, not {'d1': 1}"),
        (0, "queries.jsonl line 3: 'excluded' must be a list of corpus ids, not 0"),
        (["d1", None], "queries.jsonl line 3: 'excluded' must be a list of corpus ids, not ['d1', None]"),
        (["d1", "d9"], "queries.jsonl: query 'q3' excludes 'd9', which is not in corpus.jsonl"),
        (["q1"], "queries.jsonl: query 'q3' excludes 'q1', which is not in corpus.jsonl"),
    ],
)
def test_a_wrong_exclusion_is_named(folder, excluded, complaint):
    queries = [*QUERIES, {"_id": "q3", "text": "?", "excluded": excluded}]
    with pytest.raises(DataError, match=re.escape(complaint)):
        read_beir(beir(folder, queries=queries, qrels=[*QRELS, ("q3", "d1", 1)]))


def caption_set(folder):
    folder.images("a.png", "sub/b.png", "c.png")
    rows = [("a.png", ["a dog", "an animal"]), ("sub/b.png", ["an animal"]), ("c.png", ["a cup"]), ("no.png", ["lost"])]
    return read_pairs(folder.jsonl("captions.jsonl", [{"image": image, "captions": captions} for image, captions in rows]))


def test_text_to_image_shares_the_images_of_equal_captions(folder):
    pairs = caption_set(folder)
    found = from_pairs(pairs, "text_to_image")
    assert {key: item.text for key, item in found.queries.items()} == {
        "a.png#0": "a dog",
        "a.png#1": "an animal",
        "sub/b.png#0": "an animal",
        "c.png#0": "a cup",
    }
    assert found.corpus == {name: Item(image=folder.path / name) for name in ("a.png", "sub/b.png", "c.png")}
    both = {"a.png": 1, "sub/b.png": 1}
    assert found.qrels == {"a.png#0": {"a.png": 1}, "a.png#1": both, "sub/b.png#0": both, "c.png#0": {"c.png": 1}}
    assert found.failures == pairs.failures
    assert len(found.failures) == 1


def test_image_to_text_shares_equal_captions(folder):
    found = from_pairs(caption_set(folder), "image_to_text")
    assert found.qrels == {
        "a.png": {"a.png#0": 1, "a.png#1": 1, "sub/b.png#0": 1},
        "sub/b.png": {"a.png#1": 1, "sub/b.png#0": 1},
        "c.png": {"c.png#0": 1},
    }
    assert set(found.queries) == set(found.qrels)
    assert len(found.corpus) == 4


def test_from_pairs_takes_images_elsewhere_and_text_files_beside_images(folder, folder_at):
    outside = folder_at("outside")
    outside.images("x.png")
    inside = folder_at("inside")
    path = inside.jsonl("a.jsonl", [{"image": str(outside.path / "x.png"), "text": "x"}])
    assert list(from_pairs(read_pairs(path, allow_outside=True), "image_to_text").queries) == [(outside.path / "x.png").as_posix()]
    outside.text("x.txt", "one\ntwo")
    found = from_pairs(read_pairs(outside.path), "text_to_image")
    assert (found.name, list(found.queries)) == ("outside", ["x.png#0", "x.png#1"])


def test_from_pairs_refuses_other_pairs_and_directions(folder):
    pairs = caption_set(folder)
    with pytest.raises(InputError, match="'image_to_image' is unknown"):
        from_pairs(pairs, "image_to_image")
    texts = replace(pairs, pairs=(Pair(Item("q"), (Item("p"),), source="a.jsonl line 1"),))
    with pytest.raises(DataError, match=r"a.jsonl line 1: not an image with captions"):
        from_pairs(texts, "text_to_image")


@pytest.mark.parametrize("direction", ["text_to_image", "image_to_text"])
def test_beir_round_trip(folder, direction):
    written = replace(from_pairs(caption_set(folder), direction), failures=())
    write_beir(folder.path, written, "dev")
    assert read_beir(folder.path, "dev") == replace(written, name=folder.path.name)


def test_round_trip_of_categories_and_exclusions(folder):
    written = replace(
        from_pairs(caption_set(folder), "text_to_image"),
        failures=(),
        categories={"a.png#0": "dogs", "c.png#0": "日本"},
        excluded={"a.png#0": frozenset({"c.png", "sub/b.png"}), "a.png#1": frozenset({"a.png"})},
    )
    assert set(written.clusters.values()) == set(written.corpus) and written.clusters["a.png#1"] == "a.png"
    write_beir(folder.path, written)
    assert read_beir(folder.path) == replace(written, name=folder.path.name)
    rows = [json.loads(line) for line in (folder.path / "queries.jsonl").read_text(encoding="utf-8").splitlines()]
    extra = [{name: row[name] for name in ("category", "excluded") if name in row} for row in rows]
    assert extra == [{"category": "dogs", "excluded": ["c.png", "sub/b.png"]}, {"excluded": ["a.png"]}, {}, {"category": "日本"}]


def test_written_images_are_found_from_another_folder(folder, folder_at):
    written = from_pairs(caption_set(folder), "text_to_image")
    elsewhere = folder_at("elsewhere").path / "new"
    write_beir(elsewhere, written)
    assert '"image": "../../sub/b.png"' in (elsewhere / "corpus.jsonl").read_text()
    found = read_beir(elsewhere, allow_outside=True)
    assert {key: item.content_hash for key, item in found.corpus.items()} == {
        key: item.content_hash for key, item in written.corpus.items()
    }
    assert (found.queries, found.qrels) == (written.queries, written.qrels)


def test_round_trip_of_odd_ids_and_texts(folder):
    items = {'id with "quotes"': Item("line\nbreak, 日本 🍎"), "#hash\ttab": Item("b")}
    odd = RetrievalSet("odd", items, items, {key: {other: 1 for other in items} for key in items}, ())
    write_beir(folder.path / "odd", odd)
    assert read_beir(folder.path / "odd") == odd


def test_write_beir_refuses_what_it_cannot_write(folder):
    pairs = from_pairs(caption_set(folder), "text_to_image")
    opened = replace(pairs, corpus={**pairs.corpus, "c.png": Item(image=Image.new("RGB", (1, 1)))})
    with pytest.raises(InputError, match=r"'c.png' is an open image"):
        write_beir(folder.path / "new", opened)
    with pytest.raises(InputError, match=r"query 'a.png#0' name an item that the set lacks"):
        write_beir(folder.path / "new", replace(pairs, corpus={}))
    with pytest.raises(OutputError, match="Cannot write"):
        write_beir(folder.path / "captions.jsonl" / "new", pairs)
    assert not (folder.path / "new").exists()
    write_beir(folder.path / "new", pairs)
    with pytest.raises(OutputExistsError, match=r"corpus.jsonl exists already"):
        write_beir(folder.path / "new", pairs)
