"""The table of LanceDB: what is written and read, its files, and its errors as those of slq. It alone calls LanceDB."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

from slq.errors import DiskFullError, MissingExtraError, OutputError, SlqError, StoreCorruptError, StoreError
from slq.index.lance.rows import READ, encode_text, ids, schema, to_arrow
from slq.index.store import Row

TABLE = "rows"
TABLE_FOLDER = f"{TABLE}.lance"
_IO_THREADS = "LANCE_IO_THREADS"
_FULL = ("os error 28", "os error 122")  # no space left, quota exceeded
_INDEX = "vector_idx"
_PROBES, _REFINE, _MORE = 80, 10, 16  # partitions looked into; candidates compared by their vectors, a row wanted; rows beyond k
_MOST_SEGMENTS = 8  # of the index, each looked through by every search; with more it is made anew
_AT_ONCE = 10_000  # ids that one condition names
_MOST_PASSES = 5  # of optimising, until there is nothing left to do; the second does nothing as a rule
_ANY_AGE, _NO_AGE = timedelta(milliseconds=1), timedelta(days=365_000)  # of versions that are removed


def load_lancedb(location: Path) -> Any:
    """The library, imported when it is first needed.

    Args:
        location: of the store, for messages.

    Raises:
        MissingExtraError: if it is not installed.
        StoreError: if it would wait for ever, or cannot name the folder.
    """
    threads = os.environ.get(_IO_THREADS)
    if threads is not None and not (threads.isdecimal() and int(threads) >= 2):
        raise StoreError(
            f"{_IO_THREADS}={threads} would make LanceDB wait for ever while it writes {location}: set it to 2 or more, or unset it."
        )
    if encode_text(path := str(location.absolute())) != path:
        raise StoreError(f"LanceDB cannot use {path!a}, which is not UTF-8: choose another folder.")
    try:
        import lancedb
    except ImportError as error:
        raise MissingExtraError(f'The store in {location} needs LanceDB; run: pip install "slq[lance]"') from error
    return lancedb


@contextmanager
def reading(location: Path) -> Iterator[None]:
    """Turn an error of LanceDB while it reads into one sentence.

    Args:
        location: of the store.

    Raises:
        StoreCorruptError: for any of its errors.
    """
    try:
        yield
    except SlqError:
        raise
    except Exception as error:  # it raises RuntimeError, ValueError, OSError, and a class of its own where its own code failed
        raise StoreCorruptError(f"The table in {location} cannot be read ({_first_line(error)}): see what `verify()` says.") from error


@contextmanager
def writing(location: Path) -> Iterator[None]:
    """Turn an error of LanceDB while it writes into one sentence.

    Args:
        location: of the store.

    Raises:
        DiskFullError: if there is no room left.
        OutputError: for any other of its errors.
    """
    try:
        yield
    except SlqError:
        raise
    except Exception as error:
        if any(sign in str(error) for sign in _FULL):
            raise DiskFullError(f"No room left on the disk while writing {location}: free some space and run again.") from error
        raise OutputError(f"Cannot write {location}: {_first_line(error)}.") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


class Table:
    """The table at one version, or at the newest one, which can be changed.

    Args:
        location: the store's folder.
        dim: values of a vector.
        version: which one is read; None for the newest.
    """

    def __init__(self, location: Path, dim: int, version: int | None = None):
        lancedb = load_lancedb(location)
        self.location, self.dim = location, dim
        with reading(location):
            # A session of its own: manifests that an earlier one remembers may have been replaced since.
            self._connection = lancedb.connect(location.absolute(), session=lancedb.Session())
            self._open(version)

    def at(self, version: int) -> Table:
        """The table at another version, with what was read of it so far.

        Args:
            version: its number.
        """
        other = copy(self)
        with reading(self.location):
            other._open(version)
        return other

    @staticmethod
    def create(location: Path, dim: int) -> None:
        """Make an empty table.

        Args:
            location: the store's folder.
            dim: values of a vector.
        """
        lancedb = load_lancedb(location)
        with writing(location):
            lancedb.connect(location.absolute(), session=lancedb.Session()).create_table(TABLE, schema=schema(dim))

    def _open(self, version: int | None) -> None:
        self._table = self._connection.open_table(TABLE, version=version)
        self._is_indexed = any(index.name == _INDEX for index in self._table.list_indices())

    # --- reading ----------------------------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """The number of the version that is read."""
        return int(self._table.version)

    @property
    def is_indexed(self) -> bool:
        """Whether there is an index of the vectors."""
        return self._is_indexed

    def __len__(self) -> int:
        with reading(self.location):
            return int(self._table.count_rows())

    def batches(self, columns: Sequence[str], where: str | None = None, size: int = 8192) -> Iterator[Any]:
        """Rows as Arrow batches.

        Args:
            columns: that are read.
            where: a condition that slq made, without a word of a user.
            size: rows of a batch, at most.
        """
        with reading(self.location):
            query = self._table.search().select(list(columns))
            for batch in (query if where is None else query.where(where)).to_batches(batch_size=size):
                for start in range(0, batch.num_rows, size):
                    yield batch.slice(start, size)

    def batches_of(self, wanted: Sequence[str], columns: Sequence[str]) -> Iterator[Any]:
        """The rows of these ids as Arrow batches.

        Args:
            wanted: ids.
            columns: that are read.
        """
        with reading(self.location):
            for condition in self._named(wanted):
                yield from self._table.search().select(list(columns)).where(condition).to_batches()

    def nearest(self, query_D: np.ndarray, k: int, where: str | None) -> Any:
        """Rows that the index finds, more than k of them.

        Args:
            query_D: what is searched for.
            k: how many are wanted.
            where: a condition that slq made.
        """
        with reading(self.location):
            query = self._table.search(query_D).distance_type("dot").nprobes(_PROBES).refine_factor(_REFINE).limit(k + _MORE)
            return (query if where is None else query.where(where, prefilter=True)).select([*READ, "_distance"]).to_arrow()

    # --- writing ----------------------------------------------------------------------------------------------------------

    def merge(self, rows: Sequence[Row], written: int) -> None:
        """Store rows in place of those that have their ids.

        Args:
            rows: with different ids.
            written: number of the commit.
        """
        with writing(self.location):
            merge = self._table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            merge.execute(to_arrow(rows, written, self.dim))

    def present(self, wanted: Sequence[str]) -> list[str]:
        """Those of these ids that have a row.

        Args:
            wanted: ids.
        """
        there = {id_ for batch in self.batches_of(wanted, ["id"]) for id_ in ids(batch)}
        return [id_ for id_ in dict.fromkeys(wanted) if id_ in there]

    def delete(self, wanted: Sequence[str]) -> None:
        """Remove rows.

        Args:
            wanted: their ids.
        """
        with writing(self.location):
            for condition in self._named(wanted):
                self._table.delete(condition)

    def delete_fragments(self, numbers: Sequence[int]) -> None:
        """Remove all rows of fragments, without reading them.

        Args:
            numbers: of the fragments.
        """
        with writing(self.location):
            for number in numbers:
                self._table.delete(addresses(number))

    def compact(self, train_from: int) -> bool:
        """Write small files together, and deleted rows no more; bring the index up to date. Old versions stay.

        Args:
            train_from: rows with which vectors get an index.

        Returns:
            Whether nothing is left to do, without which `remove_old_versions` would make another version.
        """
        with writing(self.location):
            if len(self) < train_from:
                self._drop_index()
            elif not self._is_indexed or self._table.index_stats(_INDEX).num_indices > _MOST_SEGMENTS:
                self._train()
            for _ in range(_MOST_PASSES):
                before = self.version
                self._table.optimize(cleanup_older_than=_NO_AGE)
                if self.version == before:
                    return True
            return False

    def remove_old_versions(self) -> None:
        """Remove every version but this one, and files of none, once `compact` has left nothing to do."""
        with writing(self.location):
            self._table.optimize(cleanup_older_than=_ANY_AGE, delete_unverified=True)

    def drop_index(self) -> None:
        """Do without the index, which is made anew when the table is optimised."""
        with writing(self.location):
            self._drop_index()

    def _train(self) -> None:
        from lancedb.index import IvfSq

        partitions = max(1, round(len(self) ** 0.5))
        self._table.create_index("vector", config=IvfSq(distance_type="dot", num_partitions=partitions), name=_INDEX, replace=True)
        self._is_indexed = True

    def _drop_index(self) -> None:
        if self._is_indexed:
            self._table.drop_index(_INDEX)
            self._is_indexed = False

    def _named(self, wanted: Sequence[str]) -> Iterator[Any]:
        """Conditions that hold for rows of these ids: expressions, in which a text is a value and no SQL."""
        from lancedb.expr import col

        encoded = [encode_text(id_) or "" for id_ in dict.fromkeys(wanted)]
        for start in range(0, len(encoded), _AT_ONCE):
            yield col("id").isin(encoded[start : start + _AT_ONCE])


def addresses(fragment: int) -> str:
    """The condition that holds for the rows of a fragment.

    Args:
        fragment: its number.
    """
    return f"_rowaddr >= {fragment << 32} and _rowaddr < {(fragment + 1) << 32}"
