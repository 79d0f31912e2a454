"""`slq embed` and `slq search`: a folder of embeddings, and looking for something in it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from slq.cli import loading
from slq.cli.shared import ADAPTER, BATCH, OVERWRITE, WORKERS, list_failures, progress_bar, table
from slq.errors import InputError


@loading.loads_a_model(*loading.OF_WEIGHTS)
def embed(
    items: Annotated[Path, typer.Argument(help="Folder of images, or a table with text and/or image columns.")],
    adapter: ADAPTER,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the embeddings.")],
    batch_size: BATCH = 32,
    workers: WORKERS = None,
    overwrite: OVERWRITE = False,
    *,
    wanted: loading.Loading,
) -> None:
    """Embed images, texts, or both, for `slq search`.

    Items that cannot be used are listed and left out; they never stop the others.

        slq embed photos/ --adapter my-adapter --out my-index
    """
    from dataclasses import replace

    from slq.data import read_items
    from slq.index import save_embeddings
    from slq.io.outputs import OutputFolder

    file = read_items(items)
    OutputFolder.check(out, overwrite, keep=items)
    encoder = wanted.encoder(adapter)
    begin = time.perf_counter()
    with progress_bar("embedding", len(file.items)) as advance:
        embedded = encoder.encode(list(file.items.values()), list(file.items), batch_size, skip_bad=True, progress=advance, workers=workers)
    seconds = time.perf_counter() - begin
    shown = tuple(
        {
            **({"text": item.text} if item.text else {}),
            **({"image": str(Path(str(item.image)).resolve())} if item.image is not None else {}),
        }
        for item in (file.items[id_] for id_ in embedded.ids)
    )
    embedded = replace(embedded, items=shown, failures=file.failures + embedded.failures)
    list_failures(embedded.failures)
    save_embeddings(embedded, out, {"adapter": str(Path(adapter).resolve()) if Path(adapter).is_dir() else adapter}, overwrite)
    rate = f"{seconds:.1f} s, {len(embedded.ids) / seconds:.1f} items a second"
    typer.echo(f"{len(embedded.ids)} items embedded in {out} ({rate}); {len(embedded.failures)} left out.")
    typer.echo(f'Next: slq search "what you look for" --index {out}')


@loading.loads_a_model(*loading.OF_WEIGHTS)
def search(
    text: Annotated[str | None, typer.Argument(help="What to look for, in words. With --image: what to change about it.")] = None,
    index: Annotated[Path, typer.Option("--index", "-i", help="Folder made by `slq embed`.")] = Path("my-index"),
    image: Annotated[Path | None, typer.Option("--image", "-p", help="Search by this image, alone or with words.")] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many results.")] = 10,
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Default: the one the index was made with.")] = None,
    as_json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    *,
    wanted: loading.Loading,
) -> None:
    """Search by words, by an image, or by an image and words together.

    slq search "the animal said to have nine lives" --index my-index

    slq search --image cat.png --index my-index

    slq search "but blue" --image cat.png --index my-index
    """
    from slq.index import load_embeddings
    from slq.index import search as run
    from slq.types import Item

    if text is None and image is None:
        raise InputError("Give words to look for, --image FILE, or both.")
    corpus, about = load_embeddings(index)
    adapter = adapter or about.get("adapter")
    if adapter is None:
        raise InputError(f"{index} does not say which adapter made it: name it with --adapter.")
    encoder = wanted.encoder(adapter)
    hits = run(corpus, encoder.encode([Item(text, image)]), k)[0]
    if as_json_lines:
        for hit in hits:
            typer.echo(json.dumps({**hit.to_dict(), "score": round(hit.score, 6)}, ensure_ascii=False))
        return
    table(["score", "id", "shows"], [[f"{hit.score:.3f}", hit.id, hit.text or hit.image or ""] for hit in hits])
