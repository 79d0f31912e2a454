"""Reading annotation files, and the folder where images that have no file of their own are cached."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from slq.cache.records import RecordStore, bytes_codec
from slq.data import tables
from slq.data.tables import Row, read_rows
from slq.errors import DataError, InputError

_SPLIT = re.compile(r"(train|restval|validation|val|dev|test)[^/]*$")


def read_json(path: Path, kind: type, advice: str) -> Any:
    """The content of a JSON file that must be a list or an object with entries.

    Args:
        path: of the file.
        kind: `list` or `dict`.
        advice: what to do if it is missing.

    Raises:
        DataError: if it is missing or holds something else.
    """
    content = tables.read_json(path, advice, "fetch the file again")
    if not isinstance(content, kind) or not content:
        wanted = "a list of entries" if kind is list else "an object with entries"
        raise DataError(f"{path} does not hold {wanted}; fetch the file again")
    return content


def field(entry: object, name: str, kind: type, where: str) -> Any:
    """A field of an annotation.

    Args:
        entry: the annotation.
        name: of the field.
        kind: type of its value: text, list, object or whole number.
        where: file and entry, for the message.

    Raises:
        DataError: if it is missing, empty or of another kind.
    """
    value = entry.get(name) if isinstance(entry, Mapping) else None
    if not isinstance(value, kind) or isinstance(value, bool) or value in ("", [], {}):
        wanted = {str: "a text", list: "a list", dict: "an object", int: "a whole number"}[kind]
        raise DataError(f"{where}: {name!r} must be {wanted}, not {_short(value)}; check that the file is the benchmark's own")
    return value


def texts(entry: object, name: str, where: str) -> list[str]:
    """A field of an annotation that holds texts.

    Args:
        entry: the annotation.
        name: of the field.
        where: file and entry, for the message.

    Raises:
        DataError: if it is missing, empty or holds something else.
    """
    values = field(entry, name, list, where)
    if not all(isinstance(value, str) for value in values):
        raise DataError(f"{where}: {name!r} must hold texts alone, not {_short(values)}; check that the file is the benchmark's own")
    return values


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) < 80 else f"{shown[:80]}..."


def good_rows(path: Path) -> Iterator[tuple[str, Row]]:
    """The rows of a table; a broken one is raised, since a benchmark with a row less is another benchmark.

    Args:
        path: of a table.

    Raises:
        DataError: for the first row that is broken.
    """
    for source, row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        yield source, row


def tables_of(folder: Path, split: str, suffixes: Sequence[str] = (".parquet",)) -> list[Path]:
    """The tables of one split in a folder or its `data` folder, as the hub lays them out; empty if it holds no tables.

    A split is told by the file's name (`test-00000-of-00002.parquet`); where no name tells one, every table is meant. Raises
    DataError if there are tables of other splits alone.

    Args:
        folder: of a local copy.
        split: such as `test`.
        suffixes: of tables.
    """
    found = sorted(file for suffix in suffixes for place in (folder, folder / "data") for file in place.glob(f"*{suffix}"))
    splits = {file: match[1] for file in found if (match := _SPLIT.match(file.stem))}
    if not splits:
        return found
    chosen = [file for file, name in splits.items() if name == split]
    if not chosen:
        names = ", ".join(sorted(set(splits.values())))
        raise DataError(f"{folder} holds no table of the split {split!r}, only of {names}; fetch {split}-*.parquet")
    return chosen


def digest(files: Iterable[Path]) -> str:
    """`sha256:...` over the annotation files that were read: what names a local copy.

    Args:
        files: in an order that is always the same.
    """
    total = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            total.update(hashlib.file_digest(stream, "sha256").digest())
    return f"sha256:{total.hexdigest()[:16]}"


def refuse(name: str, prompts: bool, revision: str | None) -> None:
    """Refuse what a benchmark does not have.

    Args:
        name: of the benchmark.
        prompts: whether prompts are asked for.
        revision: the commit that is asked for; None for the newest.

    Raises:
        InputError: for prompts, or a revision.
    """
    if prompts:
        raise InputError(f"the benchmark {name!r} has no prompts; leave them out")
    if revision is not None:
        raise InputError(f"the benchmark {name!r} has no revisions on the hub; leave out the revision {revision!r}")


def cache_folder() -> Path:
    """Where images are cached that come inside a table or an archive or are rendered: the user's cache folder, in slq/benchmarks."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slq" / "benchmarks"


def cached_file(kind: str, key: str, suffix: str, make: Callable[[], bytes]) -> Path:
    """A file in that folder, made if it is not there yet.

    Args:
        kind: subfolder.
        key: tells the content.
        suffix: of the file's name.
        make: gives the content.

    Raises:
        OutputError: if it cannot be written.
    """
    store = _store(cache_folder() / kind, suffix)
    path = store.path(key) or store.put(key, make())
    assert path is not None  # a required store raises instead
    return path


@lru_cache
def _store(folder: Path, suffix: str) -> RecordStore[bytes]:
    return RecordStore(folder, bytes_codec(suffix), required=True)
