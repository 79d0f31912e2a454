"""Embeddings on disk for other tools: vectors in a plain file, what they are of beside it.

vectors.npz        `vectors` (C, D), and items.jsonl: one line an item, its id and what is known of it (text, image, content_hash, metadata)
vectors.parquet    or instead: columns id, vector and the same
vectors.jsonl      or instead: one line an item, id, vector and the same
embeddings.json    model and fingerprint of the encoder, count, dim, precision, whether the vectors have length 1, failures,
                   and ids of items of whose text only the beginning was read

Or one file alone, .npz (arrays ids, vectors, text, image), .parquet or .jsonl, which search does not read. Images below the folder that
holds the result are named relative to it, so that both can be moved together; others by their whole path.
"""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from slq.errors import DataError, Failure, FingerprintMismatchError, InputError, MissingExtraError, shorten
from slq.index.filters import Filter, matches
from slq.index.scoring import search_rows
from slq.index.store import Hit, Row
from slq.io.files import load_json, map_os_errors, named_from, write_atomic, write_json, write_jsonl
from slq.io.outputs import OutputFolder, check_output_file
from slq.types import Embeddings

_DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, EOFError, RecursionError)
FORMATS = ("npz", "parquet", "jsonl")
EMBEDDINGS_FILE, ITEMS_FILE = "embeddings.json", "items.jsonl"
PRECISIONS = ("float32", "float16", "int8")
Format = Literal["npz", "parquet", "jsonl"]
Precision = Literal["float32", "float16", "int8"]
_NO_VECTOR = np.zeros(0, dtype=np.float32)
_COLUMNS = ("text", "image", "content_hash")


def file_format(path: Path) -> Format | None:
    """The format of a result that is one file, by its ending; None for a folder.

    Args:
        path: the output.
    """
    found: dict[str, Format] = {".npz": "npz", ".parquet": "parquet", ".jsonl": "jsonl"}
    return found.get(path.suffix.lower())


def truncated(vectors_CD: np.ndarray, dim: int | None) -> np.ndarray:
    """The first dimensions of vectors, at length 1 again (Matryoshka).

    Args:
        vectors_CD: (C, D).
        dim: how many; None for all, which stay as they are.

    Raises:
        InputError: for more than there are.
    """
    if dim is None or dim == vectors_CD.shape[-1]:
        return vectors_CD
    if not 1 <= dim < vectors_CD.shape[-1]:
        raise InputError(f"truncate_dim must be between 1 and {vectors_CD.shape[-1]}, the width of these embeddings, not {dim}.")
    return _unit(vectors_CD[..., :dim])


def save_vectors(embeddings: Embeddings, file: Path, precision: Precision = "float32", overwrite: bool = False) -> None:
    """Write embeddings into one file, for other tools.

    Args:
        embeddings: vectors (C, D) with their ids.
        file: its ending names the format.
        precision: see `save_embeddings`.
        overwrite: whether a file that is there is replaced.

    Raises:
        InputError: for another ending.
        OutputExistsError: if the file is there, without `overwrite`.
        OutputError: if it cannot be written.
    """
    format = file_format(file)
    if format is None:
        raise InputError(f"{file} must end in {', '.join('.' + each for each in FORMATS)}.")
    check_output_file(file, overwrite=overwrite)
    vectors_CD, rows = _stored(embeddings.vectors, precision), _rows(embeddings, file.parent)
    if format == "npz":
        arrays = {"ids": embeddings.ids, **{name: [row.get(name, "") for row in rows] for name in ("text", "image")}}
        _write_arrays(file, vectors=vectors_CD, **{name: np.array(values, dtype=np.str_) for name, values in arrays.items()})
    else:
        _WRITERS[format](file, rows, vectors_CD)


def save_embeddings(
    embeddings: Embeddings,
    folder: Path,
    metadata: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    format: Format = "npz",
    precision: Precision = "float32",
) -> None:
    """Write embeddings into a new folder.

    Args:
        embeddings: vectors (C, D) with their ids.
        folder: where to.
        metadata: what else to record in embeddings.json, such as `model`.
        overwrite: whether what an earlier run wrote there is replaced.
        format: of the vectors, one of `FORMATS`.
        precision: number format of the vectors, one of `PRECISIONS`. As int8 each vector is scaled so that its largest value is 127: its
            direction stays, which is all that a cosine compares.

    Raises:
        OutputExistsError: if the folder holds something, or with `overwrite` anything that slq did not write there.
        DiskFullError: if there is no room.
        InputError: for an unknown format or precision, or a vector that is not finite.
    """
    if format not in FORMATS:
        raise InputError(f"Unknown format {format!r}: choose one of {', '.join(FORMATS)}.")
    if not np.isfinite(embeddings.vectors).all():
        raise InputError("A vector is not finite, and would be found nowhere: encode the items again, and nothing is saved.")
    lengths_C = np.linalg.norm(embeddings.vectors, axis=-1)
    vectors_CD, rows = _stored(embeddings.vectors, precision), _rows(embeddings, folder)
    description = {
        "fingerprint": embeddings.fingerprint,
        "count": len(embeddings.ids),
        "dim": vectors_CD.shape[-1],
        "precision": precision,
        "normalized": bool(np.allclose(lengths_C, 1, atol=1e-3)),
        "failures": [{"item": failure.item, "reason": failure.reason} for failure in embeddings.failures],
        "truncated": list(embeddings.truncated),
        **(metadata or {}),
    }
    with OutputFolder.create(folder, "embed", overwrite=overwrite) as output:
        _WRITERS[format](output.path / f"vectors.{format}", rows, vectors_CD)
        write_json(output.path / EMBEDDINGS_FILE, description)


