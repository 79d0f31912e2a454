"""Queries that lead to a photograph by knowledge alone, and the test photographs of Flickr8k that answer them.

    knowledge/queries.jsonl     a query a line: id, text, concept, category
    knowledge/concepts.jsonl    a concept a line: its words, and by file name the photographs that show it
    knowledge/reviewed.jsonl    what a second reading changed or dropped, and why

How they were made: knowledge/README.md. Photographs and captions are not here; they come with the data that are read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from research.photo.photographs import Photograph
from slq.data import RetrievalSet
from slq.errors import DataError
from slq.io.files import read_jsonl, write_jsonl
from slq.types import Item

FOLDER = Path(__file__).with_name("knowledge")
QUERIES, CONCEPTS = "queries.jsonl", "concepts.jsonl"
NAME = "knowledge"
CATEGORIES = ("cultural", "utility", "functional", "encyclopaedic", "logic", "contextual")  # KARR's six
SURE = 2  # captions that name a thing, so that its photograph counts as showing it


@dataclass(frozen=True)
class KnowledgeQuery:
    """One query.

    Attributes:
        id: the concept's name and a number.
        text: never names the concept.
        concept: what it leads to.
        category: one of `CATEGORIES`.
    """

    id: str
    text: str
    concept: str
    category: str


@dataclass(frozen=True)
class Concept:
    """A thing that photographs show, and which ones.

    Attributes:
        name: of the thing.
        words: that name it in a caption, every form spelled out.
        exceptions: phrases in which such a word is something else ("hot dog").
        related: words of captions beside which it is likely to be seen, or is called by another name.
        doubtful: file names of photographs whose captions contradict each other, as a look at them showed.
        relevant: file names of the photographs that show it.
        unjudged: of those that may; they are left out of a query's ranking.
    """

    name: str
    words: tuple[str, ...]
    exceptions: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    relevant: tuple[str, ...] = ()
    unjudged: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The line that `read_concepts` reads."""
        lists = {"words": self.words, "except": self.exceptions, "related": self.related, "doubtful": self.doubtful}
        return {"concept": self.name, **lists, "relevant": self.relevant, "unjudged": self.unjudged}


def read_queries(folder: Path = FOLDER) -> list[KnowledgeQuery]:
    """The queries of a folder, in their order.

    Args:
        folder: that holds queries.jsonl.

    Raises:
        DataError: if there are none.
    """
    return [KnowledgeQuery(row["id"], row["text"], row["concept"], row["category"]) for row in _rows(folder / QUERIES)]


def read_concepts(folder: Path = FOLDER) -> dict[str, Concept]:
    """The concepts of a folder by name, in their order.

    Args:
        folder: that holds concepts.jsonl.

    Raises:
        DataError: if there are none.
    """
    names = ("words", "except", "related", "doubtful", "relevant", "unjudged")
    return {row["concept"]: Concept(row["concept"], *(tuple(row.get(name, ())) for name in names)) for row in _rows(folder / CONCEPTS)}


def write_concepts(concepts: Sequence[Concept], folder: Path = FOLDER) -> None:
    """Write concepts.jsonl.

    Args:
        concepts: all of them.
        folder: that holds it.
    """
    write_jsonl(folder / CONCEPTS, (each.to_json() for each in concepts))


def judged(concept: Concept, photographs: Sequence[Photograph]) -> Concept:
    """The concept with the photographs that show it, by their captions: two at least must name it.

    Those that one caption names it in, or that a related word speaks for, are unjudged, as are the doubtful ones.

    Args:
        concept: with its words.
        photographs: of the test split.

    Example:
        >>> cat = Concept("cat", ("cat", "cats"), exceptions=("cat walk",), related=("kitten",))
        >>> told = {"1": ("Two cats .", "A cat naps ."), "2": ("A cat .", "A pet ."), "3": ("A cat walk .",), "4": ("A kitten .",)}
        >>> found = judged(cat, [Photograph(name, Path(name), "test", captions) for name, captions in told.items()])
        >>> found.relevant, found.unjudged
        (('1',), ('2', '4'))
    """
    relevant, unjudged = [], []
    for each in photographs:
        name, count = file_name(each), captions_that_name(concept, each.captions)
        if count >= SURE and name not in concept.doubtful:
            relevant.append(name)
        elif count or name in concept.doubtful or any(_mentions(concept.related, caption) for caption in each.captions):
            unjudged.append(name)
    return replace(concept, relevant=tuple(sorted(relevant)), unjudged=tuple(sorted(unjudged)))


def captions_that_name(concept: Concept, captions: Sequence[str]) -> int:
    """How many captions name a concept.

    Args:
        concept: with its words.
        captions: of one photograph.
    """
    return sum(_mentions(concept.words, _without(concept.exceptions, caption)) for caption in captions)


def knowledge_set(photographs: Sequence[Photograph], folder: Path = FOLDER) -> RetrievalSet:
    """The queries over photographs; queries of one concept are a cluster, since they are found or missed together.

    Args:
        photographs: all that are ranked; ids are their names in the data.
        folder: of the queries and concepts.

    Returns:
        The set `knowledge`. A query none of whose answers are among the photographs is left out, and the notes say how many are.

    Raises:
        DataError: if that leaves none.
    """
    concepts, queries = read_concepts(folder), read_queries(folder)
    id_of = {file_name(each): each.name for each in photographs}
    answers = {name: [id_of[image] for image in each.relevant if image in id_of] for name, each in concepts.items()}
    hidden = {name: frozenset(id_of[image] for image in each.unjudged if image in id_of) for name, each in concepts.items()}
    kept = [query for query in queries if answers[query.concept]]
    if not kept:
        raise DataError(f"None of the {len(photographs)} photographs answers a knowledge query: these are of the test split of Flickr8k.")
    left_out = len(queries) - len(kept)
    return RetrievalSet(
        name=NAME,
        queries={query.id: Item(query.text) for query in kept},
        corpus={each.name: Item(image=each.image) for each in photographs},
        qrels={query.id: dict.fromkeys(answers[query.concept], 1) for query in kept},
        failures=(),
        categories={query.id: query.category for query in kept},
        excluded={query.id: hidden[query.concept] for query in kept},
        clusters={query.id: query.concept for query in kept},
        notes=(f"knowledge queries without an answer among the photographs: {left_out}",) if left_out else (),
    )


def file_name(photograph: Photograph) -> str:
    """The name of a photograph's file, by which every copy of the data set knows it.

    Args:
        photograph: of any copy.
    """
    return PurePosixPath(photograph.name).name


def _mentions(words: Sequence[str], text: str) -> bool:
    return bool(words and _pattern(words).search(text))


def _without(phrases: Sequence[str], text: str) -> str:
    return _pattern(phrases).sub(" | ", text) if phrases else text


def _pattern(words: Sequence[str]) -> re.Pattern[str]:
    """Finds any of these words or phrases, the longest first."""
    spelled = (r"\s+".join(map(re.escape, word.split())) for word in sorted(words, key=len, reverse=True))
    return re.compile(rf"\b(?:{'|'.join(spelled)})\b", re.IGNORECASE)


def _rows(file: Path) -> list[Mapping[str, Any]]:
    try:
        rows, _ = read_jsonl(file)
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(f"{file} cannot be read ({error}): it comes with the repository.") from error
    if not rows:
        raise DataError(f"{file} is empty: it comes with the repository.")
    return rows
