"""Searching: a query of several parts becomes one vector, and its hits a result that the command line, Python and a server show alike.

A query's vector is the sum of its parts' vectors of length 1, each times its weight (below 0 for what is not wanted), at length 1 again:
q = u / |u| with u = w1 v1 + w2 v2 + ... A score is the inner product of q and a row's vector.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from slq.config import SearchConfig
from slq.errors import ConfigError, FingerprintMismatchError, InputError, shorten
from slq.index.export import truncated
from slq.index.filters import And, Eq, Filter, In, Not, Range, Scalar, parse_filter
from slq.index.folding import Folding, Group
from slq.index.hybrid import HybridRows
from slq.index.store import Hit, Row, StoreMetadata
from slq.types import Item, content_hash

if TYPE_CHECKING:
    from slq.encoders.base import Encoder
    from slq.judge import Explanation

WEIGHT, WEIGHT_OF_NOT = 1.0, 0.5  # of a part where none is given
_AS_GIVEN = ("top_k", "exact", "hybrid", "fold", "fold_above", "rewrite", "judge", "why")  # fields of a query that options name alike


class Searchable(Protocol):
    """Rows that can be searched: those of a collection, or those that `slq embed` wrote.

    Attributes:
        place: how messages call it.
        metadata: what its vectors are.
        judge_file: what is known of judging its hits; None where there can be no such file.
    """

    place: str

    @property
    def judge_file(self) -> Path | None:
        """What is known of judging its hits; None where there can be no such file."""
        ...

    @property
    def metadata(self) -> StoreMetadata:
        """What its vectors are."""
        ...

    def get(self, ids: Sequence[str]) -> list[Row]:
        """As `Store` has it; see `Store.get`."""
        ...

    def search(self, vectors_QD: np.ndarray, k: int, *, filter: Filter | None = None, exact: bool = False) -> list[list[Hit]]:
        """As `Store` has it; see `Store.search`."""
        ...

    def by_words(self, text: str, count: int) -> list[str]:
        """The ids of the rows that have words of a text, best first; see `slq.index.words.find`.

        Args:
            text: whose words are looked for.
            count: how many, at most.
        """
        ...

    def __len__(self) -> int:
        """How many rows there are."""
        ...

    def image_path(self, image: str) -> str:
        """The whole path of an image, as a row names it.

        Args:
            image: of a row.
        """
        ...


@dataclass(frozen=True)
class Part:
    """One part of a query: a text, an image, or both at once; or a row.

    Attributes:
        text: the text, if there is one.
        image: the image, in any form that `slq.types.images.as_image` takes.
        like: the id of a row.
        weight: below 0 for what is not wanted.
    """

    text: str | None = None
    image: Any = None
    like: str | None = None
    weight: float = WEIGHT

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without what it lacks."""
        image = self.image if self.image is None or isinstance(self.image, (str, Path)) else "an image"
        told = {"text": self.text, "image": None if image is None else str(image), "like": self.like}
        return {**{name: value for name, value in told.items() if value is not None}, "weight": self.weight}


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        parts: at least one.
        top_k: how many hits, at most.
        filter: only rows that pass it.
        exact: whether every row is compared, whatever index the store has.
        hybrid: whether rows are also ranked by the words of their texts and columns; see `slq.index.hybrid`.
        fold: whether equal rows are one hit.
        fold_above: rows whose vectors have at least this cosine are one hit too, the best of them; None for equal ones alone.
        rewrite: whether what the model says it means is looked for too; this and what follows: see `slq.index.refining`.
        rerank: how many of the best hits the model judges.
        judge: whether hits that do not match are left out.
        why: whether it is said what each hit rests on.
    """

    parts: tuple[Part, ...]
    top_k: int = 10
    filter: Filter | None = None
    exact: bool = False
    hybrid: bool = False
    fold: bool = True
    fold_above: float | None = None
    rewrite: bool = False
    rerank: int = 0
    judge: bool = False
    why: bool = False

    @classmethod
    def of(cls, config: SearchConfig) -> Query:
        """The query of the options of a search.

        Args:
            config: those options. One text and one image alone are one part, encoded together.

        Raises:
            ConfigError: for weights that are not as many as parts.
            InputError: for what is no filter.
        """
        wanted = [*(Part(text) for text in config.text), *(Part(image=image) for image in config.image)]
        if len(config.text) == len(config.image) == 1 and not config.like:
            wanted = [Part(config.text[0], config.image[0])]
        wanted += [Part(like=id_) for id_ in config.like]
        weights = config.weight or (*[WEIGHT] * len(wanted), *[WEIGHT_OF_NOT] * len(config.exclude))
        number = len(wanted) + len(config.exclude)
        if len(weights) != number:
            raise ConfigError(
                f"There are {len(weights)} weights and {number} parts: give one for each TEXT, --image, --like and --not, in this order, "
                "where one TEXT with one --image is one part; or give none."
            )
        parts = [replace(part, weight=weight) for part, weight in zip(wanted, weights, strict=False)]
        parts += [Part(text, weight=-weight) for text, weight in zip(config.exclude, weights[len(wanted) :], strict=True)]
        same: dict[str, Any] = {name: getattr(config, name) for name in _AS_GIVEN}
        return cls(tuple(parts), filter=parse_filter(config.filter), rerank=config.rerank or 0, **same)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, its filter in words."""
        parts = [part.to_dict() for part in self.parts]
        filtered = {} if self.filter is None else {"filter": _words(self.filter)}
        refined = {name: value for name in ("hybrid", "fold_above", "rewrite", "rerank", "judge", "why") if (value := getattr(self, name))}
        return {"parts": parts, **filtered, "top_k": self.top_k, "exact": self.exact, "fold": self.fold, **refined}


