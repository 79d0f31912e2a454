"""Which candidates a set keeps, and in which words: by its checks, or by the people who reviewed them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from slq.errors import DataFileError
from slq.karr.candidates import Candidate
from slq.karr.lines import read_lines

REVIEWS = "reviews.jsonl"
DECISIONS = ("accept", "edit", "reject")


@dataclass(frozen=True)
class Review:
    """What one reviewer last decided of one candidate. query: the text as decided."""

    reviewer: str
    decision: str
    query: str
    time: str


@dataclass(frozen=True)
class Kept:
    """A candidate that stays. query: the text to use. reviews: how many reviewers decided, of whom `approved` accepted or edited."""

    candidate: Candidate
    query: str
    reviews: int = 0
    approved: int = 0


def read_reviews(out: Path) -> dict[str, list[Review]]:
    """Reviews by candidate: of each reviewer the latest line counts. Raises DataFileError for a broken line."""
    latest: dict[tuple[str, str], Review] = {}
    for row in read_lines(out / REVIEWS):
        try:
            key = (row["candidate"], row["reviewer"])
            review = Review(row["reviewer"], row["decision"], " ".join(str(row.get("query") or "").split()), row.get("time") or "")
        except (KeyError, TypeError, AttributeError) as error:
            raise DataFileError(f"{out / REVIEWS} holds a line that is no review ({error!r}); correct or remove it") from None
        if review.decision not in DECISIONS or (review.decision == "edit" and not review.query):
            raise DataFileError(
                f"{out / REVIEWS}: {key[1]!r} decided {review.decision!r} on {key[0]!r}; a decision is accept, reject, or edit with a query"
            )
        latest.pop(key, None)  # the order is that of the latest lines
        latest[key] = review
    found: dict[str, list[Review]] = {}
    for (candidate, _), review in latest.items():
        found.setdefault(candidate, []).append(review)
    return found


def keep(candidates: Sequence[Candidate], reviews: dict[str, list[Review]], reviewed_only: bool = False) -> list[Kept]:
    """Candidates that stay: reviewed ones if more than half of their reviewers accepted or edited, others if every check passed.

    The latest edit among those is the text to use. reviewed_only: nothing stays that nobody reviewed. Raises DataFileError for a review
    of a candidate that is not there.
    """
    unknown = reviews.keys() - {each.id for each in candidates}
    if unknown:
        raise DataFileError(f"{REVIEWS} reviews {min(unknown)!r}, which the set does not hold; it belongs to another set")
    kept = []
    for each in candidates:
        own = reviews.get(each.id, [])
        approving = [review for review in own if review.decision != "reject"]
        if len(approving) * 2 > len(own) if own else each.accepted and not reviewed_only:
            edits = [review.query for review in approving if review.decision == "edit"]
            kept.append(Kept(each, edits[-1] if edits else each.query, len(own), len(approving)))
    return kept
