"""LanceStore through kills between the steps of a write, damaged files, and disks that are full or read-only."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from slq.errors import OutputError, StoreCorruptError, StoreError
from slq.index.lance import LanceStore
from slq.testing.stores import METADATA, assert_finds, assert_holds, make_rows

# One process, since LanceDB takes seconds to be imported. Each writer that is killed is forked from it before it has used LanceDB.
PROCESSES = """
import json, os, sys, traceback, warnings
from pathlib import Path
import lancedb
from slq.errors import SlqError
from slq.index.lance import LanceStore
from slq.testing.stores import METADATA, assert_finds, assert_holds, make_rows

warnings.filterwarnings("ignore", message="lancedb fork support is experimental")

def write(folder, task):
    store = LanceStore(folder, METADATA)
    store.upsert(make_rows(5))
    store.delete(["row 0"])
    if task == "write":
        store.upsert(make_rows(5, start=5))
    elif task == "delete":
        store.delete(["row 1"])
    else:
        store.optimize()

def killed(folder, task, at):
    process = os.fork()
    if process == 0:
        os.environ["SLQ_CRASH_AT"] = at
        try:
            write(folder, task)
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])

def full(disk):
    told, rows = [], []
    (disk / "filler").write_bytes(bytes(200_000))
    store = LanceStore(disk / "s", METADATA)
    try:
        while True:
            store.upsert(make_rows(20, start=len(rows)))
            rows += make_rows(20, start=len(rows))
    except SlqError as error:
        told.append([type(error).__name__, str(error)])
    assert_holds(store, rows)
    with (disk / "filler").open("ab", buffering=0) as filler:
        try:
            while filler.write(bytes(512)):
                pass
        except OSError:
            pass
    store.close()
    for call in (lambda store: store.upsert(make_rows(1, start=10**6)), lambda store: store.optimize()):
        store = LanceStore(disk / "s")  # with no room at all
        assert_holds(store, rows)
        try:
            call(store)
        except SlqError as error:
            told.append([type(error).__name__, str(error)])
        assert_holds(store, rows)
        store.close()
    (disk / "filler").unlink()
    store = LanceStore(disk / "s")
    store.delete([row.id for row in rows[20:]])
    store.optimize()
    assert_holds(store, rows[:20])
    assert store.verify() == []
    store.upsert(rows[20:40])
    assert_holds(store, rows[:40])
    store.close()
    return told

def read_only(disk):
    told, rows = [], make_rows(10)
    for name in ("s", "ahead", "broken"):
        try:
            store = LanceStore(disk / name)
            assert_holds(store, rows)
            assert_finds(store, rows)
            assert store.verify() == []
            store.upsert(rows)
        except SlqError as error:
            told.append([type(error).__name__, str(error)])
    return told

place, kills = Path(sys.argv[1]), json.loads(sys.argv[2])
told = {"killed": {name: killed(place / name, *kill) for name, kill in kills.items()}}
for run in (full, read_only) if sys.argv[3] == "disks" else ():
    try:
        told[run.__name__] = run(place / run.__name__)
    except Exception:
        told[run.__name__] = traceback.format_exc()
print(json.dumps(told))
"""
STORED, REMOVED = "was stored in a version that is damaged", "was removed in a version that is damaged"


# --- kills ------------------------------------------------------------------------------------------------------------------


BETWEEN_STEPS = {  # what is done, where it is killed, and the numbers of the rows that are there afterwards
    "write 1": ("write", "lance.written:3", range(1, 5)),
    "write 2": ("write", "lance.synced:4", range(1, 5)),
    "write 3": ("write", "lance.journalled:3", range(1, 10)),
    "delete 1": ("delete", "lance.written:3", range(1, 5)),
    "delete 2": ("delete", "lance.journalled:3", range(2, 5)),
    "optimize 1": ("optimize", "lance.written:3", range(1, 5)),
    "optimize 2": ("optimize", "lance.optimized", range(1, 5)),
    "optimize 3": ("optimize", "lance.cleaned", range(1, 5)),
}
WHILE_MADE = ["lance.created", "lance.synced", "file.written", "file.replaced"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Where other processes have left what they do: a folder for each kill, and one for each kind of disk."""
    place = tmp_path_factory.mktemp("processes")
    (place / "full").mkdir()
    store = LanceStore(place / "read_only/s", METADATA)
    store.upsert(make_rows(5))
    with closing(sqlite3.connect(store.location / "journal.sqlite", isolation_level=None)) as reading:
        reading.execute("begin")
        reading.execute("select * from state").fetchall()
        store.upsert(make_rows(5, start=5))
        shutil.copytree(store.location, place / "read_only/ahead")
    store.close()
    shutil.copytree(store.location, place / "read_only/broken")
    manifests(place / "read_only/broken")[0].write_bytes(b"")
    return place


