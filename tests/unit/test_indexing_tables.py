"""Tables and single images as sources: rows by their ids, columns as metadata, images followed, and broken rows told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from stand_in_encoder import Indexed, counted, vector_of

import slq.index.sources
from slq.errors import DataError


@pytest.fixture
def c(memory_path: Path) -> Indexed:
    return Indexed(memory_path)


def write_table(c: Indexed, *rows: dict | str, name: str = "shop.jsonl") -> Path:
    return c.photos.write(f"../{name}", "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))


def test_rows_of_a_table(c):
    c.photos.write("a.jpg", "a")
    both = {"text": "b", "image": "photos/a.jpg"}
    table = write_table(c, {"id": "x", "image": "photos/a.jpg", "price": 3}, {"_id": 7, "text": "a cat", "colour": "red"}, both)
    assert c.counted(table) == {"new": 3, "encoded": 3}
    found = c.rows()
    assert sorted(found) == ["shop.jsonl/7", "shop.jsonl/line 3", "shop.jsonl/x"]
    x, seven = found["shop.jsonl/x"], found["shop.jsonl/7"]
    assert (x.image, x.text, x.metadata) == ("../photos/a.jpg", None, {"price": 3})
    assert (seven.image, seven.text, seven.metadata) == (None, "a cat", {"colour": "red"})
    assert np.array_equal(found["shop.jsonl/line 3"].vector, vector_of(b"ab"))
    assert c.counted() == {"unchanged": 3}


def test_a_table_that_has_not_changed_is_not_read(c, monkeypatch):
    c.photos.write("a.jpg", "a")
    table = write_table(c, {"id": "x", "image": "photos/a.jpg"}, {"id": "y", "text": "b"})
    c.index(table)
    each_row = slq.index.sources.each_row

    def refuse(*how, **more):
        raise AssertionError("it is read")

    monkeypatch.setattr(slq.index.sources, "each_row", refuse)
    assert c.counted() == {"unchanged": 2}
    c.photos.write("a.jpg", "other")
    monkeypatch.setattr(slq.index.sources, "each_row", each_row)
    assert c.counted() == {"unchanged": 1, "changed": 1, "encoded": 1}


def test_columns_that_change_are_stored_and_nothing_is_encoded(c):
    table = write_table(c, {"id": "x", "text": "a", "price": 3}, {"id": "y", "text": "b"})
    c.index(table)
    write_table(c, {"id": "x", "text": "a", "price": 4}, {"id": "y", "text": "b"})
    assert c.counted() == {"changed": 1, "unchanged": 1} and c.rows()["shop.jsonl/x"].metadata == {"price": 4}
    write_table(c, {"id": "y", "text": "b"}, {"id": "z", "text": "a", "price": 4})
    assert c.counted() == {"moved": 1, "unchanged": 1} and sorted(c.rows()) == ["shop.jsonl/y", "shop.jsonl/z"]


def test_values_of_a_csv_file_are_what_they_write(c):
    table = c.photos.write("../shop.csv", "id,text,price,code\n1,a cat,20.5,007\n")
    c.index(table)
    assert c.rows()["shop.csv/1"].metadata == {"price": 20.5, "code": "007"}


def test_broken_rows_are_told_and_mended_ones_come_in(c):
    table = write_table(
        c,
        *({"id": "x", "text": "a"}, {"id": "x", "text": "b"}, "{no json", {"id": "y", "image": "photos/a.jpg"}, {"price": 3}),
        *({"id": "z", "text": "c", "odd": "\ud800"}, {"id": "v", "text": "d"}, {"id": "w", "text": "e"}, {"id": "q", "text": "f"}),
    )
    report = c.index(table, max_skipped=0.6)
    assert counted(report) == {"new": 4, "failed": 5, "encoded": 4}
    told = {failure.item: failure.reason for failure in report.counts.failures}
    assert sorted(told) == [f"shop.jsonl/{name}" for name in ("line 2", "line 3", "line 5", "y", "z")]
    assert told["shop.jsonl/line 2"] == "repeats the id 'x' of a row before it; give each row its own id"
    assert "does not exist" in told["shop.jsonl/y"] and "half of a surrogate pair" in told["shop.jsonl/z"]
    c.photos.write("a.jpg", "a")
    assert c.counted(max_skipped=0.6) == {"new": 1, "unchanged": 4, "failed": 4, "encoded": 1}, "the table itself has not changed"


def test_an_image_that_cannot_be_found_keeps_the_row(c):
    c.photos.write("a.jpg", "a")
    table = write_table(c, {"id": "x", "image": "photos/a.jpg"}, {"id": "y", "text": "b"})
    c.index(table)
    c.photos.file("a.jpg").rename(c.path / "away.jpg")
    assert c.counted() == {"failed": 1, "unchanged": 1} and sorted(c.rows()) == ["shop.jsonl/x", "shop.jsonl/y"]
    (c.path / "away.jpg").rename(c.photos.file("a.jpg"))
    assert c.counted() == {"unchanged": 2}


def test_a_table_that_cannot_be_read_deletes_nothing(c):
    table = write_table(c, {"id": "x", "text": "a"}, {"id": "y", "text": "b"})
    c.index(table)
    table.write_text("")
    with pytest.raises(DataError, match="is empty"):
        c.index()
    table.unlink()
    with pytest.raises(DataError, match=r"shop\.jsonl\S* does not exist"):
        c.index()
    assert len(c.rows()) == 2
    write_table(c, {"id": "y", "text": "b"})
    assert c.counted() == {"unchanged": 1, "deleted": 1}


def test_how_a_table_is_read_is_remembered(c):
    Path(c.path / "more").mkdir()
    (c.path / "more" / "a.jpg").write_text("a")
    table = write_table(c, {"id": "x", "picture": "a.jpg", "name": "b"})
    c.index(table, image_column="picture", image_root=c.path / "more")
    assert np.array_equal(c.rows()["shop.jsonl/x"].vector, vector_of(b"a"))
    assert c.counted(table) == {"unchanged": 1}
    assert c.counted(table, text_column="name") == {"changed": 1, "encoded": 1}
    assert np.array_equal(c.rows()["shop.jsonl/x"].vector, vector_of(b"ab"))
    assert c.counted() == {"unchanged": 1}


def test_ids_of_any_characters(c):
    rows = [{"id": id_, "text": f"text {number}"} for number, id_ in enumerate(("a/b", "é\n", "%41", "A", "\ud800"))]
    c.index(write_table(c, *rows))
    assert sorted(c.rows()) == [f"shop.jsonl/{name}" for name in ("%2541", "%ED%A0%80", "A", "a/b", "é%0A")]
    assert c.counted() == {"unchanged": 5}


def test_an_image_on_its_own(c):
    image = c.photos.write("a.jpg", "a")
    assert c.counted(image) == {"new": 1, "encoded": 1}
    assert (c.rows()["a.jpg"].image, sorted(c.rows())) == ("../photos/a.jpg", ["a.jpg"])
    c.photos.write("a.jpg", "b")
    assert c.counted() == {"changed": 1, "encoded": 1}
    os.unlink(image)
    with pytest.raises(DataError, match=r"the image \S*a\.jpg does not exist"):
        c.index()
    c.photos.write("notes.txt", "x")
    with pytest.raises(DataError, match=r"notes\.txt is neither a folder nor an image nor a table"):
        c.index(c.photos.file("notes.txt"))
