"""An encoder that takes no time, for tests of what stands around a model: a vector is a hash of the bytes of an image, and of the text."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from slq.config import IndexConfig
from slq.errors import Failure
from slq.index.encoders import NamedEncoder
from slq.index.head import Layout, open_rows, read_head
from slq.index.indexing import update
from slq.index.journal import Journal
from slq.index.recovery import differences
from slq.index.run import UpdateReport
from slq.index.store import Row
from slq.types import Embeddings, Item

DIM = 8


class StandInEncoder:
    """Notes the contents that it is asked for; what begins with `bad` cannot be encoded."""

    vector_shape = (DIM,)

    def __init__(self, fingerprint: str = "stand-in") -> None:
        self.fingerprint = fingerprint
        self.encoded: list[str] = []

    def encode(
        self,
        items: Sequence[Item],
        ids: Sequence[str] | None = None,
        batch_size: int = 32,
        on_error: str = "raise",
        progress: Callable[[int], None] = lambda count: None,
        workers: int | None = None,
    ) -> Embeddings:
        ids = ids or [str(number) for number in range(len(items))]
        vectors, failures = {}, []
        for id_, item in zip(ids, items, strict=True):
            content = b"" if item.image is None else item.image.read_bytes()
            self.encoded.append(id_)
            if content.startswith(b"bad"):
                failures.append(Failure(id_, "it cannot be decoded"))
            else:
                vectors[id_] = vector_of(content + (item.text or "").encode(), self.fingerprint)
        progress(len(items))
        stacked = np.stack(list(vectors.values())) if vectors else np.zeros((0, DIM), np.float32)
        return Embeddings(tuple(vectors), stacked, self.fingerprint, failures=tuple(failures))

    @property
    def named(self) -> NamedEncoder:
        return NamedEncoder(lambda: self, "stand-in")  # type: ignore[arg-type, return-value]


def vector_of(content: bytes, fingerprint: str = "stand-in") -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(content + fingerprint.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=DIM).astype(np.float32)
    return vector / np.linalg.norm(vector)


class Photos:
    """A folder of files that are taken for images; every write gets a time of change of its own, long ago."""

    def __init__(self, path: Path) -> None:
        self.path, self._clock = path, 10**18
        path.mkdir(parents=True, exist_ok=True)

    def write(self, name: str | bytes, content: str) -> Path:
        file = self.file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        self._clock += 10**9
        os.utime(file, ns=(self._clock, self._clock))
        return file

    def file(self, name: str | bytes) -> Path:
        return self.path / os.fsdecode(name)


class Indexed:
    """A folder with a collection `c`, brought up to date by a stand-in."""

    def __init__(self, path: Path) -> None:
        self.path, self.encoder = path, StandInEncoder()
        self.photos = Photos(path / "photos")

    def index(self, *paths: Path, by: StandInEncoder | None = None, **options: Any) -> UpdateReport:
        config = IndexConfig(paths=paths, collection=self.path / "c", **options)
        return update(self.path / "c", config, (by or self.encoder).named)

    def counted(self, *paths: Path, **options: Any) -> dict[str, int]:
        """The counts of a run that are not 0."""
        return counted(self.index(*paths, **options))

    def rows(self) -> dict[str, Row]:
        """What the store holds; the journal must agree."""
        layout = Layout(self.path / "c")
        head = read_head(layout.head_file)
        with closing(open_rows(layout, head)) as store, closing(Journal(layout.journal(head.generation))) as journal:
            assert differences(journal, store) == [] and journal.pending() == [] and store.verify() == []
            return {row.id: row for batch in store.scan() for row in batch}

    def holds(self, **contents: str) -> bool:
        """Whether the rows are these, named without `.jpg`, of photos."""
        found = self.rows()
        assert sorted(found) == sorted(f"photos/{name}.jpg" for name in contents)
        return all(np.array_equal(found[f"photos/{name}.jpg"].vector, vector_of(content.encode())) for name, content in contents.items())


def counted(report: UpdateReport) -> dict[str, int]:
    """The counts that are not 0."""
    return {name: value for name, value in asdict(report.counts).items() if value and name != "failures"}
