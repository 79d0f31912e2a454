"""`slq search`: search by text, image or both, or by an item that is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command
from slq.config import SearchConfig, SearchModelConfig
from slq.errors import ConfigError, InputError

if TYPE_CHECKING:
    from slq.index import Hit
    from slq.types import Embeddings


@command("search")
def app(config: SearchConfig, model: SearchModelConfig) -> None:
    """Search by text, by an image, or by an image and text together; or by an item of the collection.

    With --json one JSON object a line.

        slq search "the animal said to have nine lives" -c my-index

        slq search "but blue" --image cat.png -c my-index

        slq search --like 0003.png -c my-index -o alike.png
    """
    from slq.index import load_embeddings, search
    from slq.index.filters import parse_filter
    from slq.index.store import check_is_folder
    from slq.io.files import write_jsonl
    from slq.io.outputs import check_output_file

    check_is_folder(config.collection)
    if config.output is not None:
        check_output_file(config.output, [config.collection, config.image], overwrite=config.overwrite)
    wanted = parse_filter(config.filter)
    corpus, about = load_embeddings(config.collection)
    query = _encoded(config, model, about) if config.like is None else _of_item(corpus, config.like)
    hits = search(corpus, query, config.top_k + (config.like is not None), wanted)[0]
    hits = [hit for hit in hits if hit.id != config.like][: config.top_k]
    if not hits and config.filter:
        raise InputError(
            f"No item of {config.collection} passes {' and '.join(config.filter)[:200]}: look at the columns that were encoded."
        )
    documents = [{**hit.to_dict(), "score": round(hit.score, 6)} for hit in hits]
    rows = [[f"{hit.score:.3f}", hit.id, hit.text or hit.image or ""] for hit in hits]
    if config.output is not None and config.output.suffix.lower() == ".jsonl":
        write_jsonl(config.output, documents)
    elif config.output is not None:
        _write_sheet(config.output, hits)
    console.show_lines(documents, lambda: console.table(["score", "id", "shows"], rows))


def _encoded(config: SearchConfig, model: SearchModelConfig, about: dict[str, Any]) -> Embeddings:
    """The query by the collection's model."""
    from slq.encoders.opening import open_encoder, tell_of_miniature
    from slq.io.files import located
    from slq.types import Item

    name = model.model or about.get("adapter")
    if name is None:
        raise ConfigError(f"{config.collection} does not say which model encoded it: name it with --model.")
    if model.model is None and model.trust_remote_code:
        raise ConfigError(f"trust_remote_code holds for a model that you name, and {config.collection} names this one: use --model.")
    if model.model is None:
        name = located(name, config.collection)
    with console.waiting("loading the model"):
        encoder = open_encoder(replace(model, model=name))
    query = encoder.encode([Item(config.text, config.image)])
    tell_of_miniature(encoder.model)
    return query


def _of_item(corpus: Embeddings, id_: str) -> Embeddings:
    """An item of the collection as a query."""
    if id_ not in corpus.ids:
        raise InputError(f"The collection holds no item {id_[:100]!r}: ids are as `slq search` shows them.")
    place = corpus.ids.index(id_)
    return replace(corpus, ids=(id_,), vectors=corpus.vectors[place : place + 1], items=())


def _write_sheet(file: Path, hits: Sequence[Hit]) -> None:
    """One image of the results, best first, with their scores; what has no image that can be opened shows its text."""
    from PIL import Image, ImageDraw, ImageOps

    from slq.data.images import open_image
    from slq.io.files import write_atomic

    cell, label, columns = 192, 16, 5
    sheet = Image.new("RGB", (cell * min(columns, len(hits)), (cell + label) * -(-len(hits) // columns)), "white")
    pen = ImageDraw.Draw(sheet)
    for place, hit in enumerate(hits):
        left, top = place % columns * cell, place // columns * (cell + label)
        try:
            if hit.image is None:
                raise InputError("it is a text")
            sheet.paste(ImageOps.contain(open_image(Path(hit.image)), (cell, cell)), (left, top))
        except InputError:
            pen.multiline_text((left + 4, top + 4), "\n".join(_wrapped(hit.text or hit.id)), fill="black")
        pen.text((left + 4, top + cell + 2), f"{hit.score:.3f}  {hit.id[-20:]}", fill="black")
    format = "PNG" if file.suffix.lower() == ".png" else "JPEG"
    write_atomic(file, lambda path: sheet.save(path, format))


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text[:400], 28)
