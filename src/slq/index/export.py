"""Embeddings on disk for other tools: vectors in a plain file, what they are of beside it.

vectors.npz        `vectors` (C, D) float32, and items.jsonl: one line an item, its id and what to show for it (text, image)
vectors.parquet    or instead: columns id, vector, text, image
vectors.jsonl      or instead: one line an item, id, vector, text, image
embeddings.json    model and fingerprint of the encoder, count, dim, whether the vectors have length 1, failures
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from slq.errors import DataError, Failure, FingerprintMismatchError, InputError, MissingExtraError
from slq.index.scoring import candidates, score_again
from slq.index.store import Hit
from slq.io.files import map_os_errors, write_atomic, write_json, write_jsonl
from slq.io.outputs import OutputFolder
from slq.types import Embeddings

FORMATS = ("npz", "parquet", "jsonl")
EMBEDDINGS_FILE, ITEMS_FILE = "embeddings.json", "items.jsonl"
Format = Literal["npz", "parquet", "jsonl"]


def save_embeddings(
    embeddings: Embeddings, folder: Path, metadata: Mapping[str, Any] | None = None, overwrite: bool = False, format: Format = "npz"
) -> None:
    """Write embeddings into a new folder.

    Args:
        embeddings: vectors (C, D) with their ids.
        folder: where to.
        metadata: what else to record in embeddings.json, such as `model`.
        overwrite: whether what an earlier run wrote there is replaced.
        format: of the vectors, one of `FORMATS`.

    Raises:
        OutputExistsError: if the folder holds something, or with `overwrite` anything that slq did not write there.
        DiskFullError: if there is no room.
        InputError: for an unknown format.
    """
    if format not in FORMATS:
        raise InputError(f"Unknown format {format!r}: choose one of {', '.join(FORMATS)}.")
    vectors_CD = np.ascontiguousarray(embeddings.vectors, dtype=np.float32)
    shown = embeddings.items or ({},) * len(embeddings.ids)
    rows = [{"id": id_, **item} for id_, item in zip(embeddings.ids, shown, strict=True)]
    lengths_C = np.linalg.norm(vectors_CD, axis=-1)
    description = {
        "fingerprint": embeddings.fingerprint,
        "count": len(embeddings.ids),
        "dim": vectors_CD.shape[-1],
        "normalized": bool(np.allclose(lengths_C, 1, atol=1e-3)),
        "failures": [{"item": failure.item, "reason": failure.reason} for failure in embeddings.failures],
        **(metadata or {}),
    }
    with OutputFolder.create(folder, "embed", overwrite=overwrite) as output:
        _WRITERS[format](output.path, rows, vectors_CD)
        write_json(output.path / EMBEDDINGS_FILE, description)


def load_embeddings(folder: Path) -> tuple[Embeddings, dict[str, Any]]:
    """Read what `save_embeddings` wrote.

    Args:
        folder: holds embeddings.json and vectors in one of `FORMATS`.

    Returns:
        The embeddings, and the metadata recorded beside them.

    Raises:
        DataError: if a file is missing, damaged, or does not fit the others.
        MissingExtraError: if they are Parquet and pyarrow is not installed.
    """
    try:
        metadata = json.loads((folder / EMBEDDINGS_FILE).read_bytes())
        format = next((name for name in FORMATS if (folder / f"vectors.{name}").is_file()), "npz")
        rows, vectors_CD = _READERS[format](folder)
        ids = tuple(str(row.pop("id")) for row in rows)
        failures = tuple(Failure(failure["item"], failure["reason"]) for failure in metadata.pop("failures"))
        fingerprint = metadata.pop("fingerprint")
    except FileNotFoundError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise DataError(f"{folder} holds no embeddings ({name} is missing): make them with `slq embed`.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"The embeddings in {folder} are damaged ({error}): make them again with `slq embed`.") from error
    if vectors_CD.ndim != 2 or len(ids) != len(vectors_CD):
        raise DataError(f"{folder} lists {len(ids)} items but holds {len(vectors_CD)} vectors: make them again with `slq embed`.")
    return Embeddings(ids, vectors_CD, fingerprint, tuple(rows), failures), metadata


def search(corpus: Embeddings, queries: Embeddings, k: int = 10) -> list[list[Hit]]:
    """The k most similar items for each query, best first; equal scores in order of the corpus.

    Args:
        corpus: vectors (C, D).
        queries: vectors (Q, D).
        k: how many results.

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
    shown: Sequence[Mapping[str, str]] = corpus.items or ({},) * len(corpus.ids)
    results = []
    for query_D, scores_C in zip(queries.vectors, queries.vectors @ corpus.vectors.T, strict=True):
        places = candidates(scores_C, k, query_D)
        exact_C = score_again(corpus.vectors[places], query_D)
        best = [(int(places[i]), float(exact_C[i])) for i in np.argsort(-exact_C, kind="stable")[:k]]
        results.append([Hit(corpus.ids[i], score, shown[i].get("text"), shown[i].get("image")) for i, score in best])
    return results


def _write_npz(folder: Path, rows: list[dict[str, Any]], vectors_CD: np.ndarray) -> None:
    def write(path: Path) -> None:
        with path.open("wb") as file:  # given a name, numpy would add a suffix to it
            np.savez(file, vectors=vectors_CD)

    write_atomic(folder / "vectors.npz", write)
    write_jsonl(folder / ITEMS_FILE, rows)


def _write_jsonl(folder: Path, rows: list[dict[str, Any]], vectors_CD: np.ndarray) -> None:
    listed = ({"id": row["id"], "vector": vector.tolist(), **row} for row, vector in zip(rows, vectors_CD, strict=True))
    write_jsonl(folder / "vectors.jsonl", listed)


def _write_parquet(folder: Path, rows: list[dict[str, Any]], vectors_CD: np.ndarray) -> None:
    arrow, parquet = _import_arrow(folder)
    try:
        columns = {name: arrow.array([row.get(name) for row in rows], arrow.string()) for name in ("id", "text", "image")}
    except (UnicodeError, arrow.lib.ArrowException) as error:
        raise InputError(f"Parquet cannot hold an id that is not UTF-8 ({error}): choose another format.") from error
    vectors = arrow.FixedSizeListArray.from_arrays(vectors_CD.reshape(-1), vectors_CD.shape[-1])
    table = arrow.table({"id": columns["id"], "vector": vectors, "text": columns["text"], "image": columns["image"]})
    with map_os_errors(folder):
        write_atomic(folder / "vectors.parquet", lambda path: parquet.write_table(table, path))


def _read_npz(folder: Path) -> tuple[list[dict[str, Any]], np.ndarray]:
    with (folder / "vectors.npz").open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        vectors_CD = arrays["vectors"]
    return [json.loads(line) for line in (folder / ITEMS_FILE).read_bytes().split(b"\n") if line], vectors_CD


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
