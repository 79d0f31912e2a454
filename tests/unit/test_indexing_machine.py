"""Any series of operations on files and of runs, some of them killed: the rows are those that a dictionary of the files says."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule
from stand_in_encoder import Indexed, counted

import slq.index.exact
import slq.index.updating
from slq.errors import DataError, StoreError
from slq.index.exact import ExactStore
from slq.index.head import Layout
from slq.types import Item

NAMES = st.sampled_from(["a", "b", "c/d", "c/e", "c/f/g", "h"])
CONTENTS = st.sampled_from(["1", "2", "3", "bad 4", "bad 5"])
BAD = {Item(image=content).content_hash for content in (b"bad 4", b"bad 5")}
STEPS = ("index.begun", "index.stored", "index.removed", "index.committed", "index.deleted", "store.vectors", "store.logged")


IN_MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None  # where a disk is not waited for


class _Killed(BaseException):
    """In place of a kill of the process: nothing that follows a crash point is done."""


class Collection(RuleBasedStateMachine):
    """One folder of photos: `files` is what it holds, `rows` what a collection must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=IN_MEMORY))
        self.c = Indexed(self.folder)
        self.files: dict[str, str] = {}
        self.is_current = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(name=NAMES, content=CONTENTS)
    def write(self, name: str, content: str) -> None:
        self.c.photos.write(f"{name}.jpg", content)
        self.files[name] = content
        self.is_current = False

    @precondition(lambda self: self.files)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(sorted(self.files)))
        self.c.photos.file(f"{name}.jpg").unlink()
        del self.files[name]
        self.is_current = False

    @precondition(lambda self: self.files)
    @rule(data=st.data(), to=NAMES)
    def move(self, data: st.DataObject, to: str) -> None:
        name = data.draw(st.sampled_from(sorted(self.files)))
        self.c.photos.file(f"{to}.jpg").parent.mkdir(exist_ok=True, parents=True)
        self.c.photos.file(f"{name}.jpg").rename(self.c.photos.file(f"{to}.jpg"))
        self.files[to] = self.files.pop(name)
        self.is_current = False

    @rule(size=st.integers(1, 3), retry=st.booleans())
    def index(self, size: int, retry: bool) -> None:
        known, held = len(self.c.encoder.encoded), self._held()
        try:
            found = counted(self._run(size, retry_failed=retry, prune_missing=True))
        except DataError:
            assert not any(self._good(content) for content in self.files.values()), "something could have been indexed"
            return
        encoded = [content for content in self.c.encoder.encoded[known:] if content not in BAD]
        assert not held & set(encoded) and len(encoded) == len(set(encoded)), "a content was encoded again"
        good = [content for content in self.files.values() if self._good(content)]
        assert found.get("failed", 0) == len(self.files) - len(good)
        assert sum(found.get(kind, 0) for kind in ("new", "changed", "moved", "duplicates", "unchanged")) == len(good)
        assert self.c.holds(**{name: content for name, content in self.files.items() if self._good(content)})
        if self.is_current and not retry:
            assert set(found) <= {"unchanged", "failed"} and not encoded
        self.is_current = True

    @rule(size=st.integers(1, 2), step=st.sampled_from(STEPS), time=st.integers(1, 3))
    def kill(self, size: int, step: str, time: int) -> None:
        left = [time]

        def crash(name: str) -> None:
            left[0] -= name == step
            if not left[0]:
                raise _Killed

        before = {module: module.crash_point for module in (slq.index.updating, slq.index.exact)}
        try:
            for module in before:
                module.crash_point = crash
            self._run(size, prune_missing=True)
        except (_Killed, DataError):
            self.is_current = False
        finally:
            for module, function in before.items():
                module.crash_point = function

    def _held(self) -> set[str]:
        """The contents that the store has vectors of, whatever the journal says."""
        try:
            with closing(ExactStore(Layout(self.folder / "c").rows(0))) as store:
                return {row.content_hash for batch in store.scan() for row in batch}
        except StoreError:
            return set()

    def _run(self, size: int, **options):
        slq.index.updating.MOST_INPUTS = size
        self.c.photos.path.mkdir(exist_ok=True)
        paths = [] if (self.folder / "c" / "collection.json").exists() else [self.c.photos.path]
        return self.c.index(*paths, max_skipped=1, **options)

    @staticmethod
    def _good(content: str) -> bool:
        return not content.startswith("bad")


TestCollection = Collection.TestCase
TestCollection.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestCollection = pytest.mark.slow(TestCollection)
