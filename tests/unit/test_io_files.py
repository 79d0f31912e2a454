"""Files whole or not at all: what is left after a full disk, a crash, a process in the way."""

from __future__ import annotations

import errno
import json
import os
import resource
import stat
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from slq.cache.records import JSON, Codec, RecordStore
from slq.errors import DiskFullError, OutputError
from slq.io.files import (
    append_jsonl,
    is_abandoned,
    is_sibling,
    map_os_errors,
    read_jsonl,
    remove,
    sibling_path,
    siblings,
    write_atomic,
    write_folder,
    write_json,
    write_jsonl,
    write_text,
)
from slq.io.outputs import OutputFolder

FULL = Path("/dev/full")  # every write finds the disk full
full = pytest.mark.skipif(not FULL.is_char_device(), reason="needs /dev/full")


def crash(script: str, at: str, *arguments: object) -> None:
    """Run a script that is killed at a named point."""
    result = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], env={**os.environ, "SLQ_CRASH_AT": at}, capture_output=True, timeout=60
    )
    assert result.returncode == -9, result.stderr.decode()


@contextmanager
def largest_file(size: int):
    """No file of this process may grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_readers_see_the_old_content_until_the_new_is_whole(tmp_path):
    file, seen = tmp_path / "scores.json", []
    file.write_text("old")

    def write(partial: Path) -> None:
        partial.write_text("ne")
        seen.append(file.read_text())
        partial.write_text("new")

    write_atomic(file, write)
    assert seen == ["old"] and file.read_text() == "new" and [path.name for path in tmp_path.iterdir()] == ["scores.json"]


@pytest.fixture
def on_disk(monkeypatch) -> list[str]:
    """What is synced and renamed, in its order."""
    done: list[str] = []
    fsync, replace, rename = os.fsync, os.replace, Path.rename
    monkeypatch.setattr(os, "fsync", lambda file: (done.append(f"sync {_kind(os.readlink(f'/proc/self/fd/{file}'))}"), fsync(file))[1])
    monkeypatch.setattr(os, "replace", lambda *paths: (done.append("rename"), replace(*paths))[1])
    monkeypatch.setattr(Path, "rename", lambda *paths: (done.append("rename"), rename(*paths))[1])
    return done


def _kind(path: str) -> str:
    return "folder" if os.path.isdir(path) else "file"


def test_a_write_is_on_the_disk_before_it_has_its_name_and_its_name_is_too(on_disk, tmp_path):
    write_text(tmp_path / "scores.json", "new")
    assert on_disk == ["sync file", "rename", "sync folder"]
    on_disk.clear()
    write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text("w"))
    assert on_disk == ["sync file", "sync folder", "rename", "sync folder"]
    on_disk.clear()
    append_jsonl(tmp_path / "log.jsonl", {"step": 1})
    append_jsonl(tmp_path / "log.jsonl", {"step": 2})
    assert on_disk == ["sync file", "sync folder", "sync file"], "a file that is there has its name already"
    on_disk.clear()
    RecordStore(tmp_path / "cache", JSON).put("abcd", 1)
    assert on_disk == ["sync file", "rename", "sync folder"]
    on_disk.clear()
    with OutputFolder.create(tmp_path / "out", "test") as output:
        (output.path / "image.png").write_text("p")
    assert on_disk[-4:] == ["sync file", "sync folder", "rename", "sync folder"]


@pytest.mark.parametrize("umask", [0o022, 0o027])
def test_whoever_writes_the_file_has_the_permissions_of_the_umask(umask, tmp_path):
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "one.safetensors", lambda path: save_file({"a": np.zeros(2)}, path))  # of its own, 0600
        write_folder(tmp_path / "model", lambda folder: save_file({"a": np.zeros(2)}, folder / "two.safetensors"))
        codec = Codec(".safetensors", lambda path, value: save_file(value, path), load_file)
        record = RecordStore(tmp_path / "cache", codec).put("abcd", {"a": np.zeros(2)})
    finally:
        os.umask(before)
    files = (tmp_path / "one.safetensors", tmp_path / "model" / "two.safetensors", record)
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}


def test_a_folder_is_there_whole_or_not_at_all(tmp_path):
    def fail(folder: Path) -> None:
        (folder / "weights").write_text("half")
        raise OSError(errno.ENOSPC, "full")

    write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text("old"))
    with pytest.raises(DiskFullError):
        write_folder(tmp_path / "model", fail)
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and (tmp_path / "model" / "weights").read_text() == "old"
    write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text("of another"), replace=False)
    assert (tmp_path / "model" / "weights").read_text() == "old"
    write_folder(tmp_path / "model", lambda folder: (folder / "weights").write_text("new"))
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and (tmp_path / "model" / "weights").read_text() == "new"


def test_torn_lines_are_counted_and_the_others_read(tmp_path):
    append_jsonl(tmp_path / "log.jsonl", {"step": 1})
    with (tmp_path / "log.jsonl").open("ab") as file:
        file.write(b'{"step": 2, "lo')
    assert read_jsonl(tmp_path / "log.jsonl") == ([{"step": 1}], 1)
    append_jsonl(tmp_path / "log.jsonl", {"step": 2})
    assert read_jsonl(tmp_path / "log.jsonl") == ([{"step": 1}, {"step": 2}], 1)


def test_a_write_that_fails_leaves_the_old_content(tmp_path):
    file = tmp_path / "scores.json"
    write_text(file, "old")
    with largest_file(10), pytest.raises(OutputError, match=r"^Cannot write \S+scores\.json: File too large\.$"):
        write_text(file, "new" * 100)
    assert file.read_text() == "old" and [path.name for path in tmp_path.iterdir()] == ["scores.json"]


@full
def test_a_full_disk_is_one_sentence(tmp_path):
    sentence = r"^No room left on the disk while writing \S+: free some space and run again\.$"
    with pytest.raises(DiskFullError, match=sentence):
        write_text(FULL, "anything")
    (tmp_path / "log.jsonl").symlink_to(FULL)
    with pytest.raises(DiskFullError, match=sentence), map_os_errors(tmp_path / "log.jsonl"):
        (tmp_path / "log.jsonl").write_text("anything")


def test_an_error_that_is_not_the_systems_is_not_hidden(tmp_path):
    with pytest.raises(RuntimeError, match="a fault of ours"), map_os_errors(tmp_path / "file"):
        raise RuntimeError("a fault of ours")


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, DiskFullError), (errno.EDQUOT, DiskFullError), (errno.EROFS, OutputError)],
    ids=str,
)
def test_errors_of_the_system_are_sorted(tmp_path, number, kind):
    with pytest.raises(OutputError) as caught, map_os_errors(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert type(caught.value) is kind and isinstance(caught.value.__cause__, OSError)


def test_a_device_is_written_directly_and_stays_one():
    write_text(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize(("at", "left"), [("file.written", "old"), ("file.replaced", "new")])
def test_a_crash_leaves_the_old_content_or_the_new(tmp_path, at, left):
    file = tmp_path / "scores.json"
    file.write_text("old")
    script = "import sys; from pathlib import Path; from slq.io.files import write_text; write_text(Path(sys.argv[1]), 'new')"
    crash(script, at, file)
    assert file.read_text() == left
    partial = siblings(file, "partial")
    assert len(partial) == (at == "file.written") and all(map(is_abandoned, partial))


def test_a_line_that_is_nested_too_deeply_is_none(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 1}\n' + "[" * 10**6 + '\n{"step": 2}\n')
    assert read_jsonl(tmp_path / "log.jsonl") == ([{"step": 1}, {"step": 2}], 1)


def test_the_crash_point_counts(tmp_path):
    script = """
