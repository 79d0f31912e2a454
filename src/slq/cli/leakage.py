"""`slq leakage`: what of a test set stands in a training set."""

from __future__ import annotations

from typing import TYPE_CHECKING

from slq import console
from slq.cli.command import command
from slq.config import LeakageConfig

if TYPE_CHECKING:
    from slq.evaluation.leakage import Leakage

MAX_ROWS = 20


@command("leakage")
def app(config: LeakageConfig) -> int:
    """Find the images and texts of a test set that stand in a training set too.

    Images are compared by the ids that well-known names carry, by their bytes, and as near-duplicates: a copy that was saved again,
    scaled or slightly brightened is found. Equal texts are listed apart: different images may have the same caption. Ends with code 1
    if images are in both.

        slq leakage data/train/captions.jsonl data/test/captions.jsonl
    """
    from slq.data import read_pairs
    from slq.evaluation.leakage import compare_files
    from slq.io.files import write_json
    from slq.io.outputs import check_output_file

    assert config.train is not None and config.test is not None
    if config.output:
        check_output_file(config.output, [config.train, config.test], overwrite=config.overwrite)
    pairs = read_pairs(config.train, **config.reading)
    console.list_failures(pairs.failures)
    console.check_skipped(pairs.failures, pairs.num_rows, config.max_skipped)
    found = compare_files(pairs, config.test, config.split, config.max_hamming_distance, config.max_skipped, **config.reading)
    if config.output:
        write_json(config.output, found.to_json())
        console.note(f"Written to {config.output}.")
    skipped = len(pairs.failures) + len(found.unread) + len(found.skipped)
    console.show({**found.to_json(), "num_skipped": skipped}, lambda: _show(found, config, skipped))
    return 1 if found.images else 0


def _show(found: Leakage, config: LeakageConfig, skipped: int) -> None:
    """The first matches, then how many there are."""
    kinds = (
        ("same id", found.by_id),
        ("same file", found.by_content),
        ("near-duplicate", found.by_near_duplicate),
        ("same text", found.texts),
    )
    rows = [[why, match.test, match.train, match.distance] for why, matches in kinds for match in matches]
    if rows:
        console.table(["why", "test", "training", "distance"], rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        console.result(f"... and {len(rows) - MAX_ROWS} more{'' if config.output else '; --output FILE writes all of them'}.")
    counts = ", ".join(f"{len(matches)} {why}" for why, matches in kinds[:3])
    console.result(f"{len(found.images)} of {found.test_images} test images stand among {found.train_images} training images: {counts}.")
    texts = f"{len(found.texts)} of {found.test_texts} test texts stand among {found.train_texts} training texts"
    console.result(f"{texts}; {skipped} row(s) or image(s) skipped.")
