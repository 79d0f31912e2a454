"""Every request and every answer, kept line by line: the one source of truth of what was asked and paid for.

A line is on the disk before the next request of its worker goes out, so a build that is killed loses at most the answers under way.
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from slq.errors import DataError, InputError
from slq.io.files import map_os_errors

Line = dict[str, Any]
# What was answered, and so is never sent again as it was: usable, not as asked for, or a refusal to answer.
ANSWERED, MALFORMED, REFUSED = "answered", "malformed", "refused"
UNANSWERED = "unanswered"  # given up: time-outs, an endpoint that refuses this one request
BEGUN = "begun"  # a run; what the one before gave up last was perhaps its endpoint's fault, and is asked again


class RequestLog:
    """The request log of a set, open for one build at a time; threads may write together.

    `spent` is what all lines cost together. A last line that a crash tore is dropped.

    Args:
        path: of the file.

    Raises:
        InputError: if another build has it open.
        DataError: if a line is broken.
    """

    def __init__(self, path: Path):
        self.path = path
        self.spent = 0.0
        self._lines: dict[str, list[Line]] = defaultdict(list)
        self._unanswered: dict[str, str] = {}  # given up after the last answer: perhaps the endpoint's fault, and not the request's
        self._given_up: dict[str, str] = {}
        self._begun = False
        self._lock = threading.Lock()
        self._held = FileLock(path.with_name(path.name + ".lock"))
        try:
            self._held.acquire(timeout=0)
        except Timeout:
            raise InputError(f"Another build is writing {path.parent}: wait for it, or stop it.") from None
        try:
            self._load()
            with map_os_errors(path):
                self._stream = path.open("ab")
        except BaseException:
            self._held.release()
            raise

    def __enter__(self) -> RequestLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stream.close()
        self._held.release()

    def answers(self, key: str) -> list[Line]:
        """The lines of a request that was answered, usably or not, in the order of its attempts."""
        with self._lock:
            return list(self._lines[key])

    def given_up(self, key: str) -> str:
        """Why a request was given up for good: others were answered after it in the same run; empty if it was not."""
        with self._lock:
            return self._given_up.get(key, "")

    @property
    def in_a_row(self) -> int:
        """How many requests were given up since the last answer."""
        with self._lock:
            return len(self._unanswered)

    def add(self, line: Line) -> None:
        """Write a line and see it on the disk."""
        with self._lock, map_os_errors(self.path):
            if not self._begun:
                self._write({"key": "", "status": BEGUN, "cost": 0.0, "time": line.get("time")})
                self._begun = True
            self._write(line)

    def _write(self, line: Line) -> None:
        self._stream.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._take(line)

    def _load(self) -> None:
        content = self.path.read_bytes() if self.path.is_file() else b""
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            with map_os_errors(self.path):
                os.truncate(self.path, whole)
        for number, text in enumerate(content[:whole].splitlines(), start=1):
            try:
                line = json.loads(text)
                self._take(line)
            except (ValueError, KeyError, TypeError) as error:
                raise DataError(f"{self.path} line {number} is broken ({error}): remove the line; its request is asked again") from None
        self._unanswered.clear()

    def _take(self, line: Line) -> None:
        self.spent += float(line["cost"])
        key, status = line["key"], line["status"]
        if status in (ANSWERED, MALFORMED, REFUSED):
            self._lines[key].append(line)
            self._given_up.update(self._unanswered)
            self._unanswered.clear()
            self._given_up.pop(key, None)
        elif status == UNANSWERED:
            self._unanswered[key] = line["why"]
        elif status == BEGUN:
            self._unanswered.clear()
