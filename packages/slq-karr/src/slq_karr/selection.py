"""Which candidates a benchmark takes, and with which text: by its checks, or by the people who reviewed them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slq.errors import DataError, Failure
from slq_karr.candidates import QueryCandidate
from slq_karr.review.decisions import Decision, Histories, read_decisions

REVIEWS = "reviews.jsonl"


@dataclass(frozen=True)
class SelectedQuery:
    """A candidate that is taken. query: the text to use. reviews: how many reviewers decided, of whom `approved` accepted or edited."""

    candidate: QueryCandidate
    query: str
    reviews: int = 0
    approved: int = 0


def read_reviews(folder: Path) -> tuple[dict[str, list[Decision]], list[Failure]]:
    """Candidate id -> the decision that counts of each reviewer, the latest last; and the lines that are none."""
    decisions, failures = read_decisions(folder / REVIEWS)
    histories = Histories(decisions)
    found: dict[str, list[Decision]] = {}
    for reviewer in histories.reviewers():
        for candidate, decision in histories.latest(reviewer).items():
            found.setdefault(candidate, []).append(decision)
    return {candidate: sorted(own, key=lambda each: each.time) for candidate, own in found.items()}, failures


def select_queries(
    candidates: Sequence[QueryCandidate], reviews: Mapping[str, Sequence[Decision]], reviewed_only: bool = False
) -> list[SelectedQuery]:
    """The candidates that a benchmark takes.

    Reviewed ones if more than half of their reviewers accepted or edited, others if every check passed.

    Args:
        candidates: of the set.
        reviews: candidate id -> the decision that counts of each reviewer, the latest last; its latest edit is the text to use.
        reviewed_only: take nothing that nobody reviewed.

    Returns:
        The selected queries, in the order of the candidates.

    Raises:
        DataError: if a review is of a candidate that is not there.
    """
    unknown = reviews.keys() - {each.id for each in candidates}
    if unknown:
        raise DataError(f"{REVIEWS} reviews {min(unknown)!r}, which the set does not hold; it belongs to another set")
    selected = []
    for each in candidates:
        own = reviews.get(each.id, [])
        approving = [review for review in own if review.decision != "reject"]
        if len(approving) * 2 > len(own) if own else each.accepted and not reviewed_only:
            edits = [review.query for review in approving if review.decision == "edit" and review.query.strip()]
            selected.append(SelectedQuery(each, edits[-1] if edits else each.query, len(own), len(approving)))
    return selected
