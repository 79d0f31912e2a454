"""`slq search`: search by text, image or both."""

from __future__ import annotations

from dataclasses import replace

from slq import console
from slq.cli.command import command
from slq.config import SearchConfig, SearchModelConfig
from slq.errors import ConfigError


@command("search")
def app(config: SearchConfig, model: SearchModelConfig) -> None:
    """Search by text, by an image, or by an image and text together.

    With --json one JSON object a line.

        slq search "the animal said to have nine lives" -c my-index

        slq search --image cat.png -c my-index

        slq search "but blue" --image cat.png -c my-index
    """
    from slq.encoders.opening import open_encoder
    from slq.index import load_embeddings, search
    from slq.index.store import check_is_folder
    from slq.types import Item

    check_is_folder(config.collection)
    corpus, about = load_embeddings(config.collection)
    name = model.model or about.get("adapter")
    if name is None:
        raise ConfigError(f"{config.collection} does not say which model encoded it: name it with --model.")
    encoder = open_encoder(replace(model, model=name))
    hits = search(corpus, encoder.encode([Item(config.text, config.image)]), config.top_k)[0]
    documents = [{**hit.to_dict(), "score": round(hit.score, 6)} for hit in hits]
    rows = [[f"{hit.score:.3f}", hit.id, hit.text or hit.image or ""] for hit in hits]
    console.show_lines(documents, lambda: console.table(["score", "id", "shows"], rows))
