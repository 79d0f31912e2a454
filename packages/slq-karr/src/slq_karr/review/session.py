"""What the page shows and does, apart from HTTP: candidates, decisions, and what each reviewer may see of the others'."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from slq.errors import ImageError, InputError, MissingExtraError, TextError
from slq_karr.agreement import agreement
from slq_karr.candidates import CANDIDATES, QueryCandidate, read_candidates
from slq_karr.leaks import find_leaks
from slq_karr.review.decisions import CHOICES, Decision, ReviewLog, now

LONGEST_NAME, LONGEST_TEXT = 40, 2000  # characters
Latest = Mapping[str, Mapping[str, Decision]]  # reviewer -> candidate -> the decision that counts
# How the files of images begin that browsers show, and what they are called there.
IMAGES = {b"\x89PNG\r\n": "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif", b"RIFF": "image/webp", b"BM": "image/bmp"}


def reviewer_name(name: str) -> str:
    """A reviewer's name without white space around it.

    Raises:
        InputError: if it cannot be one.
    """
    name = " ".join(name.split())
    if not name or len(name) > LONGEST_NAME or not name.isprintable():
        raise InputError(f"A reviewer needs a name of 1 to {LONGEST_NAME} characters, not {name[:LONGEST_NAME]!r}.")
    return name


class Review:
    """A set that is being reviewed, by any number of reviewers at once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._alone = threading.RLock()
        self._stamp: tuple[int, int] | None = None
        self._reload()
        self.log = ReviewLog(folder / "reviews.jsonl")

    def state(self, reviewer: str) -> dict[str, Any]:
        """Everything the page needs for this reviewer."""
        reviewer = reviewer_name(reviewer)
        with self._alone:
            self._reload()
            self.log.refresh()
            latest = self._latest()
            return {
                "set": self.folder.resolve().name,
                "reviewer": reviewer,
                "candidates": [self._view(candidate, reviewer, latest) for candidate in self.candidates.values()],
                "failures": [str(failure) for failure in [*self.failures, *self.log.failures]],
                **self._summary(latest),
            }

    def decide(self, reviewer: str, candidate: str, decision: str, query: str = "", note: str = "") -> dict[str, Any]:
        """Save a decision.

        Args:
            reviewer: who decides.
            candidate: its id.
            decision: accept, edit or reject.
            query: the new text of an edit.
            note: a remark.

        Returns:
            The candidate as the reviewer sees it now, and how far everybody is.

        Raises:
            InputError: if there is no such candidate or decision, or an edit brings no new query.
        """
        reviewer, known = reviewer_name(reviewer), self._candidate(candidate)
        query, note = " ".join(query.split()), note.strip()
        if decision not in CHOICES:
            raise InputError(f"Unknown decision {decision!r}: choose one of {', '.join(CHOICES)}.")
        if max(len(query), len(note)) > LONGEST_TEXT:
            raise InputError(f"A query or note has at most {LONGEST_TEXT} characters.")
        if decision == "edit" and query in ("", known.query):
            raise InputError("An edit needs a new query: change the text, or accept it as it is.")
        text = query if decision == "edit" else known.query
        with self._alone:
            self.log.append(Decision(candidate, reviewer, decision, text, note, now()))
            return self._changed(known, reviewer)

    def undo(self, reviewer: str) -> dict[str, Any]:
        """Undo the reviewer's last decision.

        Raises:
            InputError: if there is none.
        """
        reviewer = reviewer_name(reviewer)
        with self._alone:
            line = self.log.undo(reviewer)
            if line is None:
                raise InputError("There is nothing to undo.")
            return self._changed(self.candidates.get(line.candidate), reviewer)

    def leaks(self, candidate: str, query: str) -> dict[str, Any]:
        """What in a new text names the candidate's target.

        Args:
            candidate: its id.
            query: the text.

        Returns:
            The leaks; `checked` is False, with the reason, where that cannot be told.
        """
        try:
            found = find_leaks(query, self._candidate(candidate).target)
        except (TextError, MissingExtraError) as error:
            return {"checked": False, "why": str(error), "leaks": []}
        return {"checked": True, "why": "", "leaks": [asdict(leak) for leak in found]}

    def image(self, candidate: str) -> tuple[bytes, str]:
        """A candidate's image and its media type; the set's own images/ may hold links to where they stand.

        Raises:
            ImageError: if it is missing or no image that a browser shows.
        """
        path = self.folder / self._candidate(candidate).image
        try:
            data = path.read_bytes()
        except OSError as error:
            raise ImageError(f"The image {path} cannot be read: {error.strerror or error}.") from error
        kind = next((kind for start, kind in IMAGES.items() if data.startswith(start)), None)
        if kind is None:
            raise ImageError(f"{path} is not an image that a browser shows: use PNG, JPEG, GIF, WebP or BMP.")
        return data, kind

    def _candidate(self, name: str) -> QueryCandidate:
        with self._alone:
            self._reload()
        if name not in self.candidates:
            raise InputError(f"There is no candidate {name!r} in {self.folder / CANDIDATES}.")
        return self.candidates[name]

    def _reload(self) -> None:
        """Read the candidates again when a builder has replaced them."""
        path = self.folder / CANDIDATES
        stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else None
        if stamp != self._stamp or stamp is None:
            candidates, self.failures = read_candidates(self.folder)
            self.candidates = {candidate.id: candidate for candidate in candidates}
            self._stamp = stamp

    def _changed(self, candidate: QueryCandidate | None, reviewer: str) -> dict[str, Any]:
        latest = self._latest()
        return {"candidate": self._view(candidate, reviewer, latest) if candidate else None, **self._summary(latest)}

    def _latest(self) -> Latest:
        return {name: self.log.histories.latest(name) for name in self.log.histories.reviewers()}

    def _view(self, candidate: QueryCandidate, reviewer: str, latest: Latest) -> dict[str, Any]:
        """A candidate with the reviewer's decision, and those of the others once that is made."""
        own = latest.get(reviewer, {}).get(candidate.id)
        others = [decided[candidate.id] for name, decided in latest.items() if name != reviewer and candidate.id in decided]
        return {
            **{key: getattr(candidate, key) for key in ("id", "image", "caption", "target", "category", "query")},
            "verdicts": [
                {"check": check, "passed": verdict["passed"], "why": _why(verdict)} for check, verdict in candidate.verdicts.items()
            ],
            "category_label": candidate.category.replace("_", " ").capitalize(),
            "own": asdict(own) if own else None,
            "others": [asdict(other) for other in others] if own else [],
        }

    def _summary(self, latest: Latest) -> dict[str, Any]:
        """How far each reviewer is, and how far they agree on what they decided without seeing the others' decisions."""
        first = {name: self.log.histories.first(name) for name in latest}
        labels = {name: {key: each.decision for key, each in made.items() if key in self.candidates} for name, made in first.items()}
        return {
            "progress": {name: sum(key in self.candidates for key in decided) for name, decided in latest.items()},
            "agreement": [asdict(each) for each in agreement(labels)],
        }


def _why(verdict: Mapping[str, Any]) -> str:
    """The reason of a check; where there is none, what else it noted ("answer: cat")."""
    extra = (f"{key}: {value}" for key, value in verdict.items() if key not in ("passed", "why"))
    return str(verdict.get("why") or "") or ", ".join(extra)
