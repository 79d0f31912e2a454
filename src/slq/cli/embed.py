"""`slq embed`: vectors of items, in a folder or a file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command
from slq.config import EmbedConfig, ModelConfig
from slq.errors import InputError, OutputExistsError

if TYPE_CHECKING:
    from slq.data import ItemFile
    from slq.encoders.base import Encoder
    from slq.types import Embeddings


@command("embed")
def app(config: EmbedConfig, model: ModelConfig) -> None:
    """Encode images, texts, or both, for `slq search` or for other tools.

    Items that cannot be used are listed and skipped; they never stop the others. The same command again encodes what is new or changed
    since, and takes the rest from --output.

        slq embed data/test/images -m my-adapter -o my-index

        slq embed shop.csv -m my-adapter -o vectors.parquet --precision float16
    """
    from slq.data import read_items
    from slq.encoders.opening import open_encoder, tell_of_miniature
    from slq.index import file_format, save_embeddings, save_vectors
    from slq.index.store import check_is_folder
    from slq.io.files import named_from
    from slq.io.outputs import OutputFolder, check_output_file

    assert config.items is not None and config.output is not None
    reads: list[str | Path | None] = [config.items, model.model, model.base_model]
    is_file, updates = file_format(config.output) is not None, not config.overwrite and _is_index(config.output)
    if is_file:
        check_output_file(config.output, reads, overwrite=config.overwrite)
    else:
        check_is_folder(config.output)
        OutputFolder.check(config.output, "embed", overwrite=config.overwrite or updates, keep=reads)
    read = read_items(config.items, **config.reading)
    total = len(read.items) + len(read.failures)
    console.list_failures(read.failures)
    console.check_skipped(read.failures, total, config.max_skipped)
    with console.waiting("loading the model"):
        encoder = open_encoder(model)
    tell_of_miniature(encoder.model)
    source = {"items": named_from(config.items, config.output), "truncate_dim": config.truncate_dim, "precision": config.precision}
    metadata = {"adapter": named_from(Path(model.model), config.output) if Path(model.model).is_dir() else model.model, "source": source}
    before = _earlier(config.output, encoder, source) if updates else {}
    begin = time.perf_counter()
    with console.progress_bar("encoding", len(read.items)) as advance:
        embedded, new = _encode(encoder, read, before, config, advance)
    seconds = time.perf_counter() - begin
    console.list_failures(embedded.failures[len(read.failures) :])
    if not embedded.ids:
        raise InputError(f"None of the {len(embedded.failures)} items of {config.items} can be encoded: nothing is written.")
    console.check_skipped(embedded.failures, total, config.max_skipped)
    if is_file:
        save_vectors(embedded, config.output, config.precision, config.overwrite)  # type: ignore[arg-type] # one of its choices
    else:
        save_embeddings(embedded, config.output, metadata, config.overwrite or updates, precision=config.precision)  # type: ignore[arg-type]
    kept, gone = len(embedded.ids) - new, len(before.keys() - set(embedded.ids))
    counts = {"count": len(embedded.ids), "encoded": new, "kept": kept, "removed": gone, "skipped": len(embedded.failures)}

    def text() -> None:
        rate = f"{seconds:.1f} s, {new / max(seconds, 1e-9):.1f} items a second"
        update = f" {new} of them new or changed, {kept} as before, {gone} gone;" if updates else ""
        console.result(f"{len(embedded.ids)} items encoded in {config.output} ({rate});{update} {len(embedded.failures)} skipped.")
        if not is_file:
            console.note(f'Next: slq search "what you look for" -c {config.output}')

    console.show({"output": str(config.output), **counts, "seconds": round(seconds, 3)}, text)


def _is_index(output: Path) -> bool:
    """Whether an earlier run of this command wrote the folder."""
    from slq.index.export import EMBEDDINGS_FILE
    from slq.io.outputs import MANIFEST

    return all((output / name).is_file() for name in (MANIFEST, EMBEDDINGS_FILE))


def _earlier(output: Path, encoder: Encoder, source: Mapping[str, Any]) -> dict[str, tuple[Mapping[str, Any], Any]]:
    """The items that the output holds, by id, with their vectors.

    Args:
        output: a folder that an earlier run wrote.
        encoder: of this run.
        source: what this run encodes, and how.

    Raises:
        OutputExistsError: if it was made of other items, by another encoder, or otherwise.
    """
    from slq.index import load_embeddings

    found, metadata = load_embeddings(output)
    differs = next((name for name, value in source.items() if metadata.get("source", {}).get(name) != value), None)
    if found.fingerprint != encoder.fingerprint:
        differs = "model"
    if differs is not None:
        raise OutputExistsError(
            f"{output} was made with another {differs}, so it cannot be brought up to date: choose another folder, or pass "
            "--overwrite to encode everything again."
        )
    return {id_: (item, vector) for id_, item, vector in zip(found.ids, found.items, found.vectors, strict=True)}


def _encode(
    encoder: Encoder,
    read: ItemFile,
    before: Mapping[str, tuple[Mapping[str, Any], Any]],
    config: EmbedConfig,
    advance: Callable[[int], None],
) -> tuple[Embeddings, int]:
    """The embeddings of all items, those that are as before taken from there, and how many were encoded."""
    import numpy as np

    from slq.index import truncated
    from slq.types import Embeddings, content_hash

    hashes = {id_: content_hash(item) for id_, item in read.items.items()}
    same = {id_ for id_, found in hashes.items() if id_ in before and found and before[id_][0].get("content_hash") == found}
    vectors = {id_: before[id_][1] for id_ in same}
    advance(len(vectors))
    new = {id_: item for id_, item in read.items.items() if id_ not in vectors}
    encoded = encoder.encode(
        list(new.values()), list(new), config.batch_size, on_error="skip", progress=advance, workers=config.num_workers
    )
    vectors |= dict(zip(encoded.ids, truncated(encoded.vectors, config.truncate_dim), strict=True))
    ids = tuple(id_ for id_ in read.items if id_ in vectors)
    items = tuple(_known(read, id_, hashes[id_]) for id_ in ids)
    stacked = np.stack([vectors[id_] for id_ in ids]) if ids else encoded.vectors
    return Embeddings(ids, stacked, encoder.fingerprint, items, read.failures + encoded.failures), len(encoded.ids)


def _known(read: ItemFile, id_: str, content_hash: str | None) -> dict[str, Any]:
    """What is written of an item beside its vector."""
    from slq.index.filters import as_scalars

    item = read.items[id_]
    metadata = as_scalars(read.metadata.get(id_, {}))
    return {
        **({"text": item.text} if item.text else {}),
        **({"image": str(item.image.resolve())} if isinstance(item.image, Path) else {}),
        **({"content_hash": content_hash} if content_hash else {}),
        **({"metadata": metadata} if metadata else {}),
    }
