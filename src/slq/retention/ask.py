"""Who asks: questions to a model, batch by batch, and its answers kept, so that a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from slq.errors import Failure
from slq.io.files import append_jsonl, map_os_errors
from slq.models import FrozenModel
from slq.types import Item

BATCH_SIZE = 32  # of the suites' own score, so that answers are those it counts
Conversation = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answer:
    """One question, what was expected and what was given. score: how right that is, from 0 to 1, by the task's own rule."""

    id: str
    kind: str
    question: str
    expected: str
    given: str
    score: float


class Task(Protocol):
    """Questions that every model is asked alike. about: where they come from, with their version."""

    name: str
    about: Mapping[str, Any]

    def __len__(self) -> int: ...

    def ask(self, asker: Asker) -> list[Answer]:
        """The answers to all of its questions, in their order."""
        ...


class Asker:
    """Puts one task's conversations to a model, a batch at a time.

    kept: finds answers of an earlier run. progress: called with the number of questions just answered. Batches are cut before anything is
    looked up: padding changes the last digits of numbers, so a run that goes on asks in the very same company.
    """

    def __init__(
        self,
        model: FrozenModel,
        batch_size: int = BATCH_SIZE,
        kept: CachedAnswers | None = None,
        progress: Callable[[int], None] = lambda count: None,
    ):
        self.model, self.batch_size, self.kept, self.progress = model, batch_size, kept, progress
        self.failures: list[Failure] = []
        self.asked: list[Conversation] = []

    def ask(self, conversations: Sequence[Conversation], max_new_tokens: int) -> list[str]:
        """Greedy answers, in the order of the conversations."""
        self.asked += conversations
        answers: list[str] = []
        for start in range(0, len(conversations), self.batch_size):
            batch = conversations[start : start + self.batch_size]
            address = f"{content_hash(batch)} {max_new_tokens}"
            given = None if self.kept is None else self.kept.answers.get(address)
            if given is None:
                given = self.model.generate(batch, max_new_tokens)
                if self.kept is not None:
                    self.kept.add(address, given)
            answers += given
            self.progress(len(batch))
        return answers


class CachedAnswers:
    """A file of JSON lines, one for each batch, for answers that depend on `about`; a line cut off by a stop is asked again."""

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        stated = json.dumps(about, sort_keys=True)
        self.path = folder / f"{hashlib.sha256(stated.encode()).hexdigest()[:16]}.jsonl"
        self.answers: dict[str, list[str]] = {}
        with map_os_errors(self.path):
            folder.mkdir(parents=True, exist_ok=True)
            if not self.path.exists():
                self.path.write_text(stated + "\n", encoding="utf-8")
            lines = self.path.read_text(encoding="utf-8").split("\n")
            if lines[-1]:  # what comes next must not be joined to a line without an end
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n")
        for line in lines[1:]:
            try:
                kept = json.loads(line)
                self.answers[kept["batch"]] = kept["answers"]
            except (ValueError, KeyError, TypeError):
                continue

    def add(self, address: str, answers: Sequence[str]) -> None:
        """Keep a batch's answers; raises OutputError where the file cannot be written."""
        self.answers[address] = list(answers)
        append_jsonl(self.path, {"batch": address, "answers": list(answers)})


def content_hash(conversations: Sequence[Conversation], expected: Sequence[str] = ()) -> str:
    """sha256 over words and pixels of conversations, and over the answers that are expected."""
    digest = hashlib.sha256(json.dumps(list(expected)).encode())
    for conversation in conversations:
        for message in conversation:
            digest.update(f"\0{message['role']}".encode())
            for part in message["content"]:
                value = part[part["type"]]
                shown = f"{value.mode} {value.size}".encode() + value.tobytes() if isinstance(value, Image.Image) else str(value).encode()
                digest.update(b"\0" + part["type"].encode() + b"\0" + shown)
    return digest.hexdigest()


def as_item(conversation: Conversation) -> Item:
    """The words and the first image of a conversation, to be embedded."""
    parts = [part for message in conversation for part in message["content"]]
    words = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return Item(words or None, next((part["image"] for part in parts if part["type"] == "image"), None))
