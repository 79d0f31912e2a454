"""A collection encoded again by another model beside what is there: readers keep the old rows until all of the new ones are there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from stand_in_encoder import Indexed, StandInEncoder, counted, vector_of

import slq.index.indexing
from slq.errors import ConfigError, DataError, FingerprintMismatchError, StoreError
from slq.index.collection import Collection
from slq.index.head import Layout, read_head


@pytest.fixture
def c(memory_path: Path) -> Indexed:
    c = Indexed(memory_path)
    for name, content in {"a": "a", "b": "b", "c": "a", "d": "bad"}.items():
        c.photos.write(f"{name}.jpg", content)
    c.index(c.photos.path, c.photos.write("../shop.csv", "id,text\n1,x\n"))
    return c


@pytest.fixture
def other() -> StandInEncoder:
    return StandInEncoder("other")


def files(c: Indexed) -> list[str]:
    """What is in the folder, but for the log that a reader of the journal leaves."""
    return sorted(path.name for path in (c.path / "c").iterdir() if not path.name.endswith(("-wal", "-shm")))


def is_of(c: Indexed, fingerprint: str) -> bool:
    rows = c.rows()
    assert sorted(rows) == ["photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "shop.csv/1"]
    assert read_head(Layout(c.path / "c").head_file).fingerprint == fingerprint
    contents = {"photos/a.jpg": b"a", "photos/b.jpg": b"b", "photos/c.jpg": b"a", "shop.csv/1": b"x"}
    return all((rows[id_].vector == vector_of(content, fingerprint)).all() for id_, content in contents.items())


def test_another_model_encodes_everything_again(c, other):
    reader = Collection(c.path / "c", c.encoder)
    assert reader.search("a").hits[0].id == "photos/a.jpg"
    report = c.index(by=other, rebuild=True)
    assert counted(report) == {"new": 3, "duplicates": 1, "failed": 1, "encoded": 3} and is_of(c, "other")
    assert files(c) == ["collection.json", "journal-1.sqlite", "lock", "rows-1"]
    with pytest.raises(FingerprintMismatchError, match="was encoded by stand-in \\(other\\)"):
        reader.search("a")
    assert counted(c.index(by=other)) == {"unchanged": 4, "failed": 1}
    assert Collection(c.path / "c", other).search("a").hits[0].id == "photos/a.jpg"


def test_a_new_path_and_what_has_changed_meanwhile_come_in(c, other):
    c.photos.write("a.jpg", "changed")
    extra = c.photos.write("../more/e.jpg", "e")
    assert counted(c.index(extra.parent, by=other, rebuild=True))["encoded"] == 5
    assert sorted(c.rows()) == ["more/e.jpg", "photos/a.jpg", "photos/b.jpg", "photos/c.jpg", "shop.csv/1"]
    assert [source["label"] for source in Collection(c.path / "c").info()["sources"]] == ["photos", "shop.csv", "more"]


def test_the_same_model_takes_the_vectors_that_are_there(c):
    c.encoder.encoded.clear()
    report = c.index(rebuild=True)
    assert counted(report) == {"new": 3, "duplicates": 1, "failed": 1} and is_of(c, "stand-in")
    assert len(c.encoder.encoded) == 1, "the one that cannot be encoded is tried again"


def test_damaged_vectors_are_not_taken(c):
    vectors = c.path / "c" / "rows-0" / "vectors-0.f32"
    vectors.write_bytes(b"\xff" + vectors.read_bytes()[1:])
    assert counted(c.index(rebuild=True))["encoded"] == 3 and is_of(c, "stand-in")


def test_rows_that_are_lost_are_encoded_again(c):
    shutil.rmtree(c.path / "c" / "rows-0")
    for use in (c.index, Collection(c.path / "c", c.encoder).verify):
        with pytest.raises(StoreError, match="There is no store in"):
            use()
    assert counted(c.index(rebuild=True))["encoded"] == 3 and is_of(c, "stand-in")
    for file in (c.path / "c").glob("journal-1.sqlite*"):
        file.write_bytes(b"damaged" * 1000)
    with pytest.raises(ConfigError, match="has no sources"):
        c.index(rebuild=True)
    assert counted(c.index(c.photos.path, c.path / "shop.csv", rebuild=True))["encoded"] == 3 and is_of(c, "stand-in")


class _Killed(BaseException):
    pass


def stopped(c: Indexed, by: StandInEncoder, at: str, monkeypatch, time: int = 1) -> None:
    """A rebuild that ends at a crash point."""
    passed = [time]

    def crash(name: str) -> None:
        passed[0] -= name == at
        if not passed[0]:
            raise _Killed

    with monkeypatch.context() as patch, pytest.raises(_Killed):
        for module in (slq.index.indexing, slq.index.updating):
            patch.setattr(module, "crash_point", crash)
        patch.setattr(slq.index.updating, "MOST_INPUTS", 1)
        c.index(by=by, rebuild=True)


@pytest.mark.parametrize(
    ("at", "time", "is_switched", "more"), [("index.stored", 3, False, 2), ("index.built", 1, False, 0), ("index.switched", 1, True, 1)]
)
def test_a_rebuild_that_was_stopped_goes_on(at, time, is_switched, more, c, other, monkeypatch):
    stopped(c, other, at, monkeypatch, time)
    assert is_of(c, "other" if is_switched else "stand-in"), "readers see the one or the other"
    assert Collection(c.path / "c").info()["rebuilding_with"] == (None if is_switched else "stand-in")
    c.photos.write("e.jpg", "e")
    c.index(by=other if is_switched else c.encoder)
    c.photos.file("e.jpg").unlink()
    before = len(other.encoded)
    c.index(by=other, rebuild=True)
    assert is_of(c, "other") and len(files(c)) == 4
    assert len(other.encoded) == before + more, "what is left is encoded; the last time what cannot be is tried again"


def test_a_rebuild_by_a_third_model_begins_anew(c, other, monkeypatch):
    stopped(c, other, "index.stored", monkeypatch)
    third = StandInEncoder("third")
    c.index(by=third, rebuild=True)
    assert is_of(c, "third") and files(c) == ["collection.json", "journal-1.sqlite", "lock", "rows-1"]


def test_nothing_is_lost_in_a_rebuild_of_what_is_not_there(c, other):
    c.photos.path.rename(c.path / "away")
    with pytest.raises(DataError, match="photos cannot be read"):
        c.index(by=other, rebuild=True)
    (c.path / "away").rename(c.photos.path)
    assert is_of(c, "stand-in")
    c.index(by=other, rebuild=True)
    assert is_of(c, "other")


def test_a_collection_can_be_deleted_in_the_middle(c, other, monkeypatch):
    stopped(c, other, "index.stored", monkeypatch)
    assert Collection(c.path / "c").delete() == [] and not (c.path / "c").exists()