@dataclass(frozen=True)
class SearchHit:
    """One result.

    Attributes:
        rank: from 1.
        id: of the row.
        score: the cosine of the query's vector and the row's.
        text: the row's text, if it has one.
        image: the whole path of the row's image, if it has one.
        metadata: the row's metadata.
        duplicates: how many rows with the same content it stands for, beside its own.
        similar: how many rows with another content that is nearly the same, among those that were looked at for so many hits.
        probability: that the model says yes when it is asked about the hit; None if it was not asked.
        why: what the score rests on, if that was asked for.
    """

    rank: int
    id: str
    score: float
    text: str | None = None
    image: str | None = None
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    duplicates: int = 0
    similar: int = 0
    probability: float | None = None
    why: Explanation | None = None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without what it lacks."""
        told = {**vars(self), "metadata": dict(self.metadata), "score": round(self.score, 6), "duplicates": self.duplicates or None}
        told["similar"] = self.similar or None
        told |= {} if self.probability is None else {"probability": round(self.probability, 6)}
        told |= {} if self.why is None else {"why": self.why.to_dict()}
        return {name: value for name, value in told.items() if value not in (None, {})}


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        query: as it was understood.
        hits: best first.
        rows: how many rows were searched, those that a filter left out among them.
        notes: what is good to know, as sentences.
        rewriting: what the model says the query means; empty if it was not asked, or said nothing of use.
        cut: how many hits were left out since they do not match.
    """

    query: Query
    hits: tuple[SearchHit, ...]
    rows: int
    notes: tuple[str, ...] = ()
    rewriting: str = ""
    cut: int = 0

    @property
    def nothing_matches(self) -> bool:
        """Whether something was found, and none of it matches."""
        return self.cut > 0 and not self.hits

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        told = {"query": self.query.to_dict(), "hits": [hit.to_dict() for hit in self.hits], "rows": self.rows, "notes": list(self.notes)}
        told |= {"rewriting": self.rewriting} if self.rewriting else {}
        return told | ({"cut": self.cut, "nothing_matches": self.nothing_matches} if self.query.judge else {})


