"""Questions and answers of one's own: a table with the columns `question` and `answer`, and `image` where a question has one."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.data.columns import ID_COLUMNS
from slq.data.roots import ImageRoot
from slq.data.tables import TABLE_SUFFIXES, Row, read_rows
from slq.data.texts import check_text
from slq.errors import DataError, Failure, InputError
from slq.retention.ask import Answer, QuestionRunner
from slq.types import Item

MAX_NEW_TOKENS = 32
_WORDS = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class OwnQuestion:
    """One row.

    Attributes:
        id: its own, or its place in the file.
        kind: its `category`, empty without one.
        item: the question, with its image.
        answers: any of them is right.
    """

    id: str
    kind: str
    item: Item
    answers: tuple[str, ...]

    def answered(self, task: str, given: str) -> Answer:
        """What a model answered, and whether that is right.

        Args:
            task: its name.
            given: the answer.
        """
        expected, score = " | ".join(self.answers), float(is_right(given, self.answers))
        return Answer(f"{task}/{self.id}", self.kind, self.item.text or "", expected, given, score)


class OwnTask:
    """Questions of a file; an answer is right if an expected one stands in it as whole words, whatever the case.

    Args:
        name: the task's.
        questions: what it asks.
        metadata: where they come from.
        failures: rows that cannot be asked.
    """

    def __init__(self, name: str, questions: Sequence[OwnQuestion], metadata: Mapping[str, Any], failures: Sequence[Failure] = ()):
        self.name, self.questions, self.metadata, self.failures = name, questions, metadata, tuple(failures)

    @classmethod
    def read(cls, file: Path, limit: int | None = None) -> OwnTask:
        """Read a file.

        Args:
            file: JSON lines, CSV, TSV or Parquet.
            limit: only the first so many questions; None for all.

        Raises:
            DataError: if it is missing or broken as a whole, or no row can be asked.
        """
        root = ImageRoot.of(file)
        questions: list[OwnQuestion] = []
        failures: list[Failure] = []
        for source, row in read_rows(file):
            try:
                if isinstance(row, DataError):
                    raise row
                questions.append(_question(row, source, root))
            except InputError as error:
                failures.append(Failure(source, str(error).removeprefix(f"{source}: ")))
        if not questions:
            raise DataError(f"{file}: no row can be asked; the first problem is {failures[0]}")
        if len({question.id for question in questions}) < len(questions):
            raise DataError(f"{file}: an id comes twice; give each question its own id, or none")
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return cls(file.stem, questions[:limit], {"source": file.name, "sha256": digest, "limit": limit}, failures)

    def __len__(self) -> int:
        return len(self.questions)

    def ask(self, runner: QuestionRunner) -> list[Answer]:
        """Ask all questions; see `RetentionTask.ask`."""
        answers = runner.ask([[runner.model.message(question.item)] for question in self.questions], MAX_NEW_TOKENS)
        return [one.answered(self.name, given) for one, given in zip(self.questions, answers, strict=True)]


def is_own(name: str) -> bool:
    """Whether a task is named by a file.

    Args:
        name: as a user gives it.
    """
    return Path(name).suffix.lower() in TABLE_SUFFIXES


def is_right(given: str, expected: Sequence[str]) -> bool:
    """Whether one of the expected answers stands in a given one, as whole words.

    Args:
        given: the model's answer.
        expected: accepted answers.

    Example:
        >>> is_right("It is a Cat.", ["cat"]), is_right("a category", ["cat"])
        (True, False)
    """
    words = _words(given)
    return any(f" {_words(each).strip()} " in words for each in expected)


def _words(text: str) -> str:
    return f" {' '.join(_WORDS.findall(text.casefold()))} "


def _question(row: Row, source: str, root: ImageRoot) -> OwnQuestion:
    question, answer, image = (row.get(name) for name in ("question", "answer", "image"))
    if not isinstance(question, str):
        raise DataError(f"has no text in 'question' (its columns: {', '.join(row)[:200]}); name the columns 'question' and 'answer'")
    accepted = [str(each) for each in (answer if isinstance(answer, list) else [answer]) if each is not None]
    answers = tuple(each for each in accepted if _words(each).strip())
    if not answers:
        raise DataError("has no answer with a letter or a digit in 'answer'; give one, or a list of those that are right")
    id_ = next((str(row[name]) for name in ID_COLUMNS if row.get(name)), source)
    found = root.find(image) if image not in (None, "") else None
    return OwnQuestion(id_, str(row.get("category") or ""), Item(check_text(question), found), answers)
