"""A query under construction: what it is about, what each check said of it, and which images answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from slq.data import read_rows
from slq.errors import DataError, Failure
from slq.io.files import write_jsonl

CANDIDATES, SKIPPED = "candidates.jsonl", "skipped.jsonl"
CHECKS = ("leak", "true_of_image", "surface", "answerable", "duplicate")
_TEXTS = ("id", "image", "caption", "target", "category", "query")
_NEEDED = ("id", "image", "query")  # texts that may not be empty


@dataclass
class QueryCandidate:
    """One query.

    Args:
        id: of the query in its set.
        image: path of the image that the query is for, relative to the set.
        caption: of that image.
        target: what the query is about and must not name.
        names: other names of the target.
        category: the kind of knowledge that leads to the target.
        query: the text.
        verdicts: check -> `{"passed": true, false, or null where it was not made, "why": ...}`.
        positives: the images that answer it, its own first.
        unjudged: how many more images were likely to, beyond the number that is judged.
    """

    id: str
    image: str
    caption: str
    target: str
    names: tuple[str, ...]
    category: str
    query: str
    verdicts: dict[str, dict[str, Any]] = field(default_factory=dict)
    positives: list[str] = field(default_factory=list)
    unjudged: int = 0

    @property
    def accepted(self) -> bool:
        """Whether every check was made and passed."""
        return all(self.verdicts.get(check, {}).get("passed") is True for check in CHECKS)

    @property
    def failed(self) -> str:
        """The first check that it failed; empty if none did so far."""
        return next((check for check, verdict in self.verdicts.items() if verdict["passed"] is False), "")

    def judge(self, check: str, passed: bool, why: str = "", **more: Any) -> None:
        """Record what a check said.

        Args:
            check: one of `CHECKS`.
            passed: whether the query passed.
            why: the reason.
            **more: what else the check noted.
        """
        self.verdicts[check] = {"passed": passed, "why": why, **more}

    def to_dict(self) -> dict[str, Any]:
        """The candidate as a line of candidates.jsonl, with every check, made or not."""
        missing = {"passed": None, "why": f"not made: the check {self.failed!r} failed before" if self.failed else "not made yet"}
        return {
            "id": self.id,
            "image": self.image,
            "caption": self.caption,
            "target": self.target,
            "names": list(self.names),
            "category": self.category,
            "query": self.query,
            "verdicts": {check: self.verdicts.get(check, missing) for check in CHECKS},
            "positives": self.positives,
            "unjudged": self.unjudged,
            "accepted": self.accepted,
        }


def write_candidates(out: Path, candidates: Sequence[QueryCandidate], skipped: Sequence[Mapping[str, str]]) -> None:
    """Write both lists of a set, each whole or not at all.

    Args:
        out: folder of the set.
        candidates: every query written.
        skipped: one row for everything else that was dropped: `id`, `stage`, `reason`.
    """
    write_jsonl(out / CANDIDATES, (candidate.to_dict() for candidate in candidates))
    write_jsonl(out / SKIPPED, skipped)


def read_candidates(folder: Path) -> tuple[list[QueryCandidate], list[Failure]]:
    """Read the candidates of a set.

    Args:
        folder: of the set.

    Returns:
        The candidates in the file's order, and the lines that cannot be used.

    Raises:
        DataError: if the file is missing, or no line of it can be used.
    """
    path = folder / CANDIDATES
    if not path.is_file() or not path.stat().st_size:
        raise DataError(f"{folder} holds no {CANDIDATES}: name the folder of a set that `slq karr build` made.")
    found: dict[str, QueryCandidate] = {}
    failures = []
    for place, row in read_rows(path):
        try:
            if isinstance(row, DataError):
                raise row
            candidate = _parse(row)
            if candidate.id in found:
                raise DataError(f"the id {candidate.id} again")
            found[candidate.id] = candidate
        except DataError as error:
            failures.append(Failure(place, str(error)))
    if not found:
        raise DataError(f"{path} has no candidate that can be used{f': {failures[0]}' if failures else ''}.")
    return list(found.values()), failures


def read_own_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file that slq-karr wrote; a missing or empty file has none.

    Raises:
        DataError: if a row is broken.
    """
    if not path.is_file() or not path.stat().st_size:
        return []
    rows = []
    for _, row in read_rows(path):
        if isinstance(row, DataError):
            raise row
        rows.append(row)
    return rows


def _parse(row: Mapping[str, Any]) -> QueryCandidate:
    """A candidate from its JSON object."""
    wrong = [key for key in _TEXTS if not isinstance(row.get(key), str) or (key in _NEEDED and not row[key])]
    if wrong:
        raise DataError(f"{', '.join(wrong)}: a text is needed")
    path = PurePosixPath(row["image"].replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or ":" in path.parts[0]:
        raise DataError(f"the image {row['image']} lies outside of the set")
    verdicts = row.get("verdicts") or {}
    if not isinstance(verdicts, Mapping) or not all(isinstance(each, Mapping) and "passed" in each for each in verdicts.values()):
        raise DataError("verdicts: check -> {passed, why} is needed")
    made = {check: dict(verdict) for check, verdict in verdicts.items() if verdict["passed"] is not None}
    names, positives, unjudged = row.get("names") or [], row.get("positives") or [row["image"]], row.get("unjudged") or 0
    if not all(isinstance(listed, list) and all(isinstance(each, str) for each in listed) for listed in (names, positives)):
        raise DataError("names, positives: a list of texts is needed")
    if not isinstance(unjudged, int):
        raise DataError("unjudged: a number is needed")
    return QueryCandidate(
        **{key: row[key] for key in _TEXTS}, names=tuple(names), verdicts=made, positives=list(positives), unjudged=unjudged
    )