def search(rows: Searchable, query: Query, encoder: Callable[[], Encoder]) -> SearchResult:
    """Search rows.

    Args:
        rows: of a collection, or of saved embeddings.
        query: what is looked for.
        encoder: gives the model that encoded the rows; not called for a query of rows alone.

    Returns:
        The hits. The query's own images, and rows that it names, are left out of them.

    Raises:
        InputError: if a part cannot be encoded, there is no such row, or the parts cancel each other out.
        FingerprintMismatchError: if another model encoded the rows.
    """
    notes: list[str] = []
    vectors, liked = _vectors(rows, query.parts, encoder, notes)
    summed_D = np.sum([part.weight * vector for part, vector in zip(query.parts, vectors, strict=True)], axis=0)
    length = float(np.linalg.norm(summed_D))
    if not length > 1e-6:
        raise InputError("The parts of the query cancel each other out, so that there is nothing to look for: leave out one of them.")
    own = {content for part in query.parts if part.image is not None and (content := content_hash(Item(image=part.image)))}
    own |= {row.content_hash for row in liked if query.fold and row.content_hash}
    among = _with_words(rows, query, notes) if query.hybrid else rows
    found = Folding(among, query, own, {row.id for row in liked}).search((summed_D / length).astype(np.float32))
    if found.left_out:
        notes.append(f"{_listed(found.left_out)} left out, equal to the query.")
    hits = tuple(_hit(rows, rank, group) for rank, group in enumerate(found.groups[: query.top_k], start=1))
    return SearchResult(query, hits, len(rows), tuple(notes))


def _with_words(rows: Searchable, query: Query, notes: list[str]) -> Searchable:
    """The rows, found by words too."""
    text = " ".join(part.text for part in query.parts if part.text is not None and part.weight > 0)
    if not text:
        raise InputError("hybrid looks for the words of a TEXT: give one, or leave it out.")
    if not rows.by_words(text, 1):
        notes.append("No caption and no column has a word of the query, so results are by similarity alone.")
    return HybridRows(rows, lambda count: rows.by_words(text, count))


def _vectors(
    rows: Searchable, parts: Sequence[Part], encoder: Callable[[], Encoder], notes: list[str]
) -> tuple[list[np.ndarray], list[Row]]:
    """The vector of each part, and the rows that parts name."""
    ids = [part.like for part in parts if part.like is not None]
    liked = {row.id: row for row in rows.get(ids)}
    if missing := [id_ for id_ in ids if id_ not in liked]:
        raise InputError(f"{shorten(rows.place)} holds no item {shorten(missing[0], 100)!r}: ids are as `slq search` shows them.")
    items = [Item(part.text, part.image) for part in parts if part.like is None]
    encoded = iter(_encoded(rows, items, encoder(), notes) if items else ())
    return [next(encoded) if part.like is None else liked[part.like].vector for part in parts], list(liked.values())


def _encoded(rows: Searchable, items: Sequence[Item], encoder: Encoder, notes: list[str]) -> np.ndarray:
    made_by = rows.metadata
    if encoder.fingerprint != made_by.fingerprint:
        raise FingerprintMismatchError(
            f"{shorten(rows.place)} was encoded by {shorten(made_by.model)} ({made_by.fingerprint}), not by this model "
            f"({encoder.fingerprint}): search with that one, or encode the items again with this one."
        )
    encoded = encoder.encode(items)
    if encoded.truncated:
        notes.append("Of a long text only the beginning was read.")
    return truncated(encoded.vectors, made_by.dim)


def _words(filter: Filter) -> str:
    """A filter as one reads it."""
    match filter:
        case Eq(field, value):
            return f"{field} = {value}"
        case In(field, values):
            return f"{field} is one of {', '.join(map(str, values))}"
        case Range(field, low, high):
            bounds = [f"{field} >= {low}"] if low is not None else []
            return " and ".join([*bounds, *([f"{field} <= {high}"] if high is not None else [])])
        case And(parts):
            return " and ".join(map(_words, parts))
        case Not(part):
            return f"not ({_words(part)})"


def _hit(rows: Searchable, rank: int, group: Group) -> SearchHit:
    hit = group.hit
    image = None if hit.image is None else rows.image_path(hit.image)
    return SearchHit(rank, hit.id, hit.score, hit.text, image, hit.metadata, group.duplicates, group.similar)


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - 1:,} more are" if len(ids) > 1 else " is"
    return f"{shorten(ids[0], 100)}{more}"