def load_embeddings(folder: Path) -> tuple[Embeddings, dict[str, Any]]:
    """Read what `save_embeddings` wrote.

    Args:
        folder: holds embeddings.json and vectors in one of `FORMATS`.

    Returns:
        The embeddings as float32, with whole paths of images, and the metadata recorded beside them.

    Raises:
        DataError: if a file is missing, damaged, or does not fit the others.
        MissingExtraError: if they are Parquet and pyarrow is not installed.
    """
    try:
        metadata = load_json(folder / EMBEDDINGS_FILE)
        format = next((name for name in FORMATS if (folder / f"vectors.{name}").is_file()), "npz")
        rows, vectors_CD = _READERS[format](folder)
        rows = [_with_whole_path(row, folder) for row in rows]
        ids = tuple(str(row.pop("id")) for row in rows)
        failures = tuple(Failure(failure["item"], failure["reason"]) for failure in metadata.pop("failures"))
        fingerprint, truncated = metadata.pop("fingerprint"), tuple(metadata.pop("truncated", ()))
    except FileNotFoundError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise DataError(f"{folder} holds no embeddings ({name} is missing): make them with `slq embed`.") from error
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        EOFError,
        RecursionError,
        MemoryError,
        zipfile.BadZipFile,
    ) as error:
        reason = shorten(error) or type(error).__name__
        raise DataError(f"The embeddings in {folder} are damaged ({reason}): make them again with `slq embed`.") from error
    if metadata.get("precision", "float32") != "float32" and metadata.get("normalized") and vectors_CD.ndim == 2:
        vectors_CD = _unit(vectors_CD)
    if vectors_CD.ndim != 2 or len(ids) != len(vectors_CD):
        raise DataError(f"{folder} lists {len(ids)} items but holds {len(vectors_CD)} vectors: make them again with `slq embed`.")
    if not np.isfinite(vectors_CD).all():
        raise DataError(f"{folder} holds vectors that are not finite: make them again with `slq embed`.")
    return Embeddings(ids, vectors_CD, fingerprint, tuple(rows), failures, truncated), metadata


def search(corpus: Embeddings, queries: Embeddings, k: int = 10, filter: Filter | None = None) -> list[list[Hit]]:
    """The k most similar items for each query, best first, equal ones by id.

    Args:
        corpus: vectors (C, D).
        queries: vectors (Q, D), or wider ones, of which the first D dimensions are compared.
        k: how many results.
        filter: only items that pass it.

    Raises:
        FingerprintMismatchError: if the two were made by different encoders.
        InputError: for k < 1.
    """
    if k < 1:
        raise InputError(f"k must be at least 1, not {k}.")
    if corpus.fingerprint != queries.fingerprint:
        raise FingerprintMismatchError(
            f"These embeddings were made by encoder {corpus.fingerprint}, the query by {queries.fingerprint}: "
            "embed the corpus again with the adapter you search with."
        )
    passing_C = np.arange(len(corpus.ids))
    if filter is not None:
        passing_C = np.array([place for place in range(len(corpus.ids)) if matches(filter, _row(corpus, place))], dtype=np.int64)
    queries_QD = truncated(queries.vectors, corpus.vectors.shape[-1])
    return search_rows(queries_QD, k, lambda place: _row(corpus, int(passing_C[place])), passing_C, corpus.vectors)


def _row(corpus: Embeddings, place: int) -> Row:
    """An item as filters look at it; its vector stays where it is."""
    item = corpus.items[place] if corpus.items else {}
    return Row(corpus.ids[place], _NO_VECTOR, item.get("text"), item.get("image"), item.get("metadata", {}), item.get("content_hash", ""))


def _rows(embeddings: Embeddings, folder: Path) -> list[dict[str, Any]]:
    """What is written of each item, beside its vector, into this folder."""
    items = embeddings.items or ({},) * len(embeddings.ids)
    named = [{**item, "image": named_from(Path(item["image"]), folder)} if item.get("image") else item for item in items]
    return [{"id": id_, **item} for id_, item in zip(embeddings.ids, named, strict=True)]


