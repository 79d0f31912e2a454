"""`slq index`: a collection of folders, images and tables, made or brought up to date."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from slq import console
from slq.cli.command import INTERRUPTED, command
from slq.config import IndexConfig, IndexModelConfig
from slq.errors import DataError, OutputError, StoreLockedError

if TYPE_CHECKING:
    from slq.index.collection import Collection
    from slq.index.run import UpdateReport


@command("index")
def app(config: IndexConfig, model: IndexModelConfig) -> int:
    """Make a collection of images and texts, or bring it up to date: only what is new or has changed is encoded.

    A file that was moved, or is equal to another one, is known by its content. What cannot be indexed is told with its reason and stops
    nothing. A run that is stopped, or killed, goes on with the same command; `slq search` finds what is indexed so far.

        slq index photos shop.csv -m my-adapter -c my-collection

        slq index -c my-collection --watch 60

        slq index -c my-collection --failed

        slq index -c my-collection --forget shop.csv
    """
    from slq.index.collection import Collection

    assert config.collection is not None
    collection = Collection(config.collection, model)
    if config.failed:
        return _list_failed(collection)
    code = _update(collection, config)
    while config.watch is not None and code != INTERRUPTED:
        try:
            time.sleep(config.watch)
        except KeyboardInterrupt:
            return 0
        try:
            code = _update(collection, config.again)
        except (DataError, OutputError, StoreLockedError) as error:  # a disk may be back the next time
            console.error(str(error))
    return code


def _update(collection: Collection, config: IndexConfig) -> int:
    try:
        report = collection.update(config)
    except KeyboardInterrupt:
        console.note("\nStopped. What was indexed is in the collection; the same command goes on.")
        return INTERRUPTED
    if not console.settings.json:
        _tell_failures(report, collection.folder)
    for note in report.notes:
        console.note(note)
    console.show(report.to_dict(), lambda: console.result(_closing_line(report, collection.folder)))
    return 1 if report.not_looked_at else 0


def _tell_failures(report: UpdateReport, folder: Path) -> None:
    failures = report.counts.failures
    console.list_failures(failures, "item(s) could not be indexed:")
    if report.counts.failed > len(failures):
        console.note(f"  {report.counts.failed:,} in all, with those of earlier runs: slq index -c {folder} --failed")
    for failure in report.not_looked_at:
        console.error(f"{failure}. What is indexed of it stays.")


def _closing_line(report: UpdateReport, folder: Path) -> str:
    counts = report.counts
    kinds = ("new", "changed", "moved", "duplicates", "deleted", "unchanged", "failed")
    found = {kind: getattr(counts, kind) for kind in kinds}
    done = ", ".join(f"{number:,} {kind}" for kind, number in found.items() if number)
    skipped = ", ".join(f"{number:,} {kind}" for kind, number in sorted(report.skipped.items(), key=lambda each: -each[1])[:6])
    rate = f"; {counts.encoded:,} encoded, {counts.encoded / max(report.seconds, 1e-9):.1f} a second" if counts.encoded else ""
    passed_over = f" Passed over: {skipped}{', ...' if len(report.skipped) > 6 else ''}." if skipped else ""
    return f"{report.rows:,} rows in {folder}: {done or 'nothing'} ({report.seconds:.1f} s{rate}).{passed_over}"


def _list_failed(collection: Collection) -> int:
    failures = collection.failed()
    documents = [{"item": failure.item, "reason": failure.reason} for failure in failures]

    def text() -> None:
        for failure in failures:
            console.result(str(failure))
        console.note(f"{len(failures):,} item(s) could not be indexed. They are tried again when they change, or with --retry-failed.")

    console.show_lines(documents, text)
    return 0
