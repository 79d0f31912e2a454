"""What a store of vectors is: rows with ids, found again by a query vector, under a filter. Every store keeps this contract.

`slq.testing.check_store` tries a store against all of it. Stores are found by name in the registry `slq.stores`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from slq.errors import Failure, FingerprintMismatchError, InputError
from slq.index.filters import COLUMNS, Filter, Scalar, is_scalar
from slq.registry import Registry

FORMAT = 1


@dataclass(frozen=True, eq=False)  # an array has no single truth value
class Row:
    """What is stored of one item.

    Attributes:
        id: names it; the same id is stored once.
        vector: (D,) float32.
        text: its text, if it has one.
        image: the path of its image, if it has one.
        metadata: what filters ask for, by name.
        content_hash: `Item.content_hash`, which tells an item that has changed.
    """

    id: str
    vector: np.ndarray
    text: str | None = None
    image: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    content_hash: str = ""


@dataclass(frozen=True)
class Hit:
    """One result.

    Attributes:
        id: of the row.
        score: the inner product, which is the cosine of vectors of length 1.
        text: the row's text, if it has one.
        image: the path of the row's image, if it has one.
        metadata: the row's metadata.
    """

    id: str
    score: float
    text: str | None = None
    image: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without what it lacks."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}


@dataclass(frozen=True)
class StoreMetadata:
    """What a store's vectors are.

    Attributes:
        model: the adapter or model that encoded them, as a user names it.
        fingerprint: of the encoder; vectors of another one are refused.
        dim: values of a vector.
        format: of the store's files.
    """

    model: str
    fingerprint: str
    dim: int
    format: int = FORMAT

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> StoreMetadata:
        """From `to_dict`.

        Args:
            values: what `to_dict` gave.

        Raises:
            InputError: if a value is missing or of another kind.
        """
        try:
            model, fingerprint, dim, version = (values[name] for name in ("model", "fingerprint", "dim", "format"))
        except (KeyError, TypeError) as error:
            raise InputError(f"the store's metadata lack {error}") from None
        if not (isinstance(model, str) and isinstance(fingerprint, str) and isinstance(dim, int) and dim > 0 and isinstance(version, int)):
            raise InputError(f"the store's metadata are not what they should be: {dict(values)}")
        return cls(model, fingerprint, dim, version)

    def check(self, wanted: StoreMetadata, place: str) -> None:
        """Refuse an encoder that did not make the store's vectors.

        Args:
            wanted: what is to be stored or searched for.
            place: the store, for the message.

        Raises:
            FingerprintMismatchError: if fingerprint or width differ.
        """
        if (self.fingerprint, self.dim) != (wanted.fingerprint, wanted.dim):
            raise FingerprintMismatchError(
                f"The vectors in {place} were made by {self.model} ({self.fingerprint}, {self.dim} values each), not by {wanted.model} "
                f"({wanted.fingerprint}, {wanted.dim} values): name that adapter, or encode the items again into another store."
            )


class Store(Protocol):
    """Rows by id, durable: `upsert` and `delete` return when the change would survive a power cut.

    One process writes at a time, and any number read beside it. A row is whole or absent, for readers too.

    Attributes:
        metadata: what its vectors are; checked when it is opened.
    """

    metadata: StoreMetadata

    def upsert(self, rows: Sequence[Row]) -> None:
        """Store rows, in place of those that have their ids; of rows with one id the last counts.

        Args:
            rows: all of them are stored, or none.

        Raises:
            InputError: if a row is not what it should be; see `check_rows`.
        """
        ...

    def delete(self, ids: Sequence[str]) -> int:
        """Remove rows.

        Args:
            ids: of rows; those that are not there do not matter.

        Returns:
            How many there were.
        """
        ...

    def get(self, ids: Sequence[str]) -> list[Row]:
        """The rows of these ids that are there, in the order of the ids.

        Args:
            ids: of rows.
        """
        ...

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """The k rows with the largest inner product for each query, best first, equal ones by id.

        Args:
            vectors_QD: (Q, D).
            k: how many results.
            filter: only rows that pass it; None for all.
            exact: compare every row.

        Raises:
            InputError: for vectors of another width, NaN, k < 1, or what is no filter.
        """
        ...

    def scan(self, batch_size: int = 1024) -> Iterator[list[Row]]:
        """All rows, in batches; those stored or removed meanwhile may or may not be among them.

        Args:
            batch_size: rows at a time, at most.
        """
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def verify(self) -> list[Failure]:
        """What is damaged; repairs nothing."""
        ...

    def optimize(self) -> None:
        """Make searching fast and files small again; results stay."""
        ...

    def close(self) -> None:
        """Let go of files and locks; a closed store is not used again."""
        ...


@runtime_checkable
class OpenStore(Protocol):
    """What a store is registered as: opens the one at a place."""

    def __call__(self, location: Path, metadata: StoreMetadata | None = None) -> Store:
        """Open a store, or make one.

        Args:
            location: its folder.
            metadata: makes a store where there is none, and must fit one that is there; None opens what is there.

        Raises:
            FingerprintMismatchError: if another encoder made its vectors.
            StoreError: if there is no store and no metadata, or it cannot be opened.
        """
        ...


stores: Registry[OpenStore] = Registry(
    "slq.stores", OpenStore, builtins={"exact": "slq.index.exact:ExactStore", "lance": "slq.index.lance:LanceStore"}
)


def open_store(address: str, metadata: StoreMetadata | None = None) -> Store:
    """Open a store by its address.

    Args:
        address: the kind of store and its folder, `exact:my-index`.
        metadata: what is to be stored or searched for; makes the store if there is none. None opens what is there.

    Returns:
        The store.

    Raises:
        InputError: if the address is not of this form, or its kind unknown.
        FingerprintMismatchError: if the store's vectors were made by another encoder.
        StoreError: if there is no store and no metadata to make one with, or it cannot be opened.
    """
    kind, found, location = address.partition(":")
    if not found or not location:
        raise InputError(f"{address!r} is not the address of a store; write its kind and its folder, such as exact:my-index")
    opens = stores.get(kind)
    with stores.naming_plugin(opens):
        return opens(Path(location), metadata)


def check_is_folder(folder: Path) -> None:
    """Refuse the address of a store where a folder of embeddings is asked for.

    Args:
        folder: what a user wrote.

    Raises:
        InputError: for `NAME:FOLDER` with the name of a store.
    """
    kind, found, location = str(folder).partition(":")
    if found and kind in stores and not folder.exists():
        raise InputError(
            f"{folder} is the address of a store, and a folder is asked for: leave out {kind}:, such as {location or 'my-index'}."
        )


def check_rows(rows: Sequence[Row], dim: int) -> None:
    """Refuse rows that a store cannot take, before any is written.

    Args:
        rows: what is to be stored.
        dim: values of a vector.

    Raises:
        InputError: naming the first row that is wrong.
    """
    for row in rows:
        if not isinstance(row.id, str) or not row.id:
            raise InputError(f"the id of a row must be a text, not {row.id!r}")
        if row.vector.shape != (dim,):
            raise InputError(f"the vector of {row.id!r} has the shape {row.vector.shape}, not ({dim},)")
        if not np.isfinite(row.vector).all():
            raise InputError(f"the vector of {row.id!r} holds NaN or infinity")
        for name, value in row.metadata.items():
            if not isinstance(name, str) or not name or name in COLUMNS:
                raise InputError(f"{row.id!r}: {name!r} cannot name metadata; choose a name other than {', '.join(COLUMNS)}")
            if not is_scalar(value):
                raise InputError(f"{row.id!r}: the metadata {name!r} must be a text, a number or a bool, not {value!r}")


def check_queries(vectors_QD: np.ndarray, dim: int, k: int) -> np.ndarray:
    """Query vectors as float32.

    Args:
        vectors_QD: (Q, D).
        dim: values of a vector.
        k: how many results.

    Raises:
        InputError: for another shape, NaN, or k < 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}.")
    queries_QD = np.asarray(vectors_QD, dtype=np.float32)
    if queries_QD.ndim != 2 or queries_QD.shape[1] != dim:
        raise InputError(f"the query vectors have the shape {queries_QD.shape}, not (queries, {dim})")
    if not np.isfinite(queries_QD).all():
        raise InputError("the query vectors hold NaN or infinity")
    return queries_QD
