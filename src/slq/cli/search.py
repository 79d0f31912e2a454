"""`slq search`: search by text, image or both, or by an item that is there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command
from slq.config import SearchConfig, SearchModelConfig
from slq.config.fields import check_names
from slq.errors import InputError, SlqError, shorten

if TYPE_CHECKING:
    from PIL import Image

    from slq.encoders.base import Encoder
    from slq.index.searching import Query, Searchable, SearchHit, SearchResult

# What a line of standard input may say.
ASKED_FOR = (
    "text",
    "image",
    "like",
    "exclude",
    "weight",
    "filter",
    "hybrid",
    "exact",
    "fold",
    "fold_above",
    "top_k",
    "rewrite",
    "rerank",
    "judge",
    "why",
)


@command("search")
def app(config: SearchConfig, model: SearchModelConfig) -> int:
    """Search by text, by an image, or by an image and text together; or by an item of the collection.

    With --json one JSON object a line. With `-` one process answers the queries of standard input, by a line of JSON each, since a start
    takes longer than a search.

        slq search "the animal said to have nine lives" -c my-collection

        slq search "but blue" --image cat.png -c my-collection

        slq search "a beach" "at sunset" --not "people" -c my-collection

        slq search --like photos/0003.png -c my-collection -o alike.png

        slq search - -c my-collection

    The frozen model that encoded the collection can also be asked: --rewrite says what a riddle means, --judge leaves out what does not
    match, --why says what a result rests on. What its yes is worth is measured first, by `slq collection calibrate`.

        slq search "the animal said to have nine lives" --rewrite --judge -c my-collection
    """
    from slq.index.refining import find
    from slq.index.searching import Query
    from slq.index.store import check_is_folder
    from slq.io.outputs import check_output_file

    check_is_folder(config.collection)
    if config.output is not None:
        check_output_file(config.output, [config.collection, *config.image], overwrite=config.overwrite)
    rows, encoder = opened(config.collection, model)
    if config.reads_queries:
        return _answer_lines(config, lambda query: find(rows, query, encoder))
    query = Query.of(config)
    result = find(rows, query, encoder)
    if not result.hits and not result.cut and config.filter:
        raise InputError(
            f"No item of {config.collection} passes {' and '.join(config.filter)[:200]}: look at the columns that were encoded."
        )
    for note in _notes(result):
        console.note(note)
    documents = [hit.to_dict() for hit in result.hits]
    _write(config.output, result.hits, documents)
    console.show_lines(documents, lambda: _show(result.hits))
    return 0


def _notes(result: SearchResult) -> list[str]:
    """What is good to know beside the hits."""
    said = [f"The model says that this means: {result.rewriting}"] if result.rewriting else []
    if result.nothing_matches:
        said.append(f"Nothing here matches: all of the {result.cut} nearest are left out.")
    elif result.cut:
        said.append(f"{result.cut} more do not match and are left out.")
    return [*said, *result.notes]


def _show(hits: Sequence[SearchHit]) -> None:
    """The hits as a table, and the words that each rests on."""
    if not hits:
        return
    asked = any(hit.probability is not None for hit in hits)
    header = ["score", *(["says yes"] if asked else []), "id", "shows"]
    console.table(header, [_row(hit, asked) for hit in hits])
    for hit in hits:
        if hit.why is not None:
            words = [f"{word} {value:+.3f}" for word, value in (*hit.why.query_words, *hit.why.item_words)]
            console.result(f"{hit.id} rests on: {', '.join(words) or 'its image'}{f' ({hit.why.note})' if hit.why.note else ''}")


def opened(folder: Path, model: SearchModelConfig) -> tuple[Searchable, Callable[[], Encoder]]:
    """What is searched, and what loads its model, once.

    Args:
        folder: of a collection, or one that `slq embed` wrote.
        model: as a user named it.
    """
    from slq.index.collection import CollectionRows
    from slq.index.encoders import load, named_by_folder
    from slq.index.head import Layout, read_head
    from slq.index.saved import SavedRows

    layout = Layout(folder)
    if layout.head_file.exists():
        head = read_head(layout.head_file)
        rows: Searchable = CollectionRows(layout)
        name, options = head.model, dict(head.options)
    else:
        rows = saved = SavedRows(folder)
        name, options = saved.model, {}
    loaded: list[Encoder] = []

    def encoder() -> Encoder:
        if not loaded:
            loaded.append(load(model if model.model is not None else named_by_folder(model, folder, name, options)))
        return loaded[0]

    return rows, encoder


def _answer_lines(config: SearchConfig, answer: Callable[[Query], SearchResult]) -> int:
    """Answer each line of standard input by one of JSON; returns the exit code, 1 where one of them could not be."""
    from slq.index.searching import Query

    code = 0
    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            document = answer(Query.of(replace(config, **_asked_for(line.rstrip("\r\n"))))).to_dict()
        except SlqError as error:
            document, code = {"error": {"message": str(error), "type": type(error).__name__}, "line": shorten(line.strip())}, 1
        console.result_line(document)
    return code


def _asked_for(line: str) -> Mapping[str, Any]:
    """What a line asks for, in place of the command line's options: a JSON object with their names, or else a text."""
    if not line.lstrip().startswith("{"):
        return {"text": line}
    try:
        given = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"The line begins as a JSON object and is none ({shorten(error)}): correct it.") from None
    named = {"exclude" if name == "not" else name: value for name, value in given.items()}
    check_names(named, ASKED_FOR, "the query")
    return {"text": (), **named}


def _row(hit: SearchHit, asked: bool) -> list[str]:
    others = [f"{count:,} {kind}" for count, kind in ((hit.duplicates, "equal"), (hit.similar, "similar")) if count]
    more = f" (and {', '.join(others)})" if others else ""
    yes = ["" if hit.probability is None else console.percent(hit.probability)] if asked else []
    return [f"{hit.score:.3f}", *yes, hit.id, f"{hit.text or hit.image or ''}{more}"]


def _write(file: Path | None, hits: Sequence[SearchHit], documents: Sequence[Mapping[str, Any]]) -> None:
    from slq.io.files import write_jsonl

    if file is not None and file.suffix.lower() == ".jsonl":
        write_jsonl(file, documents)
    elif file is not None and hits:
        _write_sheet(file, hits)


def _write_sheet(file: Path, hits: Sequence[SearchHit]) -> None:
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
            sheet.paste(ImageOps.contain(_shown(hit, open_image(Path(hit.image))), (cell, cell)), (left, top))
        except InputError:
            pen.multiline_text((left + 4, top + 4), "\n".join(_wrapped(hit.text or hit.id)), fill="black")
        pen.text((left + 4, top + cell + 2), f"{hit.score:.3f}  {hit.id[-20:]}", fill="black")
    format = "PNG" if file.suffix.lower() == ".png" else "JPEG"
    write_atomic(file, lambda path: sheet.save(path, format))


def _shown(hit: SearchHit, image: Image.Image) -> Image.Image:
    """An image, with what its score rests on if that was asked for."""
    if hit.why is None or hit.why.grid is None:
        return image
    from slq.judge import draw

    return draw(image, hit.why.grid, hit.why.cells)


def _wrapped(text: str) -> list[str]:
    from textwrap import wrap

    return wrap(text[:400], 28)
