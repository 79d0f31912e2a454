"""A process that indexes is killed between any two of its steps; the next run goes on, loses nothing, and encodes nothing twice.

Every kill is of a fork of one small process, which has imported all that is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from stand_in_encoder import Indexed, counted

from slq.types import Item

pytestmark = pytest.mark.process
SCRIPT = """
import json, os, sys
from pathlib import Path
import slq.index.updating
from stand_in_encoder import Indexed, StandInEncoder

slq.index.updating.MOST_INPUTS = 2
for line in sys.stdin:
    folder, at, options, fingerprint, paths = json.loads(line)
    process = os.fork()
    if not process:
        os.environ["SLQ_CRASH_AT"] = at
        c = Indexed(Path(folder))
        encoder = StandInEncoder(fingerprint)
        log = os.open(c.path / "encoded.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        encode = encoder.encode
        def logged(items, ids, *more, **options):
            found = encode(items, ids, *more, **options)
            os.write(log, "".join(id_ + chr(10) for id_ in found.ids).encode())
            return found
        encoder.encode = logged
        c.index(*map(Path, paths), by=encoder, **options)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""


class Child:
    """Runs indexing in forks of another process, each of which ends at a crash point, if it gets there."""

    def __init__(self) -> None:
        tests = Path(__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])}
        self.process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def was_killed(self, c: Indexed, at: str, *paths: Path, fingerprint: str = "stand-in", **options) -> bool:
        assert self.process.stdin is not None and self.process.stdout is not None
        task = [str(c.path), at, options, fingerprint, list(map(str, paths))]
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        assert code in (0, -9), code
        return code == -9


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.process.communicate(timeout=60)
    assert child.process.returncode == 0


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> Indexed:
    """A collection whose photos have changed since it was indexed: some in every way there is."""
    c = Indexed(tmp_path_factory.mktemp("before"))
    for name in "abcdefg":
        c.photos.write(f"{name}.jpg", name)
    c.index(c.photos.path)
    for name, content in {"a": "other a", "b": "bad b", "n": "n", "o": "o", "p": "a"}.items():
        c.photos.write(f"{name}.jpg", content)
    c.photos.file("c.jpg").rename(c.photos.file("q.jpg"))
    for name in "dg":
        c.photos.file(f"{name}.jpg").unlink()
    return c


AFTER = {"a": "other a", "e": "e", "f": "f", "n": "n", "o": "o", "p": "a", "q": "c"}


def copied(before: Indexed, folder: Path) -> Indexed:
    """Its copy, with the times of its files but other inodes, so that all are read again."""
    shutil.copytree(before.path, folder)
    return Indexed(folder)


def encoded(c: Indexed) -> Counter[str]:
    """How often each content was encoded, in all processes; not counting the one that cannot be."""
    file = c.path / "encoded.txt"
    bad = Item(image=c.photos.file("b.jpg")).content_hash
    times = Counter(file.read_text().split() if file.exists() else []) + Counter(c.encoder.encoded)
    return Counter({content: count for content, count in times.items() if content != bad})


@pytest.mark.parametrize(
    ("at", "least", "most_encoded"),
    [
        ("index.begun", 3, 2),
        ("store.vectors", 3, 2),
        ("index.stored", 3, 1),
        ("index.removed", 1, 1),
        ("index.committed", 4, 1),
        ("index.deleted", 1, 1),
    ],
)
def test_a_kill_between_any_two_steps(at, least, most_encoded, before, child, memory_path):
    for time in range(1, 99):
        c = copied(before, memory_path / str(time))
        if not child.was_killed(c, f"{at}:{time}"):
            break
        c.index()
        assert c.holds(**AFTER), f"{at}:{time}"
        assert max(encoded(c).values()) <= most_encoded, f"{at}:{time}: a content was encoded more than {most_encoded} time(s)"
    assert time > least, "it was not killed so often"


def test_an_input_that_vanishes_after_a_kill_leaves_no_row(before, child, memory_path):
    for time in range(1, 99):
        c = copied(before, memory_path / str(time))
        if not child.was_killed(c, f"index.stored:{time}"):
            break
        for name in ("n", "o", "a"):
            c.photos.file(f"{name}.jpg").unlink()
        c.index()
        assert c.holds(**{name: content for name, content in AFTER.items() if name not in "noa"}), time
    assert time > 3


def test_a_row_that_was_deleted_comes_back_with_its_file(before, child, memory_path):
    c = copied(before, memory_path / "c")
    assert child.was_killed(c, "index.deleted")
    c.photos.write("d.jpg", "d")
    assert counted(c.index())["new"] == 1 and c.holds(**AFTER, d="d")


def test_a_kill_while_a_collection_is_made(child, memory_path):
    for at in ("index.making", "file.written", "file.replaced", "file.written:2", "file.replaced:3", "index.begun", "index.stored"):
        c = Indexed(memory_path / at)
        c.photos.write("a.jpg", "a")
        c.photos.write("b.jpg", "b")
        assert child.was_killed(c, at, c.photos.path), at
        c.index(c.photos.path)
        assert c.holds(a="a", b="b"), at


def test_a_journal_that_is_lost_is_made_again_from_the_rows(before, memory_path):
    c = copied(before, memory_path / "c")
    c.index()
    for file in (c.path / "c").glob("journal-*"):
        file.unlink()
    before_it_was_lost = encoded(c)
    assert counted(c.index(c.photos.path)) == {"unchanged": 7, "failed": 1} and encoded(c) == before_it_was_lost
