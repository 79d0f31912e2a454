"""The image files below a folder: names of any bytes, what is passed over and counted, and links."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from slq.data.walk import Stamp, Walk
from slq.errors import DataError


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., bytes]:
    def make(*names: str | bytes) -> bytes:
        folder = os.fsencode(tmp_path / "photos")
        for name in names:
            path = os.path.join(folder, os.fsencode(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Path(os.fsdecode(path)).write_bytes(b"image")
        return folder

    return make


def names(walk: Walk) -> list[bytes]:
    return sorted(found.name for found in walk)


def test_files_of_every_depth_and_of_any_bytes(photos):
    walk = Walk(photos("a.jpg", "b/c/D.PNG", b"caf\xe9.jpg", "b/\n.webp", "x y/z.HEIC"))
    assert names(walk) == [b"a.jpg", b"b/\n.webp", b"b/c/D.PNG", b"caf\xe9.jpg", b"x y/z.HEIC"]
    assert not walk.skipped and not walk.unreadable


def test_what_is_passed_over_is_counted(photos):
    folder = photos(
        *("a.jpg", ".b.jpg", ".git/c.jpg", "@eaDir/d.jpg", "e/#recycle/f.jpg", "$Recycle.Bin/g.jpg", "Thumbs.db", ".Trash-1000/h.jpg"),
        *("lost+found/i.jpg", "System Volume Information/j.jpg", ".@__thumb/k.jpg", "l.mov", "m.MOV", "n.svg", "o", "p.not a suffix"),
        "q.cr2",
    )
    os.mkfifo(os.path.join(folder, b"pipe.jpg"))
    walk = Walk(folder)
    assert names(walk) == [b"a.jpg"]
    assert walk.skipped == {
        **{"hidden": 2, "thumbnails and bins": 8, "devices and pipes": 1},
        **{".mov": 2, ".svg": 1, "other": 2, ".cr2": 1},
    }


def test_the_stamp_is_that_of_the_file(photos):
    folder = photos("a.jpg")
    [found] = Walk(folder)
    assert found.stamp == Stamp.of(os.stat(os.path.join(folder, b"a.jpg"))) and found.stamp.size == 5
    os.utime(os.path.join(folder, b"a.jpg"), ns=(0, 7))
    assert [found.stamp.mtime_ns for found in Walk(folder)] == [7]


def test_links_are_followed_only_if_asked_for(photos, tmp_path):
    folder = Path(os.fsdecode(photos("a.jpg", "b/c.jpg")))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "d.jpg").write_bytes(b"image")
    (folder / "linked").symlink_to(elsewhere)
    (folder / "again").symlink_to(folder / "b")
    (folder / "circle").symlink_to(folder)
    (folder / "e.jpg").symlink_to(elsewhere / "d.jpg")
    (folder / "f.jpg").symlink_to(folder / "a.jpg")
    (folder / "nowhere.jpg").symlink_to(folder / "none.jpg")
    (folder / "self.jpg").symlink_to(folder / "self.jpg")
    walk = Walk(os.fsencode(folder))
    assert names(walk) == [b"a.jpg", b"b/c.jpg", b"f.jpg", b"nowhere.jpg", b"self.jpg"]
    assert walk.skipped == {"links": 4}, "three folders, and one file elsewhere"
    assert {found.name: found.stamp for found in Walk(os.fsencode(folder))}[b"nowhere.jpg"] is None
    walk = Walk(os.fsencode(folder), follow_links=True)
    assert names(walk) == [b"a.jpg", b"b/c.jpg", b"e.jpg", b"f.jpg", b"linked/d.jpg", b"nowhere.jpg", b"self.jpg"]
    assert walk.skipped == {"links": 2}, "both lead to what was looked at already"


def test_a_linked_folder_has_the_same_path_every_time(photos, tmp_path):
    folder = Path(os.fsdecode(photos("a.jpg")))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.jpg").write_bytes(b"image")
    for name in ("z", "m", "c"):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    assert names(Walk(os.fsencode(folder), follow_links=True)) == [b"a.jpg", b"c/b.jpg"]


def test_a_folder_that_cannot_be_listed_is_told(photos, monkeypatch):
    folder = photos("a.jpg", "b/c.jpg", "d/e.jpg")
    list_folder = os.scandir

    def refuse(path: bytes):
        if path.endswith(b"/b"):
            raise PermissionError(13, "Permission denied")
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", refuse)
    walk = Walk(folder)
    assert names(walk) == [b"a.jpg", b"d/e.jpg"] and walk.unreadable == {b"b": "Permission denied"}


def test_the_whole_folder_must_be_there(photos, tmp_path):
    with pytest.raises(DataError, match=r"none cannot be read \(No such file or directory\)"):
        list(Walk(os.fsencode(tmp_path / "none")))
    with pytest.raises(DataError, match=r"a\.jpg cannot be read \(Not a directory\)"):
        list(Walk(os.path.join(photos("a.jpg"), b"a.jpg")))


def test_one_folder_can_be_left_out(photos):
    folder = photos("a.jpg", "mine/b.jpg")
    walk = Walk(folder, leave_out=os.path.join(folder, b"mine"))
    assert names(walk) == [b"a.jpg"] and not walk.skipped
