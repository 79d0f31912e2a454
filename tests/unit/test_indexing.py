"""A collection follows its sources: what is new, changed, moved, doubled and gone, with nothing encoded twice and nothing lost."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from stand_in_encoder import Indexed, Photos, StandInEncoder, counted, vector_of

import slq.index.updating
from slq.config import IndexConfig
from slq.errors import ConfigError, DataError, FingerprintMismatchError, InputError, OutputError, StoreError, StoreLockedError
from slq.index.exact import ExactStore
from slq.index.head import Layout, read_head, write_head
from slq.index.indexing import update
from slq.index.lock import take_lock


@pytest.fixture
def c(memory_path: Path) -> Indexed:
    return Indexed(memory_path)


@pytest.mark.parametrize("store", ["exact", "lance"])
def test_new_changed_moved_doubled_gone(c, store):
    if store == "lance":
        pytest.importorskip("lancedb", reason='LanceStore needs lancedb: pip install "slq[lance]"')
    for name in "abcde":
        c.photos.write(f"{name}.jpg", name)
    assert c.counted(c.photos.path, store=store) == {"new": 5, "encoded": 5} and c.holds(a="a", b="b", c="c", d="d", e="e")
    assert c.counted() == {"unchanged": 5}
    c.photos.write("b.jpg", "other")
    c.photos.file("c.jpg").rename(c.photos.file("f.jpg"))
    c.photos.write("g.jpg", "a")
    c.photos.file("d.jpg").unlink()
    c.photos.write("h.jpg", "h")
    report = c.index()
    assert counted(report) == {"new": 1, "changed": 1, "moved": 1, "duplicates": 1, "deleted": 1, "unchanged": 2, "encoded": 2}
    assert c.holds(a="a", b="other", e="e", f="c", g="a", h="h") and report.rows == 6
    assert read_head(Layout(c.path / "c").head_file).store == store
    assert c.counted() == {"unchanged": 6} and len(c.encoder.encoded) == len(set(c.encoder.encoded)) == 7


def test_unchanged_files_are_not_read(c, monkeypatch):
    c.photos.write("a.jpg", "a")
    c.photos.write("b.jpg", "b")
    c.index(c.photos.path)
    reads = []
    opened = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *how, **more: reads.append(self.name) or opened(self, *how, **more))
    os.utime(c.photos.file("b.jpg"))
    assert c.counted() == {"unchanged": 2}
    assert [name for name in reads if name.endswith(".jpg")] == ["b.jpg"]


def test_a_file_that_was_just_written_is_read_once_more(c, monkeypatch):
    """Two changes within the steps in which a file system notes times look like one."""
    monkeypatch.setattr(slq.index.updating, "SETTLED_NS", 10**12)
    file = c.photos.write("a.jpg", "aaaa")
    os.utime(file)
    c.index(c.photos.path)
    status = file.stat()
    file.write_text("bbbb")
    os.utime(file, ns=(status.st_mtime_ns, status.st_mtime_ns))
    assert c.counted() == {"changed": 1, "encoded": 1} and c.holds(a="bbbb")


def test_equal_files_are_encoded_once(c):
    for number in range(20):
        c.photos.write(f"{number}.jpg", "same" if number % 2 else "other")
    assert c.counted(c.photos.path, batch_size=3) == {"new": 2, "duplicates": 18, "encoded": 2} and len(c.encoder.encoded) == 2


def test_contents_that_change_places_are_not_encoded_again(c, memory_path):
    """Each batch of one: the row of `a` is replaced before its content turns up as `b`."""
    c.photos.write("a.jpg", "1")
    c.photos.write("b.jpg", "2")
    c.index(c.photos.path)
    c.photos.write("a.jpg", "2")
    c.photos.write("b.jpg", "1")
    assert c.counted(batch_size=1) == {"changed": 2} and c.holds(a="2", b="1")
    c.photos.write("a.jpg", "3")
    c.photos.write("c.jpg", "2")
    assert c.counted(batch_size=1) == {"changed": 1, "moved": 1, "encoded": 1, "unchanged": 1}
    assert c.holds(a="3", b="1", c="2") and len(c.encoder.encoded) == 3


def test_what_cannot_be_encoded_is_told_and_tried_again_when_it_changes(c, memory_path):
    for name, content in {"a": "a", "b": "bad b", "c": "c", "d": "bad d"}.items():
        c.photos.write(f"{name}.jpg", content)
    report = c.index(c.photos.path)
    assert counted(report) == {"new": 2, "failed": 2, "encoded": 2}
    assert [str(failure) for failure in report.counts.failures] == [f"photos/{name}.jpg: it cannot be decoded" for name in "bd"]
    assert c.counted() == {"unchanged": 2, "failed": 2} and len(c.encoder.encoded) == 4
    os.utime(c.photos.file("d.jpg"))
    assert c.counted() == {"unchanged": 2, "failed": 2} and len(c.encoder.encoded) == 4, "only its time has changed"
    c.photos.write("b.jpg", "good")
    assert c.counted() == {"unchanged": 2, "new": 1, "failed": 1, "encoded": 1}
    c.encoder.encoded.clear()
    assert c.counted(retry_failed=True) == {"unchanged": 3, "failed": 1} and len(c.encoder.encoded) == 1
    c.photos.write("a.jpg", "bad a")
    assert c.counted() == {"unchanged": 2, "failed": 2} and c.holds(b="good", c="c"), "its old content is no more"


def test_what_cannot_be_read_keeps_its_row(c, memory_path, monkeypatch):
    c.photos.write("a.jpg", "a")
    c.photos.write("b.jpg", "b")
    c.index(c.photos.path)
    c.photos.write("a.jpg", "new")
    opened = Path.open

    def refuse(self, *how, **more):
        if self.name == "a.jpg":
            raise PermissionError(13, "Permission denied")
        return opened(self, *how, **more)

    monkeypatch.setattr(Path, "open", refuse)
    for _ in range(2):
        assert c.counted() == {"unchanged": 1, "failed": 1} and c.holds(a="a", b="b")
    monkeypatch.undo()
    assert c.counted() == {"unchanged": 1, "changed": 1, "encoded": 1} and c.holds(a="new", b="b")


def test_too_many_failures_stop_the_run(c, memory_path):
    for number in range(4):
        c.photos.write(f"{number}.jpg", f"bad {number}" if number else "good")
    with pytest.raises(DataError, match=r"3 of 4 items cannot be used, more than the fraction 0\.5 of --max-skipped; .* photos/1"):
        c.index(c.photos.path)
    assert c.counted(max_skipped=0.8) == {"unchanged": 1, "failed": 3}, "what was indexed before it stopped is there"
    with pytest.raises(DataError, match="3 of 4 items"):
        c.index()


def test_nothing_is_left_of_a_collection_that_never_came_to_be(c, memory_path):
    c.photos.write("a.jpg", "bad")
    with pytest.raises(DataError, match=r"None of 1 items can be used; the first is photos/a\.jpg: it cannot be decoded"):
        c.index(c.photos.path)
    assert not (memory_path / "c").exists()
    with pytest.raises(DataError, match="none does not exist"):
        c.index(memory_path / "none")
    c.photos.file("a.jpg").unlink()
    with pytest.raises(DataError, match="photos holds no image that can be read"):
        c.index(c.photos.path)
    with pytest.raises(StoreError, match="c is no collection yet: name what is to be indexed"):
        c.index()
    assert not (memory_path / "c").exists()
    (memory_path / "c").mkdir()
    (memory_path / "c" / "rows-0").mkdir()
    c.photos.write("a.jpg", "a")
    with pytest.raises(StoreError, match=r"c holds rows-0 but no collection\.json: choose an empty folder"):
        c.index(c.photos.path)
    assert [path.name for path in (memory_path / "c").iterdir()] == ["rows-0"]


def test_a_source_that_is_missing_or_empty_is_no_reason_to_delete(c, memory_path):
    more = Photos(memory_path / "more")
    c.photos.write("a.jpg", "a")
    more.write("b.jpg", "b")
    c.index(c.photos.path, more.path)
    c.photos.path.rename(memory_path / "elsewhere")
    more.write("c.jpg", "c")
    report = c.index()
    assert counted(report) == {"unchanged": 1, "new": 1, "encoded": 1} and "photos/a.jpg" in c.rows()
    assert [failure.item for failure in report.not_looked_at] == ["photos"]
    c.photos.path.mkdir()
    assert "holds no image" in c.index().not_looked_at[0].reason and "photos/a.jpg" in c.rows()
    (memory_path / "elsewhere" / "a.jpg").rename(c.photos.file("a.jpg"))
    assert c.counted() == {"unchanged": 3}
    shutil.rmtree(c.photos.path)
    assert c.counted(prune_missing=True) == {"unchanged": 2, "deleted": 1} and "photos/a.jpg" not in c.rows()
    assert c.index().not_looked_at == (), "it is forgotten"
    shutil.rmtree(more.path)
    with pytest.raises(DataError, match="more cannot be read"):
        c.index()
    assert len(c.rows()) == 2


def test_a_source_is_forgotten_with_its_rows_alone(c, memory_path):
    more = Photos(memory_path / "more")
    c.photos.write("a.jpg", "a")
    c.photos.write("b.jpg", "b")
    more.write("b.jpg", "b")
    c.index(c.photos.path, more.path)
    with pytest.raises(InputError, match=r"elsewhere is no source of the collection; it has .*photos, .*more"):
        c.index(forget=(memory_path / "elsewhere",))
    with pytest.raises(ConfigError, match="has no other sources: remove all of it with slq collection delete"):
        c.index(forget=(c.photos.path, more.path))
    assert len(c.rows()) == 3
    assert c.counted(forget=(c.photos.path,)) == {"unchanged": 1, "deleted": 2} and list(c.rows()) == ["more/b.jpg"]
    assert c.photos.file("a.jpg").read_text() == "a" and c.counted() == {"unchanged": 1}
    assert c.counted(c.photos.path) == {"new": 1, "duplicates": 1, "unchanged": 1, "encoded": 1}, "it may come back"
    shutil.rmtree(more.path)
    assert c.counted(forget=(more.path,)) == {"unchanged": 2, "deleted": 1} and sorted(c.rows()) == ["photos/a.jpg", "photos/b.jpg"]


def test_a_folder_that_cannot_be_listed_keeps_its_rows(c, memory_path, monkeypatch):
    for name in ("a.jpg", "b/c.jpg", "b/d/e.jpg"):
        c.photos.write(name, name)
    c.index(c.photos.path)
    list_folder = os.scandir

    def refuse(path):
        if os.fsdecode(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    report = c.index()
    assert counted(report) == {"unchanged": 1} and len(c.rows()) == 3
    assert [str(each) for each in report.not_looked_at] == ["photos/b: the folder cannot be listed (Permission denied)"]


def test_names_of_any_bytes(c, memory_path):
    for name in (b"caf\xe9.jpg", "café.jpg".encode(), b"a\nb.jpg", b"%41.jpg", b"A.jpg"):
        c.photos.write(name, os.fsdecode(name).encode("utf-8", "backslashreplace").decode())
    assert c.counted(c.photos.path)["new"] == 5
    assert sorted(c.rows()) == [f"photos/{name}.jpg" for name in ("%2541", "A", "a%0Ab", "caf%E9", "café")]
    c.photos.file(b"caf\xe9.jpg").unlink()
    assert c.counted() == {"unchanged": 4, "deleted": 1}


def test_sources_inside_of_each_other(c, memory_path):
    for name in ("2019/a.jpg", "2020/b.jpg", ".private/c.jpg"):
        c.photos.write(name, name)
    c.index(c.photos.file("2019"), c.photos.file("2020/b.jpg"), c.photos.file(".private"))
    assert sorted(c.rows()) == [".private/c.jpg", "2019/a.jpg", "b.jpg"]
    assert c.counted(c.photos.path) == {"moved": 2, "unchanged": 1}
    assert sorted(c.rows()) == [".private/c.jpg", "photos/2019/a.jpg", "photos/2020/b.jpg"]
    report = c.index(c.photos.file("2019"))
    assert counted(report) == {"unchanged": 3} and report.notes[0].endswith("2019 is part of photos, which is indexed already.")
    assert len(c.index().notes) == 0


def test_an_inner_source_ends_only_where_its_folder_was_seen(c, monkeypatch):
    for name in ("2019/a.jpg", "b.jpg"):
        c.photos.write(name, name)
    c.index(c.photos.file("2019"))
    list_folder = os.scandir

    def refuse(path):
        if os.fsdecode(path).endswith("/2019"):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert counted(c.index(c.photos.path)) == {"new": 1, "encoded": 1} and sorted(c.rows()) == ["2019/a.jpg", "photos/b.jpg"]
    monkeypatch.undo()
    assert c.counted() == {"moved": 1, "unchanged": 1} and sorted(c.rows()) == ["photos/2019/a.jpg", "photos/b.jpg"]


def test_a_disk_in_a_source_that_is_not_mounted_takes_no_rows_along(c, monkeypatch):
    for name in ("a.jpg", "disk/b.jpg", "folder/c.jpg"):
        c.photos.write(name, name)
    disk = c.photos.file("disk")
    monkeypatch.setattr(os.path, "ismount", lambda path: os.fsdecode(path).endswith("/disk"))
    c.index(c.photos.path)
    away = disk.rename(disk.parent.parent / "away")
    c.photos.file("folder/c.jpg").unlink()  # an empty folder that never was a disk
    monkeypatch.setattr(os.path, "ismount", lambda path: False)
    for there in (False, True):  # where it was mounted may be gone, or be an empty folder
        disk.mkdir() if there else None
        report = c.index()
        assert [str(each) for each in report.not_looked_at] == ["photos/disk: the folder cannot be listed (its disk is not mounted)"]
        assert sorted(c.rows()) == ["photos/a.jpg", "photos/disk/b.jpg"]
    with pytest.raises(DataError, match="would be lost in a rebuild"):
        c.index(rebuild=True)
    disk.rmdir()
    away.rename(disk)
    assert c.counted() == {"unchanged": 2}
    (disk / "b.jpg").unlink()
    disk.rmdir()
    assert c.counted(prune_missing=True) == {"deleted": 1, "unchanged": 1} and c.counted() == {"unchanged": 1}


def test_what_is_gone_goes_also_if_all_that_is_left_fails(c):
    for name, content in {"a": "a", "b": "b", "c": "bad"}.items():
        c.photos.write(f"{name}.jpg", content)
    c.index(c.photos.path)
    for name in "ab":
        c.photos.file(f"{name}.jpg").unlink()
    with pytest.raises(DataError, match="None of 1 items can be used; the first is listed by --failed"):
        c.index()
    assert c.rows() == {}


def test_two_folders_of_one_name(c, memory_path):
    other = Photos(memory_path / "other" / "photos")
    c.photos.write("a.jpg", "a")
    other.write("a.jpg", "b")
    c.index(c.photos.path, other.path)
    found = c.rows()
    assert np.array_equal(found["photos/a.jpg"].vector, vector_of(b"a")) and np.array_equal(found["photos-2/a.jpg"].vector, vector_of(b"b"))


def test_links_stay_followed_once_they_were(c, memory_path):
    c.photos.write("a.jpg", "a")
    Photos(memory_path / "linked").write("b.jpg", "b")
    c.photos.file("link").symlink_to(memory_path / "linked")
    report = c.index(c.photos.path)
    assert counted(report) == {"new": 1, "encoded": 1} and report.skipped == {"links": 1}
    assert c.counted(c.photos.path, follow_links=True) == {"new": 1, "unchanged": 1, "encoded": 1}
    assert c.counted(c.photos.path) == {"unchanged": 2}
    assert c.counted(c.photos.path, follow_links=False) == {"unchanged": 1, "deleted": 1}
    with pytest.raises(ConfigError, match="follow_links says how a PATH is read: name the PATH"):
        c.index(follow_links=True)


def test_a_collection_moves_with_its_sources(c, memory_path):
    c.photos.write("a.jpg", "a")
    (memory_path / "here").mkdir()
    c.photos.path.rename(memory_path / "here" / "photos")
    update(memory_path / "here" / "c", IndexConfig(paths=(memory_path / "here" / "photos",), collection=memory_path / "c"), c.encoder.named)
    (memory_path / "here").rename(memory_path / "there")
    report = update(memory_path / "there" / "c", IndexConfig(collection=memory_path / "c"), c.encoder.named)
    assert counted(report) == {"unchanged": 1}


def test_a_collection_in_its_own_source_is_passed_over(c):
    c.photos.write("a.jpg", "a")
    report = update(c.photos.file("c"), IndexConfig(paths=(c.photos.path,), collection=c.photos.file("c")), c.encoder.named)
    assert counted(report) == {"new": 1, "encoded": 1} and report.skipped == {}


def test_another_model_is_refused(c, memory_path):
    c.photos.write("a.jpg", "a")
    c.index(c.photos.path)
    c.photos.write("b.jpg", "b")
    with pytest.raises(FingerprintMismatchError, match=r"c was encoded by stand-in \(stand-in\), not by stand-in \(other\): name that"):
        c.index(by=StandInEncoder("other"))
    assert c.holds(a="a")
    head = Layout(memory_path / "c").head_file
    write_head(head, replace(read_head(head), store="other"))
    with pytest.raises(ConfigError, match="has a store of the kind other: leave out --store, or change it with --rebuild"):
        c.index(store="exact")


def test_one_process_writes(c, memory_path):
    c.photos.write("a.jpg", "a")
    c.index(c.photos.path)
    lock = take_lock(memory_path / "c")
    with pytest.raises(StoreLockedError, match="is written by another process"):
        c.index()
    os.close(lock)
    assert c.counted() == {"unchanged": 1}


def test_a_full_disk_loses_nothing(c, memory_path, monkeypatch):
    c.photos.write("a.jpg", "a")
    c.index(c.photos.path)
    c.photos.write("a.jpg", "new")
    c.photos.write("b.jpg", "b")

    def refuse(self, rows):
        raise OutputError("Cannot write")

    monkeypatch.setattr(ExactStore, "upsert", refuse)
    with pytest.raises(OutputError):
        c.index()
    monkeypatch.undo()
    assert c.counted() == {"changed": 1, "new": 1, "encoded": 2} and c.holds(a="new", b="b")
