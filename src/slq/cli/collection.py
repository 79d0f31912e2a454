"""`slq collection info | verify | optimize | export | delete`: a collection as a whole."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from cyclopts import App

from slq import console
from slq.cli.command import command, group
from slq.config import CollectionConfig, CollectionDeleteConfig, CollectionExportConfig
from slq.errors import ConfigError

if TYPE_CHECKING:
    from slq.index.collection import Collection


@command("collection info")
def info(config: CollectionConfig) -> None:
    """Say what a collection holds, of which sources and by which model. Loads no model.

    slq collection info my-collection
    """
    told = _opened(config).info()

    def text() -> None:
        last = told["last_run"] or {}
        console.pairs_of(
            {
                "rows": f"{told['rows']:,}",
                "failed": f"{told['failed']:,}",
                "model": f"{told['model'] or 'an encoder in Python'} ({told['fingerprint']}, {told['dim']} values)",
                "store": f"{told['store']}, {told['bytes'] / 2**20:.1f} MB",
                "last run": f"{last['at']}, {last['seconds']} s" if last else "none",
                **({"rebuilding": f"with {told['rebuilding_with']}"} if told["rebuilding_with"] else {}),
            }
        )
        console.table(["source", "kind", "rows", "failed", "path"], [_source(each) for each in told["sources"]])

    console.show(told, text)


@command("collection verify")
def verify(config: CollectionConfig) -> int:
    """Check all rows and the journal of a collection; repairs nothing. Code 1 if something is wrong.

    slq collection verify my-collection
    """
    collection = _opened(config)
    with console.waiting("checking every row"):
        failures = collection.verify()
    documents = [{"item": failure.item, "reason": failure.reason} for failure in failures]

    def text() -> None:
        for failure in failures:
            console.result(str(failure))
        mend = f"slq index -c {collection.folder} --repair encodes again what is damaged."
        console.result(f"{len(failures):,} problem(s): {mend}" if failures else f"{len(collection):,} rows, nothing wrong.")

    console.show({"rows": len(collection), "failures": documents}, text)
    return 1 if failures else 0


@command("collection optimize")
def optimize(config: CollectionConfig) -> None:
    """Make searching in a collection fast, and its files small again; results stay.

    slq collection optimize my-collection
    """
    collection = _opened(config)
    before = collection.num_bytes
    with console.waiting("optimising"):
        collection.optimize()
    after = collection.num_bytes
    console.show(
        {"bytes_before": before, "bytes": after},
        lambda: console.result(f"{before / 2**20:.1f} MB before, {after / 2**20:.1f} MB now."),
    )


@command("collection export")
def export(config: CollectionExportConfig) -> None:
    """Write the vectors of a collection into a file for other tools.

    slq collection export my-collection -o vectors.parquet
    """
    assert config.output is not None
    count = _opened(config).export(config.output, config.precision, config.overwrite)  # type: ignore[arg-type] # one of its choices
    console.show({"output": str(config.output), "rows": count}, lambda: console.result(f"{count:,} rows in {config.output}."))


@command("collection delete")
def delete(config: CollectionDeleteConfig) -> None:
    """Delete a collection. The images and tables that it was made of stay, and so does what else lies in its folder.

    slq collection delete my-collection
    """
    collection = _opened(config)
    num_bytes = collection.num_bytes
    if not config.yes and not _is_confirmed(f"Delete {collection.folder} ({num_bytes / 2**20:.1f} MB)? What it was made of stays."):
        raise ConfigError("Nothing is deleted: answer `y`, or pass --yes.")
    others = collection.delete()

    def text() -> None:
        stays = f" Not of the collection, and still there: {', '.join(path.name for path in others[:5])}." if others else ""
        console.result(f"{collection.folder} is deleted ({num_bytes / 2**20:.1f} MB).{stays}")

    console.show({"folder": str(collection.folder), "bytes": num_bytes, "stays": [str(path) for path in others]}, text)


app: App = group(
    "collection", "A collection of `slq index`: look into it, check, optimise, export or delete it.", info, verify, optimize, export, delete
)


def _opened(config: CollectionConfig) -> Collection:
    from slq.index.collection import Collection

    assert config.collection is not None
    return Collection(config.collection)


def _source(told: dict[str, Any]) -> list[str]:
    path = told["path"] + ("" if told["is_there"] else " (missing)")
    return [told["label"], told["kind"], f"{told['rows']:,}", f"{told['failed']:,}", path]


def _is_confirmed(question: str) -> bool:
    """Whether somebody at a terminal says yes."""
    if not sys.stdin.isatty():
        return False
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