@pytest.fixture(scope="module")
def told(place) -> dict[str, Any]:
    """What those processes say: how each that is killed has ended, and the errors on each disk, where this system lets them mount one."""
    kills = {**{name: kill[:2] for name, kill in BETWEEN_STEPS.items()}, **{at: ("write", at) for at in WHILE_MADE}}
    private, disk = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"], place / "read_only"
    mount = f"mount -t tmpfs -o size=700k none {place}/full && mount --bind {disk} {disk} && mount -o remount,bind,ro {disk}"
    can_mount = shutil.which("unshare") is not None and not subprocess.run([*private, mount], capture_output=True).returncode
    command = [sys.executable, "-W", "error", "-c", PROCESSES, str(place), json.dumps(kills), "disks" if can_mount else ""]
    if can_mount:
        command = [*private, f"{mount} && exec {shlex.join(command)}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["killed"] == dict.fromkeys(kills, -9), result.stderr
    return found


@pytest.mark.process
@pytest.mark.parametrize("name", BETWEEN_STEPS)
def test_a_kill_between_two_steps(name, place, told):
    rows = [make_rows(1, number)[0] for number in BETWEEN_STEPS[name][2]]
    store = LanceStore(place / name)
    assert_holds(store, rows)
    assert_finds(store, rows)
    assert store.verify() == []
    more = make_rows(3, start=20)
    store.upsert(more)
    store.optimize()
    store.close()
    store = LanceStore(place / name)
    assert_holds(store, [*rows, *more])
    assert len(list((place / name / "rows.lance/data").iterdir())) == len(manifests(place / name)) == 1, "old files are gone"
    store.close()


@pytest.mark.process
@pytest.mark.parametrize("at", WHILE_MADE)
def test_a_kill_while_a_store_is_made(at, place, told):
    if at != "file.replaced":
        with pytest.raises(StoreError, match="There is no store in"):
            LanceStore(place / at)
    store = LanceStore(place / at, METADATA)
    store.upsert(make_rows(5))
    assert_holds(store, make_rows(5))
    store.close()


def test_the_journal_may_be_cut_off_anywhere_while_it_is_written(tmp_path):
    """A commit that the journal's file has not got yet is there or not; its rows are never there in part."""
    store = LanceStore(tmp_path / "s", METADATA)
    store.upsert(make_rows(5))
    with closing(sqlite3.connect(tmp_path / "s/journal.sqlite", isolation_level=None)) as reading:
        reading.execute("begin")
        reading.execute("select * from state").fetchall()  # what this sees cannot be moved from what was written ahead into the file
        store.upsert(make_rows(5, start=5))
        shutil.copytree(tmp_path / "s", tmp_path / "copy")
    store.close()
    ahead = (tmp_path / "copy/journal.sqlite-wal").read_bytes()
    assert len(ahead) > 3 * 4096
    found = []
    for size in (len(ahead), len(ahead) - 1, len(ahead) * 2 // 3, 4096 + 100, 40, 0):
        shutil.copytree(tmp_path / "copy", tmp_path / f"cut {size}")
        (tmp_path / f"cut {size}" / "journal.sqlite-wal").write_bytes(ahead[:size])
        cut = LanceStore(tmp_path / f"cut {size}")
        found.append(len(cut))
        assert_holds(cut, make_rows(len(cut)))
        cut.upsert(make_rows(2, start=20))
        assert_holds(cut, [*make_rows(found[-1]), *make_rows(2, start=20)])
        assert cut.verify() == []
        cut.close()
    assert found[0] == 10 and found[1:] == [5] * 5


# --- damage -----------------------------------------------------------------------------------------------------------------


def manifests(folder: Path) -> list[Path]:
    """The newest first."""
    return sorted((folder / "rows.lance/_versions").glob("*.manifest"))


def files(folder: Path, kind: str) -> list[Path]:
    """The oldest first."""
    return sorted((folder / "rows.lance" / kind).iterdir(), key=lambda file: file.stat().st_mtime_ns)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """Rows 0 to 14 but row 1, of which 13 and 14 are of the last write, with row 15."""
    store = LanceStore(tmp_path_factory.mktemp("written") / "s", METADATA)
    store.upsert(make_rows(10))
    store.upsert(make_rows(5, start=10))
    store.delete(["row 1"])
    store.upsert(make_rows(3, start=13, salt=1))
    store.close()
    return store.location


LAST = {"row 13": STORED, "row 14": STORED, "row 15": STORED}
BEFORE_LAST = [row for row in make_rows(15) if row.id != "row 1"]
DAMAGE: dict[str, tuple[Callable[[Path], object], list, dict[str, str]]] = {
    "newest manifest emptied": (lambda s: manifests(s)[0].write_bytes(b""), BEFORE_LAST, LAST),
    "newest manifest truncated": (lambda s: os.truncate(manifests(s)[0], 100), BEFORE_LAST, LAST),
    "newest manifest removed": (lambda s: manifests(s)[0].unlink(), BEFORE_LAST, LAST),
    "two manifests emptied": (lambda s: [file.write_bytes(b"") for file in manifests(s)[:2]], make_rows(15), {**LAST, "row 1": REMOVED}),
    "newest data file emptied": (lambda s: files(s, "data")[-1].write_bytes(b""), BEFORE_LAST, LAST),
    "newest deletions removed": (lambda s: files(s, "_deletions")[-1].unlink(), BEFORE_LAST, LAST),
    "oldest data file emptied": (  # going back would lose all that came later
        lambda s: files(s, "data")[0].write_bytes(b""),
        [*make_rows(3, start=10), *make_rows(3, start=13, salt=1)],
        {f"row {number}": "is lost with a damaged file" for number in range(10) if number != 1},
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_repaired_on_opening_and_what_it_took_along_is_named(damage, written, tmp_path):
    break_it, left, lost = DAMAGE[damage]
    shutil.copytree(written, tmp_path / "s")
    break_it(tmp_path / "s")
    with pytest.warns(UserWarning, match=rf"was damaged: {len(lost)} row\(s\) are lost or came back, such as row \d+: (was|is) "):
        store = LanceStore(tmp_path / "s")
    assert_holds(store, left)
    assert_finds(store, left)
    told = {failure.item: failure.reason for failure in store.verify()}
    assert told.keys() == lost.keys() and all(told[id_].startswith(reason) for id_, reason in lost.items()), told
    store.close()
    with pytest.warns(UserWarning, match="was damaged"):  # again and again, until the rows are stored, or nobody wants them
        store = LanceStore(tmp_path / "s")
    again = [*make_rows(13), *make_rows(3, start=13, salt=1)]
    store.upsert(again[2:])
    store.delete(["row 0", "row 1"])
    assert store.verify() == []
    store.close()
    store = LanceStore(tmp_path / "s")
    assert_holds(store, again[2:])
    store.optimize()
    assert_finds(store, again[2:])
    store.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda s: [file.write_bytes(b"") for file in manifests(s)], "No version of .* can be read"),
        (lambda s: (s / "journal.sqlite").write_bytes(b""), r"journal\.sqlite is damaged \(it is empty\)"),
        (lambda s: os.truncate(s / "journal.sqlite", 8192), r"journal\.sqlite is damaged"),
        (lambda s: (s / "journal.sqlite").unlink(), r"holds rows but no journal\.sqlite"),
    ],
)
def test_what_cannot_be_repaired_is_told_and_left_alone(damage, message, written, tmp_path):
    shutil.copytree(written, tmp_path / "s")
    damage(tmp_path / "s")
    rows = {file.name: file.read_bytes() for file in files(tmp_path / "s", "data")}
    for _ in range(2):
        with pytest.raises(StoreCorruptError, match=message):
            LanceStore(tmp_path / "s", METADATA)
    assert {file.name: file.read_bytes() for file in files(tmp_path / "s", "data")} == rows


def test_a_version_that_was_never_journalled_does_not_count(written, tmp_path):
    """Neither where it is whole, nor where a power cut left an empty file of it."""
    shutil.copytree(written, tmp_path / "s")
    newest = manifests(tmp_path / "s")[0]
    unfinished = newest.with_name(f"{int(newest.stem) - 1}.manifest")
    left = [*BEFORE_LAST[:-2], *make_rows(3, start=13, salt=1)]
    for content in (b"", newest.read_bytes()):
        unfinished.write_bytes(content)
        store = LanceStore(tmp_path / "s")
        assert_holds(store, left)
        store.upsert(left[:1])
        assert_holds(store, left)
        store.close()
        newest = manifests(tmp_path / "s")[0]
        unfinished = newest.with_name(f"{int(newest.stem) - 1}.manifest")


def test_a_flipped_bit_is_told_by_the_rows_of_its_file_and_repaired_when_asked(written, tmp_path):
    shutil.copytree(written, tmp_path / "s")
    file = files(tmp_path / "s", "data")[1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    store = LanceStore(tmp_path / "s")
    assert {failure.item for failure in store.verify()} == {"row 10", "row 11", "row 12"}
    assert all("call repair(), then store the item again" in failure.reason for failure in store.verify())
    with pytest.raises(StoreCorruptError, match="is not what was written"):
        store.optimize()
    with pytest.warns(UserWarning, match="3 row"):
        store.repair()
    left = [*(row for row in make_rows(10) if row.id != "row 1"), *make_rows(3, start=13, salt=1)]
    assert_holds(store, left)
    store.upsert(make_rows(3, start=10))
    store.optimize()
    assert store.verify() == []
    assert_finds(store, [*left, *make_rows(3, start=10)])
    store.close()


# --- disks ------------------------------------------------------------------------------------------------------------------


def on_disk(told: dict[str, Any], kind: str) -> list[list[str]]:
    """Names and messages of the errors on a kind of disk."""
    if kind not in told:
        pytest.skip("this system lets no process mount a disk of its own")
    assert isinstance(told[kind], list), told[kind]
    return told[kind]


@pytest.mark.process
def test_a_full_disk_leaves_what_was_good_and_is_said_in_one_sentence(told):
    errors = on_disk(told, "full")
    assert errors[0][0] == "DiskFullError" and "No room left on the disk while writing" in errors[0][1]
    assert len(errors) == 3 and all(kind in ("DiskFullError", "OutputError") for kind, _ in errors), errors


@pytest.mark.process
def test_a_read_only_folder_is_read_and_refused_for_writing(told):
    """Also with a commit that is only written ahead; where it is damaged, it says why it is not repaired."""
    errors = on_disk(told, "read_only")
    assert [kind for kind, _ in errors] == ["OutputError", "OutputError", "StoreCorruptError"]
    assert all("Read-only file system" in message for _, message in errors) and "cannot be repaired now" in errors[2][1]


def test_a_disk_that_refuses_a_write_leaves_what_was_there(tmp_path):
    """The folder of the data files is gone, as when a disk is pulled out; the next write finds it again."""
    store = LanceStore(tmp_path / "s", METADATA)
    store.upsert(make_rows(5))
    data = tmp_path / "s/rows.lance/data"
    data.rename(tmp_path / "elsewhere")
    data.touch()
    with pytest.raises(OutputError, match=r"Cannot write \S+: "):
        store.upsert(make_rows(5, start=5))
    data.unlink()
    (tmp_path / "elsewhere").rename(data)
    assert_holds(store, make_rows(5))
    store.upsert(make_rows(5, start=5))
    assert_holds(store, make_rows(10))
    assert store.verify() == []
    store.close()
