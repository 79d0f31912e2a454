"""Records on disk: whole or absent, told apart when corrupt, and never lost to an error of the operating system."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from slq.cache.records import JSON, TAG_FILE, Codec, RecordStore, bytes_codec
from slq.errors import OutputError
from slq.io.files import is_sibling

BYTES = bytes_codec(".bin")
VECTORS: Codec[dict[str, np.ndarray]] = Codec(".safetensors", lambda path, value: save_file(value, path), load_file)
KEY, OTHER = "ab" + "0" * 62, "cd" + "1" * 62


@pytest.fixture
def store(tmp_path) -> RecordStore[bytes]:
    return RecordStore(tmp_path, BYTES)


@contextmanager
def limited(kind: int, value: int):
    """A limit of this process for a moment."""
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (value, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


def reopened(store: RecordStore) -> RecordStore:
    return RecordStore(store.folder, store.codec)


def test_a_record_is_read_back_in_another_process_of_time(store):
    assert store.get(KEY) is None and KEY not in store
    path = store.put(KEY, b"content")
    assert path is not None and path.read_bytes() == b"content" and path.suffix == ".bin" and path.parent.name == "ab"
    for each in (store, reopened(store)):
        assert each.get(KEY) == b"content" and each.path(KEY) == path and KEY in each
        assert (len(each), each.num_bytes, list(each.keys()), each.corrupt) == (1, 7, [KEY], 0)


@pytest.mark.parametrize("codec, value", [(JSON, {"a": ["ü", 1]}), (BYTES, b"\0" * 10), (BYTES, b"")], ids=["json", "bytes", "nothing"])
def test_codecs(tmp_path, codec, value):
    RecordStore(tmp_path, codec).put(KEY, value)
    assert RecordStore(tmp_path, codec).get(KEY) == value


def test_vectors_are_records_too(tmp_path):
    RecordStore(tmp_path, VECTORS).put(KEY, {"vectors": np.arange(6.0).reshape(2, 3)})
    assert RecordStore(tmp_path, VECTORS).get(KEY)["vectors"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_record_that_is_there_stays(store):
    path = store.put(KEY, b"first")
    assert store.put(KEY, b"second") == path and store.get(KEY) == b"first" and len(store) == 1


def test_kinds_share_a_folder(tmp_path):
    one, two = RecordStore(tmp_path, BYTES), RecordStore(tmp_path, JSON)
    one.put(KEY, b"content")
    assert two.get(KEY) is None and len(reopened(two)) == 0
    two.clear()
    assert one.get(KEY) == b"content"


def test_a_key_cannot_lead_outside(store):
    for key in ("../../etc/passwd", "a/b", "", "a", "a.b", "x" * 200):
        with pytest.raises(ValueError, match="not a key"):
            store.put(key, b"")


# Corrupt records


@pytest.mark.parametrize(
    "damage",
    [lambda old: b"", lambda old: old[:-1], lambda old: old + b"\0", lambda old: b"C" + old[1:]],
    ids=["emptied", "cut", "longer", "bit"],
)
def test_a_corrupt_record_is_removed_and_computed_again(store, damage):
    path = store.put(KEY, b"content")
    store.put(OTHER, b"good")
    path.write_bytes(damage(b"content"))
    again = reopened(store)
    assert again.get(KEY) is None and again.corrupt == 1 and not path.exists() and len(again) == 1
    assert again.put(KEY, b"content") == path and reopened(store).get(KEY) == b"content" and again.get(OTHER) == b"good"


def test_a_corrupt_record_is_not_taken_for_one_that_is_there(store):
    path = store.put(KEY, b"content")
    path.write_bytes(b"CONTENT")
    assert reopened(store).put(KEY, b"content") == path and path.read_bytes() == b"content"


def test_verifying_finds_all_that_is_corrupt(store):
    paths = [store.put(f"{number:02d}key", b"content") for number in range(10)]
    for path in paths[::3]:
        path.write_bytes(b"else")
    assert store.verify() == 4 and store.corrupt == 4 and len(store) == 6 and store.num_bytes == 6 * 7
    assert store.verify() == 0


# Errors of the operating system


def test_too_many_open_files_lose_no_record(store):
    path = store.put(KEY, b"content")
    again = reopened(store)
    spare = [open(os.devnull) for _ in range(3)]  # noqa: SIM115
    used = max(file.fileno() for file in spare)
    for file in spare:
        file.close()
    with limited(resource.RLIMIT_NOFILE, used - 2), pytest.warns(UserWarning, match=r"cannot be read \(.*Too many open files"):
        taken = []
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            assert again.get(KEY) is None
        finally:
            for number in taken:
                os.close(number)
    assert path.exists() and again.corrupt == 0 and again.get(KEY) == b"content"


def test_a_bad_disk_loses_no_record(store, tmp_path):
    """/proc/self/mem answers a read at its beginning with an input/output error."""
    path = store.put(KEY, b"content")
    good = path.rename(tmp_path / "good")
    path.symlink_to("/proc/self/mem")
    again = reopened(store)
    with pytest.warns(UserWarning, match=r"cannot be read \(.*Input/output error"):
        assert again.get(KEY) is None
    assert path.is_symlink() and again.corrupt == 0
    good.replace(path)
    assert again.get(KEY) == b"content"


def test_a_record_that_its_format_cannot_open_stays(tmp_path):
    """safetensors reports what the system refuses as an error of its own."""
    store = RecordStore(tmp_path, VECTORS)
    path = store.put(KEY, {"vectors": np.zeros(3)})
    content = path.read_bytes()
    path.unlink()
    path.mkdir()
    with pytest.warns(UserWarning, match="cannot be read"):
        assert store.get(KEY) is None
    path.rmdir()
    path.write_bytes(content)
    assert store.corrupt == 0 and len(store.get(KEY)["vectors"]) == 3


DENIED = """
import os, sys, warnings
from pathlib import Path
from slq.cache.records import RecordStore, bytes_codec
folder = Path(sys.argv[1])
if os.geteuid() == 0:
    os.setuid(65534)
