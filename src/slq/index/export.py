"""Embeddings on disk, as a folder of three plain files.

vectors.safetensors    vectors (C, D) float32
items.jsonl            one line an item: id, and what to show for it (text, image)
embeddings.json        fingerprint of the encoder, the adapter, failures, provenance
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from slq.errors import DataError, Failure
from slq.io.files import write_atomic, write_json, write_jsonl
from slq.runtime import new_folder
from slq.types import Embeddings

FILES = ("vectors.safetensors", "items.jsonl", "embeddings.json")


def save_embeddings(embeddings: Embeddings, folder: Path, about: Mapping[str, Any] | None = None, overwrite: bool = False) -> None:
    """Write embeddings into a new folder; `about` is kept beside them.

    Raises OutputExistsError if the folder holds something, DiskFullError if there is no room.
    """
    new_folder(folder, overwrite, FILES)
    shown = embeddings.items or ({},) * len(embeddings.ids)
    description = {
        "fingerprint": embeddings.fingerprint,
        "count": len(embeddings.ids),
        "failures": [{"item": failure.item, "reason": failure.reason} for failure in embeddings.failures],
        **(about or {}),
    }
    write_atomic(folder / "vectors.safetensors", lambda path: save_file({"vectors": embeddings.vectors}, path))
    write_jsonl(folder / "items.jsonl", ({"id": id_, **item} for id_, item in zip(embeddings.ids, shown, strict=True)))
    write_json(folder / "embeddings.json", description)


def load_embeddings(folder: Path) -> tuple[Embeddings, dict[str, Any]]:
    """Read what `save_embeddings` wrote: the embeddings and what was kept beside them.

    Raises DataError if a file is missing, damaged, or does not fit the others.
    """
    try:
        about = json.loads((folder / "embeddings.json").read_text(encoding="utf-8"))
        vectors = load_file(folder / "vectors.safetensors")["vectors"]
        items = [json.loads(line) for line in (folder / "items.jsonl").read_text(encoding="utf-8").split("\n") if line]
        ids = tuple(item.pop("id") for item in items)
        failures = tuple(Failure(failure["item"], failure["reason"]) for failure in about.pop("failures"))
        fingerprint = about.pop("fingerprint")
    except FileNotFoundError as error:
        name = Path(error.filename).name if error.filename else "a file"
        raise DataError(f"{folder} holds no embeddings ({name} is missing): make them with `slq embed`.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise DataError(f"The embeddings in {folder} are damaged ({error}): make them again with `slq embed`.") from error
    if len(ids) != len(vectors):
        raise DataError(f"{folder} lists {len(ids)} items but holds {len(vectors)} vectors: make them again with `slq embed`.")
    return Embeddings(ids, np.asarray(vectors), fingerprint, tuple(items), failures), about
