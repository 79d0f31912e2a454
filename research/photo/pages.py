"""One page of queries with the first ten photographs that they find, small copies of which it holds."""

from __future__ import annotations

import base64
import io
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from research.photo.command import PageConfig
from research.photo.evaluate import RESULT
from research.photo.knowledge import FOLDER, file_name, read_concepts, read_queries
from research.photo.photographs import TEST, Photograph, of_split, read_photographs, written
from research.photo.report import fixed_sample
from slq.data.images import open_image
from slq.errors import DataError
from slq.io.files import load_json, write_text

SIDE = 112  # pixels of a small copy
QUALITY = 70  # of its JPEG
CAPTIONS, CHOSEN, WORST = 10, 10, 20  # queries: captions, knowledge queries drawn once for all, and those that find their answers last
TEMPLATE = "page.html.jinja"


def write_page(config: PageConfig) -> Path:
    """Write the page of a method.

    Args:
        config: the options.

    Returns:
        The page.

    Raises:
        DataError: if the study has not measured the method, or the data are not those of the study.
    """
    assert config.study is not None and config.data is not None
    table, measured = _measured(config.study, config.method)
    test = fixed_sample(of_split(read_photographs(config.data), TEST), table["photographs"][TEST])
    photographs = {each.name: each for each in test}
    parts = [*_captions(measured, photographs), *_knowledge(measured, photographs, config.knowledge or FOLDER)]
    told = f"{config.method}, the first seed, {table['provenance']['date'][:10]}. {len(photographs):,} photographs."
    given = {"title": "What queries find among photographs", "subtitle": told, "parts": parts}
    output = config.output or config.study / "pages" / f"{config.method}.html"
    output.parent.mkdir(parents=True, exist_ok=True)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    write_text(output, environment.get_template(TEMPLATE).render(given))
    return output


def small_copy(photograph: Photograph) -> str:
    """A photograph as a small JPEG in a data URI.

    Args:
        photograph: whose file is there.
    """
    image = open_image(photograph.image).convert("RGB")
    image.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _measured(study: Path, method: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The table, and what the first seed of a method measured."""
    file = study / RESULT
    if not file.is_file():
        raise DataError(f"There is no {file}: name a folder that `evaluate` wrote.")
    table = load_json(file)
    row = next((row for row in table["rows"] if row["name"] == method), None)
    if row is None:
        known = ", ".join(row["name"] for row in table["rows"]) or "none"
        raise DataError(f"{file} has no row {method}, only {known}: measure it with `evaluate --methods {method}`.")
    return table, load_json(study / row["measured"])


def _captions(measured: Mapping[str, Any], photographs: Mapping[str, Photograph]) -> Iterator[dict[str, Any]]:
    queries = []
    for id_, found in list(measured["captions"].items())[:CAPTIONS]:
        name, _, number = id_.rpartition("#")
        photograph = _known(name, photographs)
        text = list(dict.fromkeys(map(written, photograph.captions)))[int(number)]
        queries.append(_query(text, f"A caption. {_told(found['rank'])}", found["top"], {name}, photographs))
    yield {"heading": "Captions", "queries": queries}


def _knowledge(measured: Mapping[str, Any], photographs: Mapping[str, Photograph], folder: Path) -> Iterator[dict[str, Any]]:
    if "knowledge" not in measured:
        return
    concepts, found = read_concepts(folder), measured["knowledge"]
    queries = {query.id: query for query in read_queries(folder) if query.id in found}
    answers = {name: {each.name for each in photographs.values() if file_name(each) in one.relevant} for name, one in concepts.items()}
    drawn = random.Random(0).sample(sorted(queries), min(CHOSEN, len(queries)))
    worst = sorted(queries, key=lambda id_: (-(found[id_]["rank"] or len(photographs) + 1), id_))[:WORST]
    for heading, ids in (("Knowledge queries, drawn at random", drawn), ("The knowledge queries that find their answers last", worst)):
        shown = []
        for id_ in ids:
            query = queries[id_]
            right = answers[query.concept]
            told = f"{query.concept} ({query.category}), {len(right)} answers. {_told(found[id_]['rank'])}"
            shown.append(_query(query.text, told, found[id_]["top"], right, photographs))
        yield {"heading": heading, "queries": shown}


def _query(text: str, told: str, top: Sequence[str], right: set[str], photographs: Mapping[str, Photograph]) -> dict[str, Any]:
    hits = [
        {"source": small_copy(photograph), "caption": photograph.captions[0], "answer": name in right}
        for name in top
        for photograph in (_known(name, photographs),)
    ]
    return {"text": text, "told": told, "hits": hits}


def _told(rank: float | None) -> str:
    return "No answer is found." if rank is None else f"The first answer is at place {rank:g}."


def _known(name: str, photographs: Mapping[str, Photograph]) -> Photograph:
    if name not in photographs:
        raise DataError(f"The study knows the photograph {name!r:.200}, which the data have not: give the same --data as to `evaluate`.")
    return photographs[name]
