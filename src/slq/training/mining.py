"""Hard negatives: for each query the candidates that an encoder takes for answers although they are not.

sentence-transformers' `mine_hard_negatives` does not fit: it tells items apart as values of a pandas column, where two files with the
same image are two, and needs `datasets`; here an item is its content (`Item.content_hash`).

Shapes: Q queries, C candidates, b queries of one block, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from slq.data import Matches
from slq.encoders.base import BATCH_SIZE, Encoder
from slq.errors import Failure, InputError
from slq.types import Item, Pair, content_hash

CELLS = 2**24  # scores held at once
DIRECTIONS = ("query_to_positive", "positive_to_query", "both")


@dataclass(frozen=True)
class Mined:
    """What mining gave.

    Attributes:
        pairs: with their mined negatives after those they had; in the direction positive to query each positive is the query of a pair.
        failures: what was skipped.
        short: how many pairs got fewer negatives than were asked for.
    """

    pairs: tuple[Pair, ...]
    failures: tuple[Failure, ...]
    short: int


@dataclass(frozen=True)
class _Vectors:
    """Items by content: the position of each hash among `items`, whose embeddings are `vectors` (C, D)."""

    position: dict[str, int]
    items: list[Item]
    vectors: np.ndarray

    def of(self, hashes: Sequence[str]) -> np.ndarray:
        return self.vectors[[self.position[key] for key in hashes]]


def mine(
    encoder: Encoder,
    pairs: Sequence[Pair],
    num_negatives: int = 3,
    range_min: int = 0,
    absolute_margin: float = 0.05,
    batch_size: int = BATCH_SIZE,
    progress: Callable[[int], None] = lambda count: None,
    cells: int = CELLS,
    direction: str = "query_to_positive",
    workers: int | None = None,
) -> Mined:
    """Add hard negatives: the highest-ranked positives and negatives of all pairs that are not a query's own.

    A pair whose query cannot be used, or none of whose positives can, is skipped.

    Args:
        encoder: what ranks the candidates.
        pairs: all pairs.
        num_negatives: how many each gets at most.
        range_min: how many of a query's highest-ranked candidates, its positives not counted, are passed over.
        absolute_margin: a candidate whose cosine similarity comes within this of the query's weakest positive is passed over as a likely
            match.
        batch_size: see `Encoder.encode`.
        progress: called with the number of items just encoded; `items_of` says how many there are.
        cells: scores held at once.
        direction: one of `DIRECTIONS`: negatives for the queries, for the positives, or for both, as pairs of their own.
        workers: see `Encoder.encode`.

    Raises:
        InputError: for options that cannot work.
    """
    if direction not in DIRECTIONS:
        raise InputError(f"Unknown direction {direction!r}: choose one of {', '.join(DIRECTIONS)}.")
    if num_negatives < 1 or range_min < 0 or not -2 <= absolute_margin <= 2:
        given = f"{num_negatives}, {range_min} and {absolute_margin}"
        raise InputError(f"Mining needs num_negatives >= 1, range_min >= 0 and an absolute_margin between -2 and 2, not {given}.")
    items, failures = _by_content(pairs)
    embedded = encoder.encode(list(items.values()), list(items), batch_size, on_error="skip", progress=progress, workers=workers)
    found = _Vectors({key: i for i, key in enumerate(embedded.ids)}, [items[key] for key in embedded.ids], embedded.vectors)
    reasons = {failure.item: failure.reason for failure in embedded.failures}
    usable = []
    for number, pair in enumerate(pairs):
        source = pair.source or f"pair {number}"
        failures += [Failure(source, reasons[item.content_hash]) for item in _parts(pair) if content_hash(item) in reasons]
        good = _without_bad(pair, found)
        if good is not None:
            usable.append(good)
    sides = [usable] if direction != "positive_to_query" else []
    sides += [reversed_pairs(usable)] if direction != "query_to_positive" else []
    mined = [negatives for side in sides for negatives in _mined(side, found, num_negatives, range_min, absolute_margin, cells)]
    short = sum(len(negatives) < num_negatives for negatives in mined)
    both = zip((pair for side in sides for pair in side), mined, strict=True)
    with_negatives = [replace(pair, negatives=(*pair.negatives, *negatives)) for pair, negatives in both]
    return Mined(tuple(with_negatives), tuple(dict.fromkeys(failures)), short)


def reversed_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Each positive as a query, whose positives are all the queries that it answers; negatives are not known in this direction.

    Args:
        pairs: as they are.
    """
    queries: dict[str, dict[str, Item]] = {}
    positives: dict[str, tuple[Item, str]] = {}
    for pair in pairs:
        for positive in pair.positives:
            positives.setdefault(positive.content_hash, (positive, pair.source))
            queries.setdefault(positive.content_hash, {}).setdefault(pair.query.content_hash, pair.query)
    return [Pair(positive, tuple(queries[key].values()), source=source) for key, (positive, source) in positives.items()]


