"""A query under construction: what it is about, what each check said of it, and which images answer it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from slq.errors import DataError
from slq_karr.lines import read_lines, write_lines

CANDIDATES, LEFT_OUT = "candidates.jsonl", "left_out.jsonl"
CHECKS = ("leak", "true_of_image", "surface", "answerable", "duplicate")


@dataclass
class Candidate:
    """One query. names: other names of the target. positives: the images that answer it, its own first. unjudged: how many more were
    likely to, but over the number that is judged.

    verdicts: check -> {"passed": true, false, or null where it was not asked for, "why": ...}.
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
        self.verdicts[check] = {"passed": passed, "why": why, **more}

    def to_dict(self) -> dict[str, Any]:
        missing = {"passed": None, "why": f"not asked: the check {self.failed!r} failed before" if self.failed else "not asked yet"}
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


def write_candidates(out: Path, candidates: Sequence[Candidate], left_out: Sequence[dict[str, str]]) -> None:
    """Write both lists of a set, each in one go."""
    write_lines(out / CANDIDATES, (candidate.to_dict() for candidate in candidates))
    write_lines(out / LEFT_OUT, left_out)


def read_candidates(out: Path) -> list[Candidate]:
    """The candidates of a set; raises DataError if there are none yet, or a line is broken."""
    rows = read_lines(out / CANDIDATES)
    if not rows:
        raise DataError(f"{out} holds no candidates yet; build a set there with slq karr build")
    try:
        return [
            Candidate(
                row["id"],
                row["image"],
                row["caption"],
                row["target"],
                tuple(row.get("names") or ()),
                row["category"],
                row["query"],
                {check: verdict for check, verdict in row["verdicts"].items() if verdict["passed"] is not None},
                list(row["positives"]),
                int(row.get("unjudged") or 0),
            )
            for row in rows
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{out / CANDIDATES} holds a line that is no candidate ({error!r}); build the set again") from None