import sys
from pathlib import Path
from slq.io.files import write_text
for number in range(5):
    write_text(Path(sys.argv[1]) / str(number), "new")
"""
    crash(script, "file.written:3", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if not is_sibling(path.name)) == ["0", "1"]


def test_partial_names_are_unique_and_known(tmp_path):
    path, names = tmp_path / "a.json", []
    threads = [threading.Thread(target=lambda: (names.append(sibling_path(path)), barrier.wait())) for _ in range(4)]
    barrier = threading.Barrier(4)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names)) == 4 and all(is_sibling(name.name) and name.name.startswith(".") for name in names)
    assert not is_abandoned(names[0]), "this process is running"
    assert not any(map(is_sibling, ("a.json", ".hidden.partial", "a.json.partial", "my.replaced")))
    long = tmp_path / ("ü" * 127)
    write_text(long, "content")
    assert long.read_text() == "content"


def test_siblings_of_another_file_are_not_taken_for_ones_own(tmp_path):
    names = ["out", "out.v2", "x" * 60, "x" * 60 + "y"]
    for name in names:
        sibling_path(tmp_path / name, "replaced").touch()
    for name in names:
        assert siblings(tmp_path / name, "replaced") == [sibling_path(tmp_path / name, "replaced")]
        assert siblings(tmp_path / name, "partial") == []


def test_a_partial_of_another_machine_is_abandoned_after_a_day(tmp_path):
    other = tmp_path / ".a.json.00000000.1.1.partial"
    other.touch()
    assert not is_abandoned(other)
    os.utime(other, (0, 0))
    assert is_abandoned(other)


def test_json_is_read_back_whatever_the_words_are(tmp_path):
    value = {"words": "größer 猫", "name": "caf\udce9.png", "lines": "a\u2028b\nc"}
    write_json(tmp_path / "one.json", value)
    write_jsonl(tmp_path / "many.jsonl", [value, value])
    assert json.loads((tmp_path / "one.json").read_bytes()) == value
    assert [json.loads(line) for line in (tmp_path / "many.jsonl").read_bytes().split(b"\n")[:-1]] == [value, value]
    assert "größer 猫" in (tmp_path / "one.json").read_text(encoding="utf-8")


def test_lines_are_appended_behind_a_line_that_was_cut_off(tmp_path):
    file = tmp_path / "log.jsonl"
    append_jsonl(file, {"step": 1})
    file.write_bytes(file.read_bytes() + b'{"step"')
    append_jsonl(file, {"step": 2}, {"step": 3})
    assert file.read_text().split("\n") == ['{"step": 1}', '{"step"', '{"step": 2}', '{"step": 3}', ""]


def test_several_processes_append_whole_lines(tmp_path):
    file = tmp_path / "log.jsonl"
    script = f"""
from pathlib import Path
from slq.io.files import append_jsonl
for number in range(200):
    append_jsonl(Path({str(file)!r}), {{"number": number, "filling": "x" * 500}})
"""
    writers = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    numbers = [json.loads(line)["number"] for line in file.read_text().split("\n")[:-1]]
    assert sorted(numbers) == sorted([*range(200), *range(200)])


def test_an_appended_line_that_has_no_room_is_an_error(tmp_path):
    with largest_file(100), pytest.raises(OutputError, match="Cannot write"):
        append_jsonl(tmp_path / "log.jsonl", {"filling": "x" * 500})


def test_removing_follows_no_links(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    remove(tmp_path / "link")
    remove(tmp_path / "missing")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "photos" / "a.jpg").exists()
