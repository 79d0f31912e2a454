"""The lines of the journal: what stands in each, with a checksum of its own, and how it is written and read."""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from slq.index.logfile import checksum
from slq.index.store import StoreMetadata

TABLES = """
create table state (one integer primary key check (one = 1), head integer not null, content text not null, checksum text not null);
create table commits (number integer primary key, content text not null, checksum text not null, ids blob not null);
create table files (path text primary key, size integer not null, checksum text not null, line_checksum text not null);
create table lost (id text primary key, reason text not null);
"""
HEAD = "select s.content, s.checksum, c.content, c.checksum from state s join commits c on c.number = s.head"


@dataclass(frozen=True)
class Commit:
    """A version of the table that counts.

    Attributes:
        number: counts commits from 1.
        version: of the table.
        rows: how many there are then.
        kind: `create`, `upsert`, `delete`, `optimize` or `repair`.
        manifest_size: in bytes.
        manifest_checksum: CRC-32 in hexadecimal.
    """

    number: int
    version: int
    rows: int
    kind: str
    manifest_size: int
    manifest_checksum: str


@dataclass(frozen=True)
class FileRecord:
    """A file as it was when the disk had it: bytes, and CRC-32 in hexadecimal."""

    size: int
    checksum: str


@dataclass(frozen=True)
class State:
    """What a process that reads must know.

    Attributes:
        metadata: what the vectors are.
        writers: how many processes have begun to write; another number, and files may have been replaced.
        rollbacks: how often commits were given up; another number, and rows that were read may be gone.
        head: the newest commit.
    """

    metadata: StoreMetadata
    writers: int
    rollbacks: int
    head: Commit


def write_state(connection: sqlite3.Connection, state: State, *, is_new: bool = False) -> None:
    """Write the one line of the state.

    Args:
        connection: in a transaction.
        state: what is written.
        is_new: whether there is no such line yet.
    """
    told = {**state.metadata.to_dict(), "writers": state.writers, "rollbacks": state.rollbacks, "head": state.head.number}
    content = json.dumps(told)
    statement = "insert into state values (1, ?, ?, ?)" if is_new else "update state set head = ?, content = ?, checksum = ?"
    connection.execute(statement, (state.head.number, content, checksum(content.encode())))


def insert_commit(connection: sqlite3.Connection, commit: Commit, ids: Sequence[str]) -> None:
    """Add a commit.

    Args:
        connection: in a transaction.
        commit: with a new number.
        ids: that it changed.
    """
    content = json.dumps(asdict(commit))
    packed = zlib.compress(json.dumps(list(ids)).encode(), level=1)  # which has a checksum of its own
    connection.execute("insert into commits values (?, ?, ?, ?)", (commit.number, content, checksum(content.encode()), packed))


def insert_files(connection: sqlite3.Connection, files: Mapping[str, FileRecord]) -> None:
    """Add files.

    Args:
        connection: in a transaction.
        files: by their paths in the table.
    """
    lines = [(path, file.size, file.checksum, line_checksum(path, file.size, file.checksum)) for path, file in files.items()]
    connection.executemany("insert or replace into files values (?, ?, ?, ?)", lines)


def line_checksum(path: str, size: int, found: str) -> str:
    """The checksum of a file's line.

    Args:
        path: of the file in the table.
        size: in bytes.
        found: checksum of the file itself.
    """
    return checksum(json.dumps([path, size, found]).encode())


def read_commit(content: str, found: str) -> Commit:
    """A commit from its line.

    Args:
        content: JSON.
        found: its checksum, as the line has it.

    Raises:
        ValueError: if the line is damaged.
    """
    try:
        return Commit(**_checked(content, found))
    except TypeError as error:
        raise ValueError(f"one of its commits is none ({error})") from error


def read_state(content: str, found: str, commit_content: str, commit_found: str) -> State:
    """The state from its line, and from that of its newest commit.

    Args:
        content: JSON.
        found: its checksum, as the line has it.
        commit_content: JSON.
        commit_found: its checksum, as the line has it.

    Raises:
        ValueError: if a line is damaged.
    """
    told, commit = _checked(content, found), read_commit(commit_content, commit_found)
    if told.get("head") != commit.number:
        raise ValueError("its newest commit is another one")
    return State(StoreMetadata.from_dict(told), int(told.get("writers", 0)), int(told.get("rollbacks", 0)), commit)


def _checked(content: str, found: str) -> dict[str, Any]:
    """The object that a line holds."""
    if checksum(content.encode()) != found:
        raise ValueError("one of its lines is not what was written")
    told = json.loads(content)
    if not isinstance(told, dict):
        raise ValueError("one of its lines is no object")
    return told