warnings.simplefilter("ignore")
store = RecordStore(folder, bytes_codec(".bin"))
print(store.get(sys.argv[2]), store.corrupt, store.failure, store.put("new", b"new"), type(store.failure).__name__)
"""


@pytest.mark.process
def test_no_permission_loses_no_record_and_ends_the_writing(store):
    path = store.put(KEY, b"content")
    for place in (path.parent, store.folder):
        place.chmod(0o555)
    path.chmod(0)
    above = [folder for folder in store.folder.parents if folder.stat().st_uid == os.getuid() and not folder.stat().st_mode & 0o001]
    modes = [folder.stat().st_mode for folder in above]
    try:
        for folder in above:
            folder.chmod(0o755)
        told = subprocess.run([sys.executable, "-c", DENIED, str(store.folder), KEY], capture_output=True, text=True, timeout=60)
    finally:
        for folder, mode in zip(above, modes, strict=True):
            folder.chmod(mode)
        for place in (store.folder, path.parent, path):
            place.chmod(0o755)
    assert told.stdout == "None 0 None None PermissionError\n", told.stderr
    assert reopened(store).get(KEY) == b"content"


def test_what_cannot_be_written_ends_the_writing_once(store):
    store.put(KEY, b"content")
    with limited(resource.RLIMIT_FSIZE, 100), pytest.warns(UserWarning, match=r"takes nothing more \(.*File too large"):
        assert store.put(OTHER, b"x" * 1000) is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.put(OTHER, b"x") is None and store.full and store.get(KEY) == b"content"
    assert len(reopened(store)) == 1 and not [path for path in store.folder.rglob("*") if is_sibling(path.name)]


def test_what_the_caller_needs_is_an_error_instead(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^Cannot write \S+below: Not a directory\.$"):
        RecordStore(tmp_path / "file" / "below", BYTES, required=True)
    store = RecordStore(tmp_path / "cache", BYTES, required=True)
    with limited(resource.RLIMIT_FSIZE, 100), pytest.raises(OutputError, match="File too large"):
        store.put(KEY, b"x" * 1000)
    assert store.put(KEY, b"x") is not None


def test_a_folder_that_cannot_be_made_ends_the_writing(tmp_path):
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="takes nothing more"):
        store = RecordStore(tmp_path / "file" / "below", BYTES)
    assert store.put(KEY, b"content") is None and store.get(KEY) is None and len(store) == 0


SMALL_DISK = """
import json, sys, warnings
from pathlib import Path
import numpy as np
from safetensors.numpy import load_file, save_file
from slq.cache.records import Codec, RecordStore
store = RecordStore(Path(sys.argv[1]), Codec(".safetensors", lambda path, value: save_file(value, path), load_file))
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    stored = [store.put(f"{number:02d}", {"vectors": np.full(1000, number)}) is not None for number in range(60)]
again = RecordStore(store.folder, store.codec)
good = [again.get(f"{number:02d}")["vectors"][0] == number for number in range(sum(stored))]
left = [path.name for path in store.folder.rglob("*") if path.name.endswith("partial")]
in_order, told = stored == sorted(stored, reverse=True), [str(one.message) for one in told]
print(json.dumps([sum(stored), in_order, all(good), len(again), again.verify(), left, told]))
"""


@pytest.mark.process
def test_a_full_disk_ends_the_writing_and_leaves_what_is_there(tmp_path):
    """A disk of 300 KB, seen by one process alone and gone with it."""
    private = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=300k none {tmp_path}"
    if shutil.which("unshare") is None or subprocess.run([*private, mount], capture_output=True).returncode:
        pytest.skip("this system lets no process mount a disk of its own")
    run = [*private, f'{mount} && exec "$0" -c "$1" {tmp_path}', sys.executable, SMALL_DISK]
    result = subprocess.run(run, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    count, in_order, good, length, corrupt, left, told = json.loads(result.stdout)
    assert 10 < count < 60 and in_order and good and length == count and corrupt == 0 and left == []
    assert len(told) == 1 and "takes nothing more" in told[0]


# Several processes and crashes

WRITER = """
import sys
from pathlib import Path
from slq.cache.records import JSON, RecordStore
store = RecordStore(Path(sys.argv[1]), JSON)
for number in range(100):
    key = f"{number:03d}"
    found = store.get(key)
    assert found in (None, [number] * 100), found
    if found is None:
        store.put(key, [number] * 100)
