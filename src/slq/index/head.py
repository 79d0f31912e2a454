"""The folder of a collection: which files are in it, which of them count, and that it is a collection at all.

collection.json      what the rows are, and which generation counts
journal-N.sqlite     the journal of a generation, see `slq.index.journal`
rows-N               the store of a generation
building.json        what the next generation is to be, while another model encodes everything again beside the rows that count
judge.json           what the model is asked about hits, and which are kept, see `slq.index.judge_file`
lock                 held by the process that writes
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from slq.errors import StoreCorruptError, StoreError
from slq.index.judge_file import is_judge_file
from slq.index.lock import LOCK_FILE
from slq.index.logfile import checksum_of
from slq.index.store import Store, StoreMetadata, open_store
from slq.io.disk import sync
from slq.io.files import is_sibling, load_json, map_os_errors, remove, write_json

FORMAT, KIND = 1, "slq collection"
HEAD_FILE, BUILDING_FILE, JUDGE_FILE = "collection.json", "building.json", "judge.json"
_OF_GENERATION = re.compile(r"(?:rows-(\d+)|journal-(\d+)\.sqlite(?:-wal|-shm|-journal)?)")


@dataclass(frozen=True)
class Head:
    """What collection.json holds.

    Attributes:
        store: kind of the store, a name in the registry `slq.stores`.
        model: what encoded the rows, as a user names it; None where an object in Python did.
        fingerprint: of the encoder.
        dim: values of a vector.
        options: how the model is loaded, beside its name.
        generation: of the files that count.
    """

    store: str
    model: str | None
    fingerprint: str
    dim: int
    options: Mapping[str, Any] = field(default_factory=dict)
    generation: int = 0

    @property
    def metadata(self) -> StoreMetadata:
        """What the store is told."""
        return StoreMetadata(self.model or "an encoder in Python", self.fingerprint, self.dim)


@dataclass(frozen=True)
class Layout:
    """The files of a collection.

    Attributes:
        folder: of the collection.
    """

    folder: Path

    @property
    def head_file(self) -> Path:
        """What says that the folder is a collection."""
        return self.folder / HEAD_FILE

    @property
    def building_file(self) -> Path:
        """What the next generation is to be."""
        return self.folder / BUILDING_FILE

    @property
    def judge_file(self) -> Path:
        """How hits are judged."""
        return self.folder / JUDGE_FILE

    def journal(self, generation: int) -> Path:
        """The journal of a generation.

        Args:
            generation: its number.
        """
        return self.folder / f"journal-{generation}.sqlite"

    def rows(self, generation: int) -> Path:
        """The folder of a generation's store.

        Args:
            generation: its number.
        """
        return self.folder / f"rows-{generation}"

    def files_of(self, generation: int) -> list[Path]:
        """What there is of a generation.

        Args:
            generation: its number.
        """
        return [file for file, number in self._generations() if number == generation]

    def make(self) -> bool:
        """Make the folder, if it is not there.

        Returns:
            Whether it was not.

        Raises:
            StoreError: if it holds something that is not of a collection.
            OutputError: if it cannot be made.
        """
        with map_os_errors(self.folder):
            is_new = not self.folder.is_dir()
            if is_new:
                self.folder.mkdir(parents=True)
                sync(self.folder.parent)
            others = [] if self.is_claimed else self.others()
        if others:
            raise StoreError(f"{self.folder} holds {others[0].name} but no {HEAD_FILE}: choose an empty folder for the collection.")
        return is_new

    @property
    def is_claimed(self) -> bool:
        """Whether the folder is a collection, or is about to become one."""
        return self.head_file.exists() or self.building_file.exists()

    def others(self) -> list[Path]:
        """What in the folder is not of the collection, by name."""
        own = {HEAD_FILE, BUILDING_FILE, LOCK_FILE, *([JUDGE_FILE] if is_judge_file(self.judge_file) else [])}
        generations = {file for file, _ in self._generations()} if self.is_claimed else set()
        names = sorted(self.folder.iterdir())
        return [each for each in names if each.is_symlink() or not (each.name in own or is_sibling(each.name) or each in generations)]

    def remove_generations(self, *, keep: int | None = None, below: int | None = None) -> None:
        """Remove the files of generations, and nothing else. Links are not followed.

        Args:
            keep: all but this one.
            below: only those with a smaller number.
        """
        for file, number in self._generations():
            if number != keep and (below is None or number < below) and not file.is_symlink():
                remove(file)

    def numbers(self) -> list[int]:
        """The generations of which there are files."""
        return sorted({number for _, number in self._generations()})

    def num_bytes(self, generation: int) -> int:
        """What a generation takes on the disk.

        Args:
            generation: its number.
        """
        return sum(_num_bytes(file) for file in self.files_of(generation))

    def _generations(self) -> list[tuple[Path, int]]:
        """What there is of generations, with their numbers."""
        matches = [(file, _OF_GENERATION.fullmatch(file.name)) for file in sorted(self.folder.iterdir())]
        return [(file, int(match[1] or match[2])) for file, match in matches if match]


def read_head(file: Path) -> Head:
    """Read collection.json.

    Args:
        file: its path.

    Raises:
        StoreError: if it is not there, or of another version.
        StoreCorruptError: if it is damaged.
    """
    try:
        content = load_json(file, 2**20)
        if content.pop("checksum") != checksum_of(content) or content.pop("kind") != KIND:
            raise ValueError("its checksum is wrong")
        version, generation = content.pop("format"), content["generation"]
        if version == FORMAT and isinstance(generation, int):
            return Head(**content)
    except FileNotFoundError:
        raise StoreError(f"{file.parent} is no collection: it has no {file.name}; make one with slq index PATH -c {file.parent}.") from None
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror}): check its path and permissions.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptError(f"{file} is damaged ({error}): restore it, or index the same paths into another folder.") from error
    raise StoreError(f"{file.parent} has the format {version}, but this slq reads {FORMAT}: use another version of slq.")


def write_head(file: Path, head: Head) -> None:
    """Write collection.json, or building.json, whole or not at all.

    Args:
        file: its path.
        head: what it says.

    Raises:
        OutputError: if it cannot be written.
    """
    content = {"kind": KIND, "format": FORMAT, **asdict(head)}
    write_json(file, {**content, "checksum": checksum_of(content)})


def open_rows(layout: Layout, head: Head, make: bool = False) -> Store:
    """The store of a generation.

    Args:
        layout: of the collection.
        head: of the generation.
        make: whether one is made if there is none.

    Raises:
        StoreError: if there is none, or it cannot be opened.
        StoreCorruptError: if it is not the one that collection.json is about.
    """
    store = open_store(f"{head.store}:{layout.rows(head.generation)}", head.metadata if make else None)
    if (store.metadata.fingerprint, store.metadata.dim) != (head.fingerprint, head.dim):
        store.close()
        raise StoreCorruptError(f"The rows of {layout.folder} are not those that its collection.json is about: restore them, or --rebuild.")
    return store


def remove_file(file: Path) -> None:
    """Remove a file, if it is there.

    Args:
        file: its path.

    Raises:
        OutputError: if the system refuses.
    """
    with map_os_errors(file), suppress(FileNotFoundError):
        file.unlink()


def _num_bytes(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size
    return sum(_num_bytes(each) for each in path.iterdir())
