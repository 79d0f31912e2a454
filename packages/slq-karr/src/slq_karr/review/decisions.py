"""Reviewers' decisions: one line each in reviews.jsonl, appended and on the disk before anybody is told that they are saved.

The latest line of a reviewer for a candidate counts. Undoing appends a line, too: what held before, or "undecided", with `"undo": true`.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from slq.errors import DataError, Failure, OutputError

CHOICES, UNDECIDED = ("accept", "edit", "reject"), "undecided"


@dataclass(frozen=True)
class Decision:
    """What a reviewer decided about a candidate, with the query as decided; `time` is UTC, ISO 8601."""

    candidate: str
    reviewer: str
    decision: str
    query: str
    note: str = ""
    time: str = ""
    undo: bool = False


def now() -> str:
    """UTC time to the second, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class Histories:
    """Every reviewer's decisions on every candidate, the undone ones taken away again."""

    def __init__(self, decisions: Iterable[Decision] = ()):
        self._stacks: dict[str, dict[str, list[Decision]]] = {}
        self._order: dict[str, list[str]] = {}
        for decision in decisions:
            self.add(decision)

    def add(self, line: Decision) -> None:
        """Take in the next line of the file."""
        stack = self._stacks.setdefault(line.reviewer, {}).setdefault(line.candidate, [])
        order = self._order.setdefault(line.reviewer, [])
        if not line.undo:
            stack.append(line)
            order.append(line.candidate)
        elif stack:
            stack.pop()
            del order[len(order) - 1 - order[::-1].index(line.candidate)]

    def latest(self, reviewer: str) -> dict[str, Decision]:
        """Candidate id -> the decision that counts."""
        return {candidate: stack[-1] for candidate, stack in self._stacks.get(reviewer, {}).items() if stack}

    def first(self, reviewer: str) -> dict[str, Decision]:
        """Candidate id -> the decision made before seeing anybody else's."""
        return {candidate: stack[0] for candidate, stack in self._stacks.get(reviewer, {}).items() if stack}

    def reviewers(self) -> list[str]:
        """Everybody who has decided something, by name."""
        return sorted(reviewer for reviewer in self._stacks if self.latest(reviewer))

    def undoing(self, reviewer: str) -> Decision | None:
        """The line that undoes the reviewer's last decision; None if there is nothing to undo."""
        order = self._order.get(reviewer)
        if not order:
            return None
        undone, *before = reversed(self._stacks[reviewer][order[-1]])
        restored = before[0] if before else Decision(undone.candidate, reviewer, UNDECIDED, undone.query)
        return Decision(undone.candidate, reviewer, restored.decision, restored.query, restored.note, now(), undo=True)


class ReviewLog:
    """The file of decisions, which other processes may append to at the same time.

    A line is whole when its newline is there. What a crash left without one is completed if it is a decision and dropped if not.
    """

    def __init__(self, path: Path):
        self.path = path
        self.histories = Histories()
        self.failures: list[Failure] = []
        self._read = self._lines = 0
        self._threads = threading.Lock()
        with self._alone():
            self._mend()
            self._take_in()

    def refresh(self) -> None:
        """Take in what was appended since."""
        with self._alone():
            self._take_in()

    def append(self, decision: Decision) -> None:
        """Write one line through to the disk.

        Raises:
            OutputError: if that fails; the file is as before.
        """
        with self._alone():
            self._append(decision)

    def undo(self, reviewer: str) -> Decision | None:
        """Undo the reviewer's last decision; the line written for it, None if there was nothing to undo."""
        with self._alone():
            self._take_in()
            line = self.histories.undoing(reviewer)
            if line:
                self._append(line)
            return line

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """No other thread and no other process reads or writes meanwhile."""
        lock = FileLock(self.path.with_name(self.path.name + ".lock"))
        with self._threads:
            try:
                lock.acquire()
            except OSError as error:
                raise OutputError(f"Decisions cannot be saved in {self.path.parent}: {error.strerror or error}.") from error
            try:
                yield
            finally:
                lock.release()

    def _append(self, decision: Decision) -> None:
        line = {key: value for key, value in asdict(decision).items() if key != "undo" or value}
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        is_new = not self.path.exists()
        self._mend()
        try:
            with self.path.open("ab", buffering=0) as file:
                before = file.seek(0, os.SEEK_END)
                try:
                    if file.write(data) != len(data):
                        raise OSError("the disk took a part of it only")
                    os.fsync(file.fileno())
                except OSError:
                    file.truncate(before)
                    raise
            if is_new:
                _sync_folder(self.path.parent)
        except OSError as error:
            raise OutputError(f"The decision is not saved, {self.path} cannot be written: {error.strerror or error}.") from error
        self._take_in()

    def _mend(self) -> None:
        """See to it that the file is empty or ends with a newline."""
        if not self.path.exists() or not self.path.stat().st_size:
            return
        with self.path.open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            if file.read() == b"\n":
                return
            file.seek(0)
            data = file.read()
            torn = data[data.rfind(b"\n") + 1 :]
            if _is_decision(torn):
                file.write(b"\n")
            else:
                file.truncate(len(data) - len(torn))
            os.fsync(file.fileno())

    def _take_in(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size < self._read:  # somebody put another file there
            self.histories, self.failures, self._read, self._lines = Histories(), [], 0, 0
        if size == self._read:
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        for line in whole.split(b"\n")[:-1]:
            self._lines += 1
            try:
                self.histories.add(parse(json.loads(line)))
            except (ValueError, DataError) as error:
                self.failures.append(Failure(f"{self.path.name} line {self._lines}", str(error)))
        self._read += len(whole)


def read_decisions(path: Path) -> tuple[list[Decision], list[Failure]]:
    """Every line of a file of decisions, and the lines that are none; a torn last line is dropped."""
    decisions, failures = [], []
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    for number, line in enumerate(lines, start=1):
        if number == len(lines) and not _is_decision(line):
            break
        try:
            decisions.append(parse(json.loads(line)))
        except (ValueError, DataError) as error:
            failures.append(Failure(f"{path.name} line {number}", str(error)))
    return decisions, failures


def parse(line: Any) -> Decision:
    """A decision from its JSON object.

    Raises:
        DataError: if it is none.
    """
    if not isinstance(line, Mapping):
        raise DataError("not a JSON object")
    wrong = [key for key in ("candidate", "reviewer", "decision", "query") if not isinstance(line.get(key), str)]
    if wrong:
        raise DataError(f"{', '.join(wrong)}: a text is needed")
    undo = bool(line.get("undo"))
    if line["decision"] not in (*CHOICES, *([UNDECIDED] if undo else [])):
        raise DataError(f"unknown decision {line['decision']!r}")
    texts = (line["candidate"], line["reviewer"], line["decision"], line["query"], str(line.get("note", "")), str(line.get("time", "")))
    return Decision(*texts, undo=undo)


def _is_decision(line: bytes) -> bool:
    try:
        return bool(parse(json.loads(line)))
    except (ValueError, DataError):
        return False


def _sync_folder(folder: Path) -> None:
    """Make a new file's name survive a crash, where the system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open a folder
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
