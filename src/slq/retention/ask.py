"""Questions to a model, batch by batch, and its answers, cached so that a stopped run resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from slq.cache.records import JSON, RecordStore
from slq.errors import Failure
from slq.models import FrozenModel
from slq.types import Item

BATCH_SIZE = 32  # of the suites' own score, so that answers are those it counts
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """One question, what was expected and what was given.

    Attributes:
        id: the question's, unique within its task.
        kind: of question.
        question: its text.
        expected: the right answer.
        given: the model's answer.
        score: how right that is, from 0 to 1, by the task's own rule.
    """

    id: str
    kind: str
    question: str
    expected: str
    given: str
    score: float


class RetentionTask(Protocol):
    """Questions that every model is asked alike.

    Attributes:
        name: the task's.
        metadata: where the questions come from, with their version.
    """

    name: str
    metadata: Mapping[str, Any]

    def __len__(self) -> int:
        """How many questions it asks."""
        ...

    def ask(self, runner: QuestionRunner) -> list[Answer]:
        """Ask all of its questions.

        Args:
            runner: puts conversations to a model.

        Returns:
            The answers, in the order of the questions.
        """
        ...


class QuestionRunner:
    """Puts one task's conversations to a model, a batch at a time.

    Batches are cut before anything is looked up: padding changes the last digits of values, so a run that resumes asks the same batches.

    Args:
        model: what answers.
        batch_size: questions asked at once.
        cache: finds answers of an earlier run; None to ask everything.
        progress: called with the number of questions just answered.

    Attributes:
        failures: questions that could not be put.
        asked: every conversation, in order.
    """

    def __init__(
        self,
        model: FrozenModel,
        batch_size: int = BATCH_SIZE,
        cache: AnswerCache | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ):
        self.model, self.batch_size, self.cache, self.progress = model, batch_size, cache, progress
        self.failures: list[Failure] = []
        self.asked: list[Conversation] = []

    def ask(self, conversations: Sequence[Conversation], max_new_tokens: int) -> list[str]:
        """Ask greedily.

        Args:
            conversations: one for each question.
            max_new_tokens: where an answer ends at the latest.

        Returns:
            The answers, in the order of the conversations.
        """
        self.asked += conversations
        answers: list[str] = []
        for start in range(0, len(conversations), self.batch_size):
            batch = conversations[start : start + self.batch_size]
            question = f"{content_hash(batch)} {max_new_tokens}"
            given = None if self.cache is None else self.cache.get(question)
            if given is None:
                given = self.model.generate(batch, max_new_tokens)
                if self.cache is not None:
                    self.cache.put(question, given)
            answers += given
            self.progress(len(batch))
        return answers


class AnswerCache:
    """Answers in a folder, a record for each batch, found only under the very settings that they depend on.

    Args:
        folder: made if it is not there; several runs may share it.
        depends_on: all that decides an answer beside the question.

    Raises:
        OutputError: if the folder cannot be written.
    """

    def __init__(self, folder: Path, depends_on: Mapping[str, Any]):
        self._settings = json.dumps(depends_on, sort_keys=True)
        self._records: RecordStore[Any] = RecordStore(folder, JSON, required=True)

    def get(self, question: str) -> list[str] | None:
        """The answers to a batch of questions; None if they are not there.

        Args:
            question: names the batch: what is asked, and how.
        """
        return self._records.get(self._key(question))

    def put(self, question: str, answers: Sequence[str]) -> None:
        """Cache the answers to a batch of questions.

        Args:
            question: names the batch: what is asked, and how.
            answers: in the questions' order.
        """
        self._records.put(self._key(question), list(answers))

    def _key(self, question: str) -> str:
        return hashlib.sha256(f"{self._settings} {question}".encode()).hexdigest()


def content_hash(conversations: Sequence[Conversation], expected: Sequence[str] = ()) -> str:
    """Hash texts and pixels of conversations, and the answers that are expected.

    Args:
        conversations: each a sequence of messages.
        expected: the right answers.

    Returns:
        Sha256 in hexadecimal.
    """
    asked = [
        [[message["role"], *([part["type"], _content(part[part["type"]])] for part in message["content"])] for message in conversation]
        for conversation in conversations
    ]
    return hashlib.sha256(json.dumps([list(expected), asked]).encode()).hexdigest()


def _content(value: Any) -> str:
    return Item(image=value).content_hash if isinstance(value, Image.Image) else str(value)


def as_item(conversation: Conversation) -> Item:
    """The text and the first image of a conversation, to be encoded.

    Args:
        conversation: chat messages as transformers has them.
    """
    parts = [part for message in conversation for part in message["content"]]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return Item(text or None, next((part["image"] for part in parts if part["type"] == "image"), None))