"""


def test_several_processes_and_threads_share_a_folder(tmp_path):
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(2)]
    store = RecordStore(tmp_path, JSON)
    threads = [threading.Thread(target=lambda: [store.put(f"{n:03d}", [n] * 100) for n in range(100)]) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for writer in writers:
        assert not writer.communicate(timeout=60)[1] and writer.returncode == 0
    again = reopened(store)
    assert list(again.keys()) == [f"{number:03d}" for number in range(100)] and again.verify() == 0
    assert all(again.get(f"{number:03d}") == [number] * 100 for number in range(100))


def test_a_record_that_another_process_removes_is_missing(store):
    path = store.put(KEY, b"content")
    reopened(store).clear()
    assert store.get(KEY) is None and not path.exists() and store.corrupt == 0


@pytest.mark.process
@pytest.mark.parametrize("at, left", [("record.written:3", 2), ("record.replaced:3", 3)])
def test_a_crash_leaves_whole_records_and_a_partial_that_is_cleared_away(tmp_path, at, left):
    result = subprocess.run(
        [sys.executable, "-c", WRITER, str(tmp_path)], env={**os.environ, "SLQ_CRASH_AT": at}, capture_output=True, timeout=60
    )
    assert result.returncode == -9, result.stderr.decode()
    partial = [path for path in tmp_path.rglob("*") if is_sibling(path.name)]
    assert len(partial) == (at == "record.written:3")
    store = RecordStore(tmp_path, JSON)
    assert len(store) == left and store.verify() == 0 and not any(path.exists() for path in partial)


# Budget


def test_a_budget_is_kept_and_nothing_is_evicted(tmp_path):
    store = RecordStore(tmp_path, BYTES, budget=100)
    assert [store.put(f"{number:02d}", b"x" * 30) is not None for number in range(5)] == [True] * 3 + [False] * 2
    assert store.num_bytes == 90 and not store.full and store.put("small", b"x" * 10) and store.full
    assert RecordStore(tmp_path, BYTES, budget=100).full


def test_a_budget_counts_what_other_processes_store(tmp_path):
    one, two = (RecordStore(tmp_path, BYTES, budget=1000) for _ in range(2))
    for number in range(100):
        one.put(f"one{number}", b"x" * 30)
        two.put(f"two{number}", b"x" * 30)
    assert 900 <= RecordStore(tmp_path, BYTES).num_bytes <= 1000 + 60


def test_what_is_known_to_be_too_large_is_not_written_first(tmp_path):
    def refuse(path: Path, value: bytes) -> None:
        raise AssertionError("written")

    store = RecordStore(tmp_path, Codec(".bin", refuse, lambda path: b""), budget=100)
    assert store.put(KEY, b"x" * 200, size=200) is None and store.failure is None


def test_clearing_removes_records_and_nothing_else(store):
    store.put(KEY, b"content")
    for name in ("photo.jpg", "ab/photo.jpg", f"ab/{KEY}.bin"):
        (store.folder / name).write_text("mine")
    store.clear()
    left = {path.relative_to(store.folder).as_posix() for path in store.folder.rglob("*") if path.is_file()}
    assert left == {"photo.jpg", "ab/photo.jpg", f"ab/{KEY}.bin", TAG_FILE} and len(store) == store.num_bytes == 0
