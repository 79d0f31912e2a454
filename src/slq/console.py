"""What a person reads: results on stdout; progress, warnings and skipped items on stderr.

Colour, boxes and bars only where the stream is a terminal (and NO_COLOR is not set, for colour): a pipe gets plain text.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO

from slq.errors import DataError, Failure, shorten

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

MAX_COLUMNS = 6  # a table with more is turned: its rows become columns
COLUMN_GAP = "  "


@dataclass
class Settings:
    """How much is said and in which form; the command line sets them once, at its start.

    quiet leaves out notes and progress, verbose adds details, json prints results as JSON.
    """

    quiet: bool = False
    verbose: bool = False
    json: bool = False


settings = Settings()
_PATIENCE = 0.5  # seconds without a word
_said = threading.Event()


def result(text: str = "") -> None:
    """Print a line of a result to stdout.

    Args:
        text: the line.
    """
    _said.set()
    print(text, file=sys.stdout)


def result_json(document: Any) -> None:
    """Print one JSON document to stdout: on a terminal with line breaks, in a pipe on one line.

    Args:
        document: what JSON can hold.
    """
    print(json.dumps(document, ensure_ascii=False, indent=2 if sys.stdout.isatty() else None), file=sys.stdout)


def show(document: Any, text: Callable[[], None]) -> None:
    """Print a result: as one JSON document with --json, else as `text` prints it.

    Args:
        document: for --json.
        text: prints the result for a person.
    """
    if settings.json:
        result_json(document)
    else:
        text()


def show_lines(documents: Sequence[Any], text: Callable[[], None]) -> None:
    """Print a result of many parts: as one JSON document a line with --json, else as `text` prints it.

    Args:
        documents: for --json, one a line.
        text: prints the result for a person.
    """
    if settings.json:
        for document in documents:
            print(json.dumps(document, ensure_ascii=False), file=sys.stdout)
    else:
        text()


def result_line(document: Any) -> None:
    """Print one JSON document on a line of stdout at once, for a program that waits for it.

    Args:
        document: what JSON can hold.
    """
    _said.set()
    print(json.dumps(document, ensure_ascii=False), file=sys.stdout, flush=True)


def note(text: str) -> None:
    """Say on stderr what is good to know, unless --quiet.

    Args:
        text: the line.
    """
    _said.set()
    if not settings.quiet:
        print(text, file=sys.stderr)


def detail(text: str) -> None:
    """Say on stderr what only --verbose asks for.

    Args:
        text: the line.
    """
    if settings.verbose:
        print(text, file=sys.stderr)


def warn(text: str) -> None:
    """Say on stderr what may be wrong.

    Args:
        text: a sentence.
    """
    _coloured(f"Warning: {text}", "yellow")


def error(text: str) -> None:
    """Say on stderr what went wrong.

    Args:
        text: a sentence.
    """
    _coloured(f"Error: {text}", "red")


def list_failures(failures: Sequence[Failure], heading: str = "item(s) skipped:") -> None:
    """List on stderr every item that was skipped, with the reason.

    Args:
        failures: what was skipped.
        heading: what stands behind their number.
    """
    if failures:
        _coloured(f"{len(failures)} {heading}", "yellow")
        for failure in failures:
            print(f"  {failure}", file=sys.stderr)


def check_skipped(failures: Sequence[Failure], total: int, max_skipped: float) -> None:
    """Stop if too many items were skipped, or all of them, whatever fraction is allowed.

    Args:
        failures: those items, with reasons.
        total: how many items there are, those skipped among them.
        max_skipped: the fraction of them that may be skipped.

    Raises:
        DataError: if more were, or none is left.
    """
    check_skipped_count(len(failures), failures[0] if failures else "", total, max_skipped)


def check_skipped_count(skipped: int, first: object, total: int, max_skipped: float) -> None:
    """Stop as `check_skipped` does, where the items that were skipped are too many to be held in memory.

    Args:
        skipped: how many were.
        first: one of them, with the reason.
        total: see `check_skipped`.
        max_skipped: likewise.

    Raises:
        DataError: likewise.
    """
    if skipped and skipped >= total:
        raise DataError(f"None of {total:,} items can be used; the first is {shorten(first, 400)}")
    if skipped > max_skipped * total:
        count = f"{skipped:,} of {total:,} items"
        raise DataError(
            f"{count} cannot be used, more than the fraction {max_skipped:g} of --max-skipped; the first is {shorten(first, 400)}"
        )


def percent(fraction: float, interval: Sequence[float] | None = None) -> str:
    """A fraction in percent, with its interval in brackets where it has one.

    Args:
        fraction: from 0 to 1.
        interval: its bounds, from 0 to 1; None for none.

    Example:
        >>> percent(0.5, (0.4, 0.625))
        '50.0% [40.0, 62.5]'
    """
    shown = f"{fraction:.1%}"
    return shown if interval is None else f"{shown} [{100 * interval[0]:.1f}, {100 * interval[1]:.1f}]"


def metric(value: Any) -> str:
    """A metric: fractions in percent, counts as they are.

    Args:
        value: a fraction or a count.
    """
    return percent(value) if isinstance(value, float) else str(value)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]], turn: bool = True) -> None:
    """Print a table to stdout; one that is too wide for a terminal is turned.

    Args:
        header: names of the columns.
        rows: one sequence of cells for each row, as long as the header.
        turn: whether a table of many columns has its rows shown as columns.
    """
    cells = [[str(cell) for cell in row] for row in [header, *rows]]
    if turn and len(header) > MAX_COLUMNS:
        cells = [list(column) for column in zip(*cells, strict=True)]
    if not sys.stdout.isatty():
        _plain_table(cells)
        return
    from rich.markup import escape
    from rich.table import Table

    shown = Table(*map(escape, cells[0]))
    for row in cells[1:]:
        shown.add_row(*map(escape, row))
    _console(sys.stdout).print(shown)


def pairs_of(values: Mapping[str, Any]) -> None:
    """Print names and values to stdout, one pair a line.

    Args:
        values: by name.
    """
    width = max(map(len, values), default=0) + 1
    for name, value in values.items():
        result(f"{name + ':':<{width}} {value}")


class ProgressBar:
    """Counts what is done; calling it advances it, with a short note beside the bar where one is given."""

    def __init__(self, description: str, total: int | None, progress: Progress | None):
        self._progress = progress
        self._description, self._done, self._begin = description, 0, time.perf_counter()
        self._task: TaskID | None = None if progress is None else progress.add_task(description, total=total, note="")

    def __call__(self, count: int = 1, note: str | None = None) -> None:
        """Advance by a count; without a note the rate so far is shown.

        Args:
            count: how much was done since the last call.
            note: stands beside the bar; None for the rate so far.
        """
        self._done += count
        self._show(completed=self._done, note=note)

    def update(self, *, completed: int, total: int | None = None, description: str | None = None, note: str | None = None) -> None:
        """Set what is done, and where given the total, the description and the note.

        Args:
            completed: how much is done.
            total: how much there is; None for what it was.
            description: what is done; None for what it was.
            note: stands beside the bar; None for the rate so far.
        """
        self._done = completed
        self._show(completed=completed, note=note, **{key: value for key, value in _given(total=total, description=description)})

    def _show(self, *, note: str | None, **changes: Any) -> None:
        if self._progress is not None and self._task is not None:
            seconds = max(time.perf_counter() - self._begin, 1e-9)
            self._progress.update(self._task, note=f"{self._done / seconds:.1f}/s" if note is None else note, **changes)


@contextmanager
def progress_bar(description: str, total: int | None = None, *, show: bool = True, completed: int = 0) -> Iterator[ProgressBar]:
    """A progress bar on stderr; none where stderr is no terminal, nor with --quiet.

    Args:
        description: what is done, as a verb, such as `encoding`.
        total: how many there are, if known.
        show: False where somebody else shows it, such as another process of the same run.
        completed: how many were done before.
    """
    if not (show and sys.stderr.isatty()) or settings.quiet:
        yield ProgressBar(description, total, None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(sys.stderr)) as progress:
        bar = ProgressBar(description, total, progress)
        if completed:
            bar.update(completed=completed)
        yield bar


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A sign of life on stderr for what takes long once and cannot be counted ahead.

    Args:
        what: is waited for.
    """
    if settings.quiet or not sys.stderr.isatty():
        yield
        return
    _said.set()
    with _console(sys.stderr).status(what):
        yield


@contextmanager
def sign_of_life(what: str) -> Iterator[None]:
    """Say on stderr what has begun, unless something else was said soon: the first import of torch alone takes seconds.

    Args:
        what: has begun, such as `slq train`.
    """
    timer = threading.Timer(_PATIENCE, lambda: None if _said.is_set() else note(f"{what}: loading ..."))
    timer.daemon = True
    _said.clear()
    if settings.quiet or "torch" in sys.modules:
        _said.set()
    timer.start()
    try:
        yield
    finally:
        _said.set()
        timer.cancel()


def _console(stream: TextIO) -> Console:
    from rich.console import Console

    return Console(file=stream)


def _coloured(text: str, colour: str) -> None:
    _said.set()
    if sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        from rich.text import Text

        _console(sys.stderr).print(Text(text, style=colour), soft_wrap=True)
    else:
        print(text, file=sys.stderr)


def _plain_table(rows: Iterable[Sequence[str]]) -> None:
    """Columns of equal width without boxes; a cell of several lines is shown as one."""
    flat = [[" ".join(cell.split()) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*flat, strict=True)]
    for row in flat:
        result(COLUMN_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _given(**values: Any) -> Iterable[tuple[str, Any]]:
    return [(name, value) for name, value in values.items() if value is not None]
