"""`slq embed`: vectors of items, in a folder."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from slq import console
from slq.cli.command import command
from slq.config import EmbedConfig, ModelConfig


@command("embed")
def app(config: EmbedConfig, model: ModelConfig) -> None:
    """Encode images, texts, or both, for `slq search`.

    Items that cannot be used are listed and skipped; they never stop the others.

        slq embed data/test/images -m my-adapter -o my-index
    """
    from slq.data import read_items
    from slq.encoders.opening import open_encoder
    from slq.index import save_embeddings
    from slq.index.store import check_is_folder
    from slq.io.outputs import OutputFolder

    assert config.items is not None and config.output is not None
    read = read_items(config.items)
    check_is_folder(config.output)
    OutputFolder.check(config.output, config.overwrite, keep=config.items)
    encoder = open_encoder(model)
    begin = time.perf_counter()
    with console.progress_bar("encoding", len(read.items)) as advance:
        embedded = encoder.encode(
            list(read.items.values()), list(read.items), config.batch_size, skip_bad=True, progress=advance, workers=config.num_workers
        )
    seconds = time.perf_counter() - begin
    shown = tuple(
        {
            **({"text": item.text} if item.text else {}),
            **({"image": str(Path(str(item.image)).resolve())} if item.image is not None else {}),
        }
        for item in (read.items[id_] for id_ in embedded.ids)
    )
    embedded = replace(embedded, items=shown, failures=read.failures + embedded.failures)
    console.list_failures(embedded.failures)
    source = str(Path(model.model).resolve()) if Path(model.model).is_dir() else model.model
    save_embeddings(embedded, config.output, {"adapter": source}, config.overwrite)
    document = {"output": str(config.output), "count": len(embedded.ids), "skipped": len(embedded.failures), "seconds": round(seconds, 3)}

    def text() -> None:
        rate = f"{seconds:.1f} s, {len(embedded.ids) / seconds:.1f} items a second"
        console.result(f"{len(embedded.ids)} items encoded in {config.output} ({rate}); {len(embedded.failures)} skipped.")
        console.note(f'Next: slq search "what you look for" -c {config.output}')

    console.show(document, text)
