"""What several commands share: their common options, and how results, failures and progress are shown."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

    from slq.errors import Failure

ADAPTER = Annotated[str, typer.Option("--adapter", "-a", help="Adapter folder or hub repository made by `slq train`.")]
BATCH = Annotated[
    int,
    typer.Option(
        min=1,
        help="Images embedded at once; of texts as many as have the tokens of these. Does not change the numbers; lower it if memory is "
        "short.",
    ),
]
WORKERS = Annotated[
    int | None,
    typer.Option(min=0, help="Processes that open and shape images while the model runs. Default: 0 on the CPU, else up to 4."),
]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]


def list_failures(failures: Sequence[Failure]) -> None:
    """Say what was left out, every one of it, on the error stream."""
    if failures:
        typer.secho(f"{len(failures)} item(s) left out:", fg="yellow", err=True)
        for failure in failures:
            typer.secho(f"  {failure}", err=True)


def shares(values: Iterable[float]) -> list[str]:
    """Cells of metrics: fractions in percent, counts as they are."""
    return [f"{value:.1%}" if isinstance(value, float) else str(value) for value in values]


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Print a table; metrics stand in rows where there are many."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if len(header) > 6:  # too wide for a terminal: turn it round
        header, rows = (
            [header[0], *[row[0] for row in rows]],
            [[name, *[row[i] for row in rows]] for i, name in enumerate(header) if i],
        )
    shown = Table(*header)
    for row in rows:
        shown.add_row(*[escape(str(cell)) for cell in row])
    Console().print(shown)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """A sign of life for what takes long once and cannot be counted ahead; nothing where the output is no terminal."""
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar with the rate so far, advanced by calling what it yields."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar: Progress
    rate = TextColumn("{task.fields[rate]}")
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), rate, TimeRemainingColumn()) as bar:
        task, begin, done = bar.add_task(what, total=total, rate=""), time.perf_counter(), 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            bar.update(task, advance=count, rate=f"{done / (time.perf_counter() - begin):.1f}/s")

        yield advance
