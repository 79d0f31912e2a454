"""A collection: images and texts that are indexed, kept up to date with their sources, and searched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from slq.config import IndexConfig, SearchConfig, from_values
from slq.errors import Failure, OutputError, StoreError
from slq.index.encoders import named_encoder
from slq.index.export import Precision, file_format, save_vectors
from slq.index.filters import Filter
from slq.index.head import Head, Layout, open_rows, read_head, remove_file
from slq.index.ids import printable, row_id, unprintable
from slq.index.indexing import update, writing
from slq.index.journal import Journal
from slq.index.judge_file import is_judge_file
from slq.index.recovery import differences
from slq.index.refining import find
from slq.index.run import UpdateReport
from slq.index.searching import Query, SearchResult
from slq.index.sources import Places
from slq.index.store import Hit, Row, Store, StoreMetadata
from slq.index.words import find as find_words
from slq.io.outputs import check_output_file
from slq.types import Embeddings

if TYPE_CHECKING:
    from slq.encoders.base import Encoder


class Collection:
    """A folder of rows, the journal of their inputs, and the model that they are of.

    Attributes:
        folder: of the collection.

    Example:
        photos = slq.open_collection("photos-index", model="my-adapter")
        photos.index("photos")
        for hit in photos.search("a beach at sunset", top_k=5).hits:
            print(hit.score, hit.image)
    """

    def __init__(self, folder: str | os.PathLike[str], model: Any = None):
        """Open nothing yet.

        Args:
            folder: of the collection; `index` makes it.
            model: the name of an adapter or base model, its options (`slq.config.ModelConfig`), an encoder, or what `slq.load` gives; None
                for the collection's own.
        """
        self.folder, self._model = Path(folder), model
        self._layout = Layout(self.folder)
        self._rows = CollectionRows(self._layout)
        self._encoder: Encoder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self._rows)

    def close(self) -> None:
        """Let go of files; the next call opens them again."""
        self._rows.close()

    @property
    def head(self) -> Head:
        """What the rows are.

        Raises:
            StoreError: if there is no collection.
        """
        return read_head(self._layout.head_file)

    @property
    def rows(self) -> CollectionRows:
        """What is searched; other processes may write meanwhile."""
        return self._rows

    # --- index and search -------------------------------------------------------------------------------------------------

    def index(self, *paths: str | os.PathLike[str], **options: Any) -> UpdateReport:
        """Bring the collection up to date with what these paths hold, and all that were named before.

        Args:
            *paths: folders of images, images, and tables; without any, those that were named before.
            **options: fields of `slq.config.IndexConfig`, such as `retry_failed=True`.

        Returns:
            What has been done.

        Raises:
            ConfigError: for an option that there is not.
            SlqError: see `slq.index.indexing.update`.
        """
        given = {**options, "paths": tuple(Path(path) for path in paths), "collection": self.folder}
        return self.update(from_values(IndexConfig, given))

    def update(self, config: IndexConfig) -> UpdateReport:
        """As `index`, of options as they are.

        Args:
            config: what is indexed, and how.
        """
        head = self.head if self._layout.head_file.exists() else None
        named = named_encoder(self._model, self.folder, head)
        return update(self.folder, config, replace(named, load=self._cached(named.load)))

    def search(
        self,
        text: str | Sequence[str] = (),
        *,
        image: Any = (),
        like: str | Sequence[str] = (),
        **options: Any,
    ) -> SearchResult:
        """Search by texts, images, both, or rows.

        Args:
            text: one or several; one with one image is encoded together with it.
            image: paths of images, one or several.
            like: ids of rows, one or several.
            **options: fields of `slq.config.SearchConfig`: `exclude`, `weight`, `top_k`, `filter`, `exact`, `fold`, `fold_above`,
                `rewrite`, `rerank`, `judge`, `why`.

        Returns:
            The hits, best first.

        Raises:
            ConfigError: for an option that there is not, or nothing to look for.
            InputError: see `slq.index.searching.search`, like the other errors.
        """
        given = {**options, "text": text, "image": image, "like": like, "collection": self.folder}
        return self.find(Query.of(from_values(SearchConfig, given)))

    def find(self, query: Query) -> SearchResult:
        """As `search`, of a query as it is.

        Args:
            query: what is looked for.
        """
        return find(self._rows, query, self._load)

    def _load(self) -> Encoder:
        return self._cached(named_encoder(self._model, self.folder, self.head).load)()

    def _cached(self, load: Callable[[], Encoder]) -> Callable[[], Encoder]:
        def loaded() -> Encoder:
            if self._encoder is None:
                self._encoder = load()
            return self._encoder

        return loaded

    # --- the collection as a whole ----------------------------------------------------------------------------------------

    def failed(self) -> list[Failure]:
        """What could not be indexed, with the reasons."""
        with closing(self._journal()) as journal:
            return [Failure(row_id(source.label, line.name), line.reason or "") for source, line in journal.failed()]

    def info(self) -> dict[str, Any]:
        """What the collection is and holds, ready for JSON."""
        head, places = self.head, Places.of(self.folder)
        with closing(self._journal()) as journal:
            sources = [
                {
                    "label": source.label,
                    "path": printable(places.located(source.path)),
                    "kind": source.kind,
                    "options": dict(source.options),
                    "is_there": os.path.exists(places.located(source.path)),
                    **journal.counts(source.id),
                }
                for source in journal.sources()
            ]
            counts, last_run = journal.counts(), journal.fact("last_run")
        building = read_head(self._layout.building_file) if self._layout.building_file.exists() else head
        return {
            "folder": str(self.folder),
            "rows": len(self._rows),
            "failed": counts["failed"],
            "sources": sources,
            "model": head.model,
            "options": dict(head.options),
            "fingerprint": head.fingerprint,
            "dim": head.dim,
            "store": head.store,
            "bytes": self.num_bytes,
            "rebuilding_with": building.metadata.model if building.generation > head.generation else None,
            "last_run": last_run,
        }

    @property
    def num_bytes(self) -> int:
        """What the rows and their journal take on the disk."""
        return self._layout.num_bytes(self.head.generation)

    def verify(self) -> list[Failure]:
        """What is damaged, or differs between rows and journal; repairs nothing.

        Raises:
            StoreError: if there is no collection, or it cannot be opened.
        """
        with closing(self._journal()) as journal, closing(open_rows(self._layout, self.head)) as store:
            damage = [Failure(journal.file.name, reason) for reason in journal.damage()]
            found = list(store.verify())
            return [*damage, *found, *([] if damage else differences(journal, store))]

    def optimize(self) -> None:
        """Make searching fast and files small again; results stay.

        Raises:
            StoreLockedError: if another process writes to the collection.
            StoreCorruptError: if something is damaged.
            OutputError: if the disk refuses.
        """
        with writing(self._layout) as head:
            assert head is not None
            with closing(open_rows(self._layout, head)) as store:
                store.optimize()
            with closing(Journal(self._layout.journal(head.generation), writes=True)) as journal, journal.errors():
                journal.db.execute("VACUUM")

    def export(self, file: str | os.PathLike[str], precision: Precision = "float32", overwrite: bool = False) -> int:
        """Write all rows with their vectors into one file, for other tools.

        Args:
            file: ends in .npz, .parquet or .jsonl.
            precision: see `slq.index.export.save_vectors`.
            overwrite: whether a file that is there is replaced.

        Returns:
            How many rows were written.

        Raises:
            InputError: for another ending.
            OutputError: if it cannot be written.
        """
        file = Path(file)
        if file_format(file) is not None:
            check_output_file(file, [self.folder], overwrite=overwrite)
        rows = sorted((row for batch in self._rows.scan() for row in batch), key=lambda row: row.id)
        vectors = np.stack([row.vector for row in rows]) if rows else np.zeros((0, self.head.dim), np.float32)
        known = tuple(_known(row, self._rows) for row in rows)
        save_vectors(Embeddings(tuple(row.id for row in rows), vectors, self.head.fingerprint, known), file, precision, overwrite)
        return len(rows)

    def delete(self) -> list[Path]:
        """Remove the collection's own files, and its folder if nothing else is in it. The sources stay as they are.

        Returns:
            What stays in the folder, since the collection did not make it.

        Raises:
            StoreError: if the folder is no collection.
            StoreLockedError: if another process writes to it.
            OutputError: if the system refuses.
        """
        self.close()
        with writing(self._layout):
            others = self._layout.others()
            self._layout.remove_generations()
            if left := [file for number in self._layout.numbers() for file in self._layout.files_of(number) if file not in others]:
                raise OutputError(f"{left[0]} cannot be removed: check its permissions, and delete again.")
            if is_judge_file(self._layout.judge_file):
                remove_file(self._layout.judge_file)
            remove_file(self._layout.building_file)
            remove_file(self._layout.head_file)  # last: until then it can be deleted again
        with suppress(OSError):
            self.folder.rmdir()
        return others

    def _journal(self) -> Journal:
        return Journal(self._layout.journal(self.head.generation))


class CollectionRows:
    """The rows of a collection for those who read: always of the generation that counts. See `slq.index.searching.Searchable`."""

    def __init__(self, layout: Layout):
        """Open nothing yet.

        Args:
            layout: of the collection.
        """
        self._layout, self._places = layout, Places.of(layout.folder)
        self._head: Head | None = None
        self._store: Store | None = None
        self.place, self.judge_file = str(layout.folder), layout.judge_file

    @property
    def metadata(self) -> StoreMetadata:
        """What its vectors are."""
        return self._current().metadata

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there; see `Store.get`."""
        return self._read(lambda store: store.get(ids))

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k best rows for each query; see `Store.search`."""
        return self._read(lambda store: store.search(vectors_QD, k, filter=filter, exact=exact))

    def by_words(self, text: str, count: int) -> list[str]:
        """The ids of the rows that have words of a text, best first; see `slq.index.words.find`.

        Args:
            text: whose words are looked for.
            count: how many, at most.

        Raises:
            StoreError: if an earlier slq has made the collection, and it was not indexed since.
        """
        with closing(Journal(self._layout.journal(read_head(self._layout.head_file).generation))) as journal, journal.errors():
            if not journal.has_words:
                raise StoreError(f"{self.place} knows no words yet: run slq index -c {self.place} once.")
            return find_words(journal.db, text, count)

    def scan(self) -> list[list[Row]]:
        """All rows, in batches; see `Store.scan`."""
        return self._read(lambda store: list(store.scan()))

    def __len__(self) -> int:
        return self._read(len)

    def image_path(self, image: str) -> str:
        """The whole path of an image, as a row names it.

        Args:
            image: of a row.
        """
        return os.fsdecode(self._places.located(unprintable(image)))

    def close(self) -> None:
        """Let go of files; the next call opens them again."""
        if self._store is not None:
            self._store.close()
        self._store = None

    def _current(self) -> Store:
        """The store of the generation that counts now."""
        head = read_head(self._layout.head_file)
        if self._store is None or self._head is None or head.generation != self._head.generation:
            self.close()
            self._head, self._store = head, open_rows(self._layout, head)
        return self._store

    def _read(self, read: Callable[[Store], Any]) -> Any:
        store, head = self._current(), self._head
        try:
            return read(store)
        except (StoreError, OSError):
            if self._current() is store or self._head == head:
                raise
            return read(self._current())  # the files were replaced meanwhile


def open_collection(folder: str | os.PathLike[str], model: Any = None) -> Collection:
    """Open a collection, or begin one.

    Args:
        folder: of the collection; `Collection.index` makes it.
        model: see `Collection`.

    Returns:
        The collection.

    Example:
        >>> import tempfile
        >>> with open_collection(tempfile.mkdtemp(), model="miniature") as collection:
        ...     collection.index()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        slq.errors.StoreError: ... is no collection yet: name what is to be indexed, slq index PATH -c ...
    """
    return Collection(folder, model)


def _known(row: Row, rows: CollectionRows) -> dict[str, Any]:
    """What is written of a row beside its vector."""
    told = {"text": row.text, "image": row.image and rows.image_path(row.image), "content_hash": row.content_hash}
    return {**{name: value for name, value in told.items() if value}, **({"metadata": dict(row.metadata)} if row.metadata else {})}