def _with_whole_path(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    image = row.get("image")
    return {**row, "image": os.path.normpath(folder.resolve() / image)} if isinstance(image, str) else row


def _unit(vectors_CD: np.ndarray) -> np.ndarray:
    """Vectors at length 1; one of zeros stays."""
    return vectors_CD / np.maximum(np.linalg.norm(vectors_CD, axis=-1, keepdims=True), np.finfo(np.float32).tiny)


def _stored(vectors_CD: np.ndarray, precision: Precision) -> np.ndarray:
    """Vectors in the number format that they are written in."""
    if precision not in PRECISIONS:
        raise InputError(f"Unknown precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    vectors_CD = np.ascontiguousarray(vectors_CD, dtype=np.float32)
    if precision == "int8":
        largest_C1 = np.abs(vectors_CD).max(axis=-1, keepdims=True, initial=0)
        return np.rint(127 * vectors_CD / np.maximum(largest_C1, np.finfo(np.float32).tiny)).astype(np.int8)
    return vectors_CD.astype(precision)


def _write_arrays(file: Path, **arrays: np.ndarray) -> None:
    def write(path: Path) -> None:
        with path.open("wb") as stream:  # given a name, numpy would add a suffix to it
            np.savez(stream, **arrays)  # type: ignore[arg-type] # numpy's annotation takes the names for its own options

    write_atomic(file, write)


def _write_npz(file: Path, rows: list[dict[str, Any]], vectors_CD: np.ndarray) -> None:
    _write_arrays(file, vectors=vectors_CD)
    write_jsonl(file.parent / ITEMS_FILE, rows)


def _write_jsonl(file: Path, rows: list[dict[str, Any]], vectors_CD: np.ndarray) -> None:
    write_jsonl(file, ({"id": row["id"], "vector": vector.tolist(), **row} for row, vector in zip(rows, vectors_CD, strict=True)))


def _write_parquet(file: Path, rows: list[dict[str, Any]], vectors_CD: np.ndarray) -> None:
    arrow, parquet = _import_arrow(file)
    try:
        columns = {name: arrow.array([row.get(name) for row in rows], arrow.string()) for name in ("id", *_COLUMNS)}
    except (UnicodeError, arrow.lib.ArrowException) as error:
        raise InputError(f"Parquet cannot hold an id that is not UTF-8 ({error}): choose another format.") from error
    metadata = [json.dumps(row["metadata"], ensure_ascii=False) if row.get("metadata") else None for row in rows]
    vectors = arrow.FixedSizeListArray.from_arrays(arrow.array(vectors_CD.reshape(-1)), vectors_CD.shape[-1])
    table = arrow.table({"id": columns.pop("id"), "vector": vectors, **columns, "metadata": arrow.array(metadata, arrow.string())})
    with map_os_errors(file):
        write_atomic(file, lambda path: parquet.write_table(table, path))


def _read_npz(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    _check_stored(folder / "vectors.npz")
    with (folder / "vectors.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        vectors_CD = arrays["vectors"].astype(np.float32, copy=False)
    return [json.loads(line) for line in (folder / ITEMS_FILE).read_bytes().split(b"\n") if line], vectors_CD


def _check_stored(file: Path) -> None:
    """Raises ValueError for arrays that take more room than their file: slq compresses none."""
    with zipfile.ZipFile(file) as archive:
        if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
            raise ValueError("its arrays are compressed")
        for member in archive.infolist():
            with archive.open(member) as stream:
                version = np.lib.format.read_magic(stream)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(stream)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"an array of shape {shape} has {member.file_size} bytes")


def _read_jsonl(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    rows = [json.loads(line) for line in (folder / "vectors.jsonl").read_bytes().split(b"\n") if line]
    vectors = [row.pop("vector") for row in rows]
    return rows, np.array(vectors, dtype=np.float32) if vectors else np.zeros((0, 0), np.float32)


def _read_parquet(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    arrow, parquet = _import_arrow(folder)
    try:
        table = parquet.read_table(folder / "vectors.parquet")
    except arrow.lib.ArrowException as error:
        raise ValueError(str(error)) from error
    vectors = table.column("vector").combine_chunks()
    rows = [{name: value for name, value in row.items() if value is not None} for row in table.drop(["vector"]).to_pylist()]
    rows = [{**row, "metadata": json.loads(row["metadata"])} if "metadata" in row else row for row in rows]
    return rows, np.asarray(vectors.flatten(), dtype=np.float32).reshape(len(rows), vectors.type.list_size)


def _import_arrow(folder: Path) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtraError(f'Parquet in {folder} needs pyarrow; run: pip install "slq[parquet]"') from None
    return pyarrow, pyarrow.parquet


_WRITERS = {"npz": _write_npz, "parquet": _write_parquet, "jsonl": _write_jsonl}
_READERS = {"npz": _read_npz, "parquet": _read_parquet, "jsonl": _read_jsonl}
