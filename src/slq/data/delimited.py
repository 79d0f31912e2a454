"""Rows of CSV and TSV files, as spreadsheets and scripts write them.

The separator is seen from the header: `,`, `;`, a tab or `|`. A quote that is never closed costs its own line and no other. Files of
tab-separated values often quote nothing: there, a line whose quotes make no sense but that has as many fields as the header is taken
literally.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from slq.data.lines import MAX_ROW, NOT_UTF8, TOO_LONG, is_utf8, read_lines
from slq.errors import DataError, shorten

_SEPARATORS = (",", ";", "\t", "|")
_SEP_LINE = re.compile(r'"?sep=(.)"?\s*')  # of Excel, before the header


class _TooLong(Exception):
    """A line that is longer than `MAX_ROW`; the rest of it has been skipped."""


class _Lines:
    """Lines of a file that can be put back.

    Attributes:
        number: of the line that was handed out last.
        taken: those that were handed out since `begin`.
    """

    def __init__(self, lines: Iterator[str | None]):
        self._lines, self._waiting = lines, deque[str | None]()
        self.number, self.taken = 0, list[str | None]()

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._waiting.popleft() if self._waiting else next(self._lines)
        self.number += 1
        self.taken.append(line)
        if line is None:
            raise _TooLong
        return line

    def begin(self) -> None:
        self.taken = []

    def put_back_all_but_first(self) -> None:
        self._waiting.extendleft(reversed(self.taken[1:]))
        self.number -= len(self.taken) - 1
        del self.taken[1:]


def read_delimited(path: Path) -> Iterator[tuple[str, dict[str, str] | DataError]]:
    """Read the rows; see `slq.data.tables.read_rows`.

    Raises:
        DataError: if the column names cannot be read.
    """
    # csv has one limit for the whole process; a caption may be longer than its default of 131,072 characters.
    csv.field_size_limit(max(csv.field_size_limit(), MAX_ROW))
    lines = _Lines(read_lines(path, newline=""))
    separator, columns = _header(path, lines)
    while (row := _next_row(lines, separator, columns)) is not None:
        number, cells = row
        source = f"{path.name} line {number}"
        if isinstance(cells, str):
            yield source, DataError(f"{source}: {cells}")
        elif cells:
            yield source, dict(zip(columns, cells, strict=True))


def _header(path: Path, lines: _Lines) -> tuple[str, list[str]]:
    """The separator and the column names, in the first line that is not blank."""
    separator = ""
    for line in _or_raise(path, lines):
        if match := _SEP_LINE.fullmatch(line):
            separator = match[1]
        elif line.strip():
            break
    else:
        return ",", []
    source = f"{path.name} line {lines.number}"
    if not is_utf8(line):
        raise DataError(f"{source}: the column names of {shorten(path)} are {NOT_UTF8}")
    if "\0" in line:
        raise DataError(f"{source}: {shorten(path)} holds characters with the number 0 in its column names; save the file as UTF-8")
    separator = separator or _separator(path, line)
    lines.taken = [line]
    columns = [cell.strip() for cell in _parsed(lines, separator, line, source)]
    for place, column in enumerate(columns):
        if column and column in columns[:place]:
            raise DataError(f"{source}: the column {shorten(column)!r} of {shorten(path)} appears twice; rename or remove one")
    return separator, columns


def _or_raise(path: Path, lines: _Lines) -> Iterator[str]:
    try:
        yield from lines
    except _TooLong:
        raise DataError(f"{path.name} line {lines.number}: {TOO_LONG}") from None


def _parsed(lines: _Lines, separator: str, line: str, source: str) -> list[str]:
    """The cells of the header, which may go on in the following lines."""
    try:
        return next(csv.reader(_chained(line, lines), delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(f"{source}: not valid CSV ({error}); correct the quotes of the column names") from None
    except _TooLong:
        raise DataError(f"{source}: {TOO_LONG}") from None


def _chained(line: str, lines: _Lines) -> Iterator[str]:
    yield line
    yield from lines


def _separator(path: Path, header: str) -> str:
    """The usual separator of the suffix if the header has it, else the one that it has most of."""
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    return usual if usual in header else max(_SEPARATORS, key=lambda each: (header.count(each), each == usual))


def _next_row(lines: _Lines, separator: str, columns: list[str]) -> tuple[int, list[str] | str] | None:
    """The line at which the next row begins with its cells, none for a blank line, or what is wrong with it; None at the end."""
    lines.begin()
    number, fault, cells = lines.number + 1, "", list[str]()
    try:
        cells = next(csv.reader(lines, delimiter=separator, strict=True))  # strict: a forgotten quote must not swallow rows in silence
    except StopIteration:
        if not lines.taken:
            return None
    except csv.Error as error:
        fault = f"not valid CSV ({error}); correct the quotes of the row"
    except _TooLong:
        fault = TOO_LONG if lines.taken == [None] else "a quote that opens here is not closed; correct the quotes of the row"
    count = len(columns)
    if separator == "\t" and (fault or len(cells) != count or _are_rows(lines.taken, count)):
        literal = (lines.taken[0] or "").rstrip("\r\n").split("\t")
        if len(literal) == count:
            lines.put_back_all_but_first()
            cells, fault = literal, ""
    if len(cells) <= 1 and not fault and not any(cell.strip() for cell in cells):
        return number, []
    if not fault and len(cells) != count:
        hint = f"put values that contain {separator!r} in double quotes"
        fault = f"{len(cells)} field(s) where the header has {count}; {hint}"
    if fault:
        lines.put_back_all_but_first()
    elif not is_utf8("".join(cells)):
        fault = NOT_UTF8
    return number, fault or cells


def _are_rows(lines: list[str | None], count: int) -> bool:
    """Whether lines that quotes join are each a whole row without them."""
    return len(lines) > 1 and all(line is not None and line.count("\t") == count - 1 for line in lines)
