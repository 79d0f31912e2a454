"""`slq collection info | verify | optimize | report | export | delete`, most of them on a collection of a stand-in for a model."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from command_line import content, invoke, refused, run
from stand_in_encoder import Indexed

from slq.index.journal import Journal


@pytest.fixture
def c(memory_path: Path) -> Indexed:
    c = Indexed(memory_path)
    for name, text in {"a": "a", "b": "b", "c": "bad"}.items():
        c.photos.write(f"{name}.jpg", text)
    c.index(c.photos.path, c.photos.write("../shop.csv", "id,text,price\n1,x,10\n"))
    return c


def test_info(c):
    told = json.loads(invoke("collection", "info", c.path / "c", "--json").stdout)
    assert (told["rows"], told["failed"], told["dim"], told["store"], told["fingerprint"]) == (3, 1, 8, "exact", "stand-in")
    assert [(each["label"], each["kind"], each["rows"], each["failed"], each["is_there"]) for each in told["sources"]] == [
        ("photos", "folder", 2, 1, True),
        ("shop.csv", "table", 1, 0, True),
    ]
    assert told["last_run"]["new"] == 3 and told["bytes"] > 1000 and told["rebuilding_with"] is None
    c.photos.path.rename(c.path / "away")
    shown = invoke("collection", "info", c.path / "c").stdout
    assert "stand-in (stand-in, 8 values)" in shown and f"{c.photos.path} (missing)" in shown
    assert "is no collection: it has no collection.json" in refused("collection", "info", c.path)


def test_verify_finds_what_is_wrong(c):
    assert invoke("collection", "verify", c.path / "c").stdout == "3 rows, nothing wrong.\n"
    vectors = c.path / "c" / "rows-0" / "vectors-0.f32"
    vectors.write_bytes(b"\xff" + vectors.read_bytes()[1:])
    told = json.loads(invoke("collection", "verify", c.path / "c", "--json", code=1).stdout)
    assert told["rows"] == 3 and [(each["item"], each["reason"]) for each in told["failures"]] == [
        ("photos/a.jpg", "its vector is damaged; store the item again")
    ]
    assert c.counted(repair=True) == {"new": 1, "unchanged": 2, "failed": 1, "encoded": 1}
    assert invoke("collection", "verify", c.path / "c").stdout == "3 rows, nothing wrong.\n"
    journal = Journal(c.path / "c" / "journal-0.sqlite", writes=True)
    with journal.transaction() as db:
        db.execute("DELETE FROM inputs WHERE name = ?", (b"a.jpg",))
        db.execute("UPDATE inputs SET content_hash = 'x' WHERE name = ?", (b"b.jpg",))
        db.execute("INSERT INTO inputs (source, name, content_hash, row) VALUES (1, ?, 'y', 'photos/none.jpg')", (b"none.jpg",))
    journal.close()
    shown = invoke("collection", "verify", c.path / "c", code=1).stdout
    assert "photos/a.jpg: the store has it, and the journal does not know it" in shown
    assert "photos/b.jpg: its row is of another content" in shown and "photos/none.jpg: the journal has it" in shown
    assert shown.endswith(f"3 problem(s): slq index -c {c.path / 'c'} --repair encodes again what is damaged.\n")
    c.index(repair=True)
    assert sorted(c.rows()) == ["photos/a.jpg", "photos/b.jpg", "shop.csv/1"]


def test_a_damaged_journal_or_head_is_told(c):
    journal, head = c.path / "c" / "journal-0.sqlite", c.path / "c" / "collection.json"
    whole = journal.read_bytes()
    journal.write_bytes(b"nothing" * 1000)
    told = refused("collection", "verify", c.path / "c")
    assert "journal-0.sqlite is damaged (file is not a database): move it away and index the same" in told
    journal.write_bytes(whole)
    head.write_text(head.read_text().replace('"dim": 8', '"dim": 9'))
    for command in ("info", "verify", "optimize"):
        assert "collection.json is damaged (its checksum is wrong)" in refused("collection", command, c.path / "c")
    assert "is damaged" in refused("collection", "delete", c.path / "c", "--yes") and journal.exists(), "it is not known to be one"


def test_optimize(c):
    for number in range(20):
        c.photos.write("a.jpg", f"content {number}" * 20)
        c.index()
    told = json.loads(invoke("collection", "optimize", c.path / "c", "--json").stdout)
    assert told["bytes"] < told["bytes_before"] and sorted(c.rows()) == ["photos/a.jpg", "photos/b.jpg", "shop.csv/1"]


@pytest.mark.parametrize("ending", ["npz", "parquet", "jsonl"])
def test_export(ending, c):
    file = c.path / f"vectors.{ending}"
    assert invoke("collection", "export", c.path / "c", "-o", file).stdout == f"3 rows in {file}.\n"
    assert "exists already" in refused("collection", "export", c.path / "c", "-o", file)
    rows = c.rows()
    if ending == "npz":
        with np.load(file) as arrays:
            found = dict(zip(arrays["ids"].tolist(), arrays["vectors"], strict=True))
    elif ending == "parquet":
        import pyarrow.parquet

        found = {row["id"]: row["vector"] for row in pyarrow.parquet.read_table(file).to_pylist()}
    else:
        read = [json.loads(line) for line in file.read_text().splitlines()]
        found = {row["id"]: row["vector"] for row in read}
        assert (read[0]["image"], read[2]["text"], read[2]["metadata"]) == ("photos/a.jpg", "x", {"price": 10})
    assert list(found) == sorted(rows) and all(np.allclose(found[id_], row.vector) for id_, row in rows.items())
    assert "must end in .npz, .parquet, .jsonl" in refused("collection", "export", c.path / "c", "-o", c.path / "vectors.txt")


def test_delete_takes_the_collection_alone(c):
    folder = c.path / "c"
    said = run("collection", "delete", folder)
    assert said.code == 2 and "answer `y`, or pass --yes" in said.stderr and len(c.rows()) == 3
    (folder / "thesis.txt").write_text("years of work")
    (folder / "rows-7").symlink_to(c.photos.path)
    before = content(c.photos.path)
    told = json.loads(invoke("collection", "delete", folder, "--yes", "--json").stdout)
    assert told["stays"] == [str(folder / "rows-7"), str(folder / "thesis.txt")]
    assert sorted(path.name for path in folder.iterdir()) == ["rows-7", "thesis.txt"] and content(c.photos.path) == before
    assert "is no collection" in refused("collection", "delete", folder, "--yes")


def test_nothing_is_left_of_a_deleted_collection(c):
    assert "c is deleted" in invoke("collection", "delete", c.path / "c", "-y").stdout
    assert sorted(path.name for path in c.path.iterdir()) == ["photos", "shop.csv"]


@pytest.mark.slow
def test_report_is_a_page_that_needs_nothing_else(images, adapter, tmp_path):
    collection = tmp_path / "collection"
    invoke("index", images, "-m", adapter, "-c", collection, "--device", "cpu")
    page = tmp_path / "report.html"
    told = json.loads(invoke("collection", "report", collection, "-o", page, "--near", 0.5, "--json").stdout)
    written = page.read_text(encoding="utf-8")
    assert told["rows"] == told["looked_at"] and told["near_duplicates"] and sum(one["rows"] for one in told["clusters"]) == told["rows"]
    assert "http" not in re.sub(r"https?://www\.w3\.org\S*", "", written) and "<script" not in written
    assert all(f'"id">{id_}<' in written for id_ in told["outliers"]) and written.count("data:image/jpeg;base64,") > 10
    assert "--overwrite" in refused("collection", "report", collection, "-o", page)
    fewer = json.loads(invoke("collection", "report", collection, "-o", page, "--overwrite", "--sample", 5, "--json").stdout)
    assert fewer["looked_at"] == 5 and "5 were looked at" in page.read_text(encoding="utf-8")
    named = invoke("collection", "report", collection, "-o", page, "--overwrite", "--name-clusters", "--json", "--device", "cpu")
    assert any("name" in one for one in json.loads(named.stdout)["clusters"]) and "what the model says" in page.read_text(encoding="utf-8")
    assert "must end in .html" in refused("collection", "report", collection, "-o", tmp_path / "report.pdf")
