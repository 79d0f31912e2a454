"""The candidates of a set under construction, as its candidates.jsonl lists them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from slq.errors import DataError, Failure

FILE = "candidates.jsonl"


@dataclass(frozen=True)
class Verdict:
    """What an automatic check said of a candidate."""

    check: str
    passed: bool
    why: str


@dataclass(frozen=True)
class Candidate:
    """A query to be judged: the image it is for (relative to the set), its caption, target, category, and the checks' verdicts."""

    id: str
    image: str
    caption: str
    target: str
    category: str
    query: str
    verdicts: tuple[Verdict, ...]


def read_candidates(folder: Path) -> tuple[list[Candidate], list[Failure]]:
    """The candidates in the file's order, and the lines that cannot be used.

    Raises DataError if the file is missing, or no line of it can be used.
    """
    path = folder / FILE
    if not path.is_file():
        raise DataError(f"{folder} holds no {FILE}: name the folder of a set that slq karr has built.")
    found: dict[str, Candidate] = {}
    failures = []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            candidate = _parse(json.loads(line))
            if candidate.id in found:
                raise DataError(f"the id {candidate.id} again")
            found[candidate.id] = candidate
        except (ValueError, DataError) as error:
            failures.append(Failure(f"{FILE} line {number}", str(error)))
    if not found:
        raise DataError(f"{path} has no candidate to review{f': {failures[0]}' if failures else ''}.")
    return list(found.values()), failures


def _parse(line: Any) -> Candidate:
    if not isinstance(line, Mapping):
        raise DataError("not a JSON object")
    texts = {key: line.get(key) for key in ("id", "image", "caption", "target", "category", "query")}
    wrong = [key for key, value in texts.items() if not isinstance(value, str) or (key in ("id", "image", "query") and not value)]
    if wrong:
        raise DataError(f"{', '.join(wrong)}: a text is needed")
    place = PurePosixPath(str(texts["image"]).replace("\\", "/"))
    if place.is_absolute() or ".." in place.parts or ":" in place.parts[0]:
        raise DataError(f"the image {texts['image']} lies outside of the set")
    verdicts = line.get("verdicts") or {}
    if not isinstance(verdicts, Mapping) or not all(isinstance(each, Mapping) for each in verdicts.values()):
        raise DataError("verdicts: check -> {passed, why} is needed")
    read = tuple(Verdict(str(check), bool(each.get("passed")), _why(each)) for check, each in verdicts.items())
    return Candidate(verdicts=read, **{key: str(value) for key, value in texts.items()})


def _why(verdict: Mapping) -> str:
    """The reason; where there is none, what else the check noted ("answer: cat")."""
    extra = (f"{key}: {value}" for key, value in verdict.items() if key not in ("passed", "why"))
    return str(verdict.get("why") or "") or ", ".join(extra)
