"""`slq collection info | verify | optimize | calibrate | report | export | delete`: a collection as a whole."""

from __future__ import annotations

import itertools
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from cyclopts import App

from slq import console
from slq.cli.command import command, group
from slq.config import (
    CollectionCalibrateConfig,
    CollectionConfig,
    CollectionDeleteConfig,
    CollectionExportConfig,
    CollectionReportConfig,
    SearchModelConfig,
)
from slq.errors import ConfigError

if TYPE_CHECKING:
    from slq.index.collection import Collection
    from slq.index.judge_file import JudgeSettings


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


@command("collection calibrate")
def calibrate(config: CollectionCalibrateConfig, model: SearchModelConfig) -> None:
    """Measure what the model's yes is worth in a collection, so that `slq search` can judge and leave out what does not match.

    Texts of which it is known what they are true of, such as captions of the collection's images, choose the question that the model
    understands best, and from which score on a result is kept; other ones measure both, beside the similarity alone. Kept in the
    collection, for --judge and --rerank of `slq search`.

        slq collection calibrate my-collection data/validation/captions.jsonl

        slq collection calibrate my-collection riddles.jsonl --rewrite
    """
    from slq.data import read_pairs
    from slq.index.calibrating import calibrated
    from slq.index.encoders import CheckedEncoder, named_encoder
    from slq.index.judge_file import check_own, write_judge
    from slq.judge import QUESTIONS, matching

    assert config.collection is not None and config.pairs is not None
    collection = _opened(config)
    head, file = collection.head, collection.rows.judge_file
    check_own(file)
    read = read_pairs(config.pairs, splits=("validation", "val", "test"), **config.reading)
    console.list_failures(read.failures)
    console.check_skipped(read.failures, read.num_rows, config.max_skipped)
    encoder = CheckedEncoder(named_encoder(model, collection.folder, head), head, collection.folder)()
    with console.progress_bar("calibrating", len(QUESTIONS) + 2) as bar:
        done = itertools.count()
        settings, choice, found, unread = calibrated(
            collection.rows,
            encoder,
            matching(read.pairs),
            config.target_precision,
            config.max_queries,
            config.rewrite,
            config.seed,
            lambda what: bar.update(completed=next(done), description=what, note=""),
        )
    console.list_failures(unread)
    console.check_skipped([*read.failures, *unread], read.num_rows, config.max_skipped)
    write_judge(file, settings)

    def text() -> None:
        console.result(f"Judging by the question {choice}." if choice.works else f"{choice}.")
        ways = {"judged": found.judged, "similarity alone": found.unjudged}
        header = ["kept by", "right, of those kept", "queries that keep a right one", "without an answer: told so", "first one right"]
        told = [[way, cut.precision, cut.coverage, cut.told_nothing, cut.first_right] for way, cut in ways.items()]
        console.table(header, [[str(cell) for cell in row] for row in told])
        console.result(f"Measured on {found.num_queries} other texts; {_verdict(settings)}")

    console.show({"collection": str(collection.folder), **asdict(settings)}, text)


def _verdict(settings: JudgeSettings) -> str:
    """What `slq search --judge` will do."""
    if settings.judges:
        return "judging keeps more right results, so --judge asks the model."
    if settings.similarity_threshold is not None:
        return "judging is no gain beyond chance, so --judge goes by the similarity alone, which costs nothing."
    return "no threshold reaches the precision, so --judge leaves nothing out: lower --target-precision."


@command("collection report")
def report(config: CollectionReportConfig, model: SearchModelConfig) -> None:
    """Show a collection on one page: a map with its clusters, near-duplicates, hubs that come up for everything, and outliers.

    The page needs no network. Without --name-clusters no model is loaded.

        slq collection report my-collection -o report.html
    """
    from slq.index.encoders import load, named_by_folder
    from slq.index.report import page_of
    from slq.index.report import report as look
    from slq.io.files import write_text
    from slq.io.outputs import check_output_file

    assert config.output is not None
    collection = _opened(config)
    check_output_file(config.output, [collection.folder], overwrite=config.overwrite)
    head, frozen = collection.head, None
    if config.name_clusters:
        named = model if model.model is not None else named_by_folder(model, collection.folder, head.model, dict(head.options))
        frozen = load(named).model
    with console.progress_bar("comparing rows", min(len(collection), config.sample)) as advance:
        found = look(collection.rows, config.near, config.sample, config.seed, frozen, advance)
    write_text(config.output, page_of(found, collection.rows))
    told = found.to_dict()

    def text() -> None:
        doubled = sum(len(group["ids"]) - 1 for group in told["near_duplicates"])
        console.result(
            f"{told['rows']:,} rows: {doubled:,} nearly the same as another, {len(told['hubs'])} that come up for everything, "
            f"{len(told['clusters'])} clusters. The page is {config.output}."
        )

    console.show({"output": str(config.output), **told}, text)


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
    "collection",
    "A collection of `slq index`: look into it, check, optimise, calibrate, report on, export or delete it.",
    *(info, verify, optimize, calibrate, report, export, delete),
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