def items_of(pairs: Sequence[Pair]) -> int:
    """How many different items `mine` will encode.

    Args:
        pairs: that negatives are added to.
    """
    return len(_by_content(pairs)[0])


def _mined(pairs: Sequence[Pair], found: _Vectors, count: int, range_min: int, margin: float, cells: int) -> Iterator[list[Item]]:
    """The mined negatives of each pair, hardest first; scores are held for a block of queries at a time."""
    matches = Matches(pairs)
    positives_of: dict[str, set[str]] = {}  # query -> its positives, of whichever pair they are
    for pair in pairs:
        positives_of.setdefault(matches.key(pair.query), set()).update(item.content_hash for item in pair.positives)
    candidates = list(dict.fromkeys(item.content_hash for pair in pairs for item in (*pair.positives, *pair.negatives)))
    column = {key: i for i, key in enumerate(candidates)}
    columns: dict[str, list[int]] = {}  # of candidates that differ in spelling alone
    for key, i in column.items():
        columns.setdefault(matches.key(found.items[found.position[key]]), []).append(i)
    candidates_CD = found.of(candidates)
    rows = max(1, cells // max(1, len(candidates)))
    for start in range(0, len(pairs), rows):
        block = pairs[start : start + rows]
        scores_bC = found.of([pair.query.content_hash for pair in block]) @ candidates_CD.T
        for pair, scores_C in zip(block, scores_bC, strict=True):
            most = scores_C[[column[key] for key in positives_of[matches.key(pair.query)]]].min() - margin
            known = matches.of(pair.query).union(map(matches.key, pair.negatives))
            scores_C[[i for key in known for i in columns.get(key, ())]] = -np.inf
            scores_C[_best(scores_C, range_min)] = -np.inf
            scores_C[scores_C > most] = -np.inf
            yield [found.items[found.position[candidates[i]]] for i in _best(scores_C, count)]


def _best(scores_C: np.ndarray, count: int) -> np.ndarray:
    """Positions of the `count` highest finite scores, highest first; equal ones in their order."""
    if count < len(scores_C):
        lowest = np.partition(scores_C, len(scores_C) - count)[len(scores_C) - count] if count else np.inf
        positions = np.nonzero((scores_C >= lowest) & np.isfinite(scores_C))[0]
    else:
        positions = np.nonzero(np.isfinite(scores_C))[0]
    return positions[np.argsort(-scores_C[positions], kind="stable")][:count]


def _by_content(pairs: Sequence[Pair]) -> tuple[dict[str, Item], list[Failure]]:
    """Every item once, and those whose file is gone."""
    items: dict[str, Item] = {}
    failures = []
    for number, pair in enumerate(pairs):
        for item in _parts(pair):
            try:
                items.setdefault(item.content_hash, item)
            except InputError as error:
                failures.append(Failure(pair.source or f"pair {number}", str(error)))
    return items, failures


def _parts(pair: Pair) -> tuple[Item, ...]:
    return (pair.query, *pair.positives, *pair.negatives)


def _without_bad(pair: Pair, found: _Vectors) -> Pair | None:
    """The pair without what could not be embedded; None if its query or all of its positives could not."""
    known = found.position
    positives, negatives = (tuple(item for item in items if content_hash(item) in known) for items in (pair.positives, pair.negatives))
    return replace(pair, positives=positives, negatives=negatives) if positives and content_hash(pair.query) in known else None
