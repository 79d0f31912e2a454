"""Words of captions and columns: kept in step with the rows, found by BM25, and merged with the similarity."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from stand_in_encoder import Indexed

from slq.errors import InputError, StoreError
from slq.index.collection import Collection
from slq.index.head import Layout, open_rows, read_head
from slq.index.journal import Journal
from slq.index.recovery import differences
from slq.index.words import words_of
from slq.types import Item

ROWS = (
    {"id": "a", "text": "a red cat on grass", "place": "Oslo", "price": 3},
    {"id": "b", "text": "two dogs", "place": "Café Noir", "price": 9},
    {"id": "c", "text": "a dog and a cat, and a cat", "place": "Rome", "price": 20},
    {"id": "d", "text": "SKU-4711 in a box", "place": "Oslo", "price": 30},
    *({"id": f"e{number}", "text": f"thing {number}", "place": "Bergen", "price": number} for number in range(30)),
)


@pytest.fixture
def c(memory_path: Path) -> Indexed:
    indexed = Indexed(memory_path)
    write(indexed, ROWS)
    indexed.index(indexed.path / "table.jsonl")
    return indexed


def write(c: Indexed, rows) -> None:
    (c.path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def opened(c: Indexed) -> Collection:
    return Collection(c.path / "c", c.encoder)


def by_words(c: Indexed, text: str, count: int = 10) -> list[str]:
    return [id_.rsplit("/", 1)[-1] for id_ in opened(c).rows.by_words(text, count)]


def unlike(c: Indexed) -> list:
    layout = Layout(c.path / "c")
    head = read_head(layout.head_file)
    with closing(open_rows(layout, head)) as store, closing(Journal(layout.journal(head.generation))) as journal:
        return differences(journal, store)


def test_words_of_texts_and_columns_are_found(c):
    assert by_words(c, "cat") == ["c", "a"], "twice in few words before once"
    assert by_words(c, "OSLO") == ["a", "d"] and by_words(c, "cafe") == ["b"] and by_words(c, "sku-4711") == ["d"]
    assert by_words(c, "thing", count=4) == ["e0", "e1", "e10", "e11"], "equal ones by id"
    assert by_words(c, "whale") == by_words(c, "! ?") == [] and by_words(c, 'cat" OR "dog') == by_words(c, "cat or dog")


def test_words_follow_the_rows(c):
    write(c, [{**ROWS[0], "text": "a blue horse"}, *ROWS[2:]])
    c.index()
    assert by_words(c, "cat") == ["c"] and by_words(c, "horse") == ["a"] and by_words(c, "dogs") == [] and unlike(c) == []
    c.index(rebuild=True)
    assert by_words(c, "horse") == ["a"] and unlike(c) == []


def test_both_rankings_count(c):
    collection = opened(c)
    rows = {row.id: row for row in collection.rows.get([row for row in collection.rows.by_words("thing cat", 100)])}
    vector = c.encoder.encode([Item("thing cat")]).vectors[0]
    near = [hit.id for hit in collection.search("thing cat", top_k=100).hits]
    worded = collection.rows.by_words("thing cat", 100)
    score = {id_: sum(1 / (61 + ranking.index(id_)) for ranking in (near, worded) if id_ in ranking) for id_ in near}
    expected = sorted(near, key=lambda id_: (-score[id_], -float(rows[id_].vector @ vector) if id_ in rows else 0, id_))
    found = collection.search("thing cat", hybrid=True, top_k=100).hits
    assert [hit.id for hit in found] == expected != near
    assert all(
        np.isclose(hit.score, dict((each.id, each.score) for each in collection.search("thing cat", top_k=100).hits)[hit.id])
        for hit in found
    )


def test_what_is_found_by_words_alone_passes_the_filter(c):
    found = opened(c).search("oslo sku", hybrid=True, top_k=3, filter=("price>10",)).hits
    assert found[0].id.endswith("/d") and all(hit.metadata["price"] > 10 for hit in found)


def test_a_query_without_words_of_the_collection_says_so(c):
    result = opened(c).search("whale", hybrid=True)
    assert [hit.id for hit in result.hits] == [hit.id for hit in opened(c).search("whale").hits]
    assert result.notes == ("No caption and no column has a word of the query, so results are by similarity alone.",)
    with pytest.raises(InputError, match="hybrid looks for the words of a TEXT"):
        opened(c).search(like=result.hits[0].id, hybrid=True)


def test_a_journal_of_before_gets_its_words_by_the_next_run(c):
    journal = Layout(c.path / "c").journal(0)
    with closing(sqlite3.connect(journal)) as db:
        db.executescript("DROP TABLE words; DROP TABLE texts; PRAGMA user_version = 1;")
    assert len(opened(c).search("cat").hits) == 10 and unlike(c) == []
    with pytest.raises(StoreError, match=r"knows no words yet: run slq index -c .* once"):
        opened(c).search("cat", hybrid=True)
    assert c.counted() == {"unchanged": len(ROWS)} and by_words(c, "cat") == ["c", "a"] and unlike(c) == []


def test_other_words_than_the_rows_are_found_and_repaired(c):
    with closing(sqlite3.connect(Layout(c.path / "c").journal(0))) as db:
        db.execute("UPDATE texts SET text = 'a whale' WHERE row LIKE '%/a'")
        db.commit()
    assert [str(each) for each in unlike(c)] == ["table.jsonl/a: its words in the journal are not those of the row"]
    c.index(repair=True)
    assert unlike(c) == [] and by_words(c, "whale") == []


def test_words_are_texts_and_columns_that_are_no_numbers(c):
    said = {row.id.rsplit("/", 1)[-1]: words_of(row) for row in opened(c).rows.get(["table.jsonl/a"])}
    assert said == {"a": "a red cat on grass\nOslo"}
