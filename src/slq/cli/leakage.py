"""`slq leakage`: which of a test set stands in a training set, and the same check before `slq train`."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from slq.cli.shared import list_failures, progress_bar, table

if TYPE_CHECKING:
    from slq.data import PairFile, RetrievalSet
    from slq.evaluation.leakage import Leakage

MOST_SHOWN = 20


def leakage(
    train: Annotated[Path, typer.Option("--train", help="Training pairs, as `slq train --pairs` reads them.")],
    test: Annotated[Path, typer.Option("--test", help="Pairs, or a folder in BEIR layout. Of Karpathy splits: val and test.")],
    split: Annotated[str, typer.Option(help="Split of a BEIR folder (qrels/SPLIT.tsv).")] = "test",
    distance: Annotated[
        int | None, typer.Option(help="Bits of 256 in which images that look alike may differ. Default: 20. 0: only equal hashes.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write everything found here.")] = None,
) -> None:
    """Find the images and texts of a test set that stand in a training set too; ends with code 1 if images do.

    Images are compared by the ids that well-known names carry, by their bytes, and by their looks: a copy that was saved again, scaled
    or slightly brightened is found. Equal texts are listed apart: different images may have the same caption.

        slq leakage --train coco/dataset_coco.json --test karr/corpus --json leakage.json
    """
    from slq.data import read_pairs
    from slq.evaluation.leakage import DISTANCE
    from slq.io.files import write_json

    pairs = read_pairs(train)
    list_failures(pairs.failures)
    found = compare(pairs, test, split, DISTANCE if distance is None else distance)
    reasons = (("same id", found.by_id), ("same file", found.by_content), ("look alike", found.by_looks), ("same text", found.texts))
    rows = [[why, match.test, match.train, match.distance] for why, matches in reasons for match in matches]
    if rows:
        table(["why", "test", "training", "bits apart"], rows[:MOST_SHOWN])
    if len(rows) > MOST_SHOWN:
        typer.echo(f"... and {len(rows) - MOST_SHOWN} more{'' if json_file else '; --json FILE writes all of them'}.")
    typer.echo(f"{len(found.images)} of {found.test_images} test images stand among {found.train_images} training images: ", nl=False)
    typer.echo(", ".join(f"{len(matches)} {why}" for why, matches in reasons[:3]) + ".")
    typer.echo(f"{len(found.texts)} of {found.test_texts} test texts stand among {found.train_texts} training texts.")
    if json_file:
        write_json(json_file, found.to_json())
        typer.echo(f"Written to {json_file}.")
    if found.images:
        raise typer.Exit(1)


def compare(pairs: PairFile, test: Path, split: str = "test", distance: int | None = None) -> Leakage:
    """Read a test set and compare it with training pairs; what cannot be read is listed."""
    from slq.evaluation.leakage import DISTANCE, count_images, find_leakage

    asked = _read_test(test, split)
    with progress_bar("comparing images", count_images(pairs, asked)) as advance:
        found = find_leakage(pairs, asked, DISTANCE if distance is None else distance, advance)
    list_failures([*asked.failures, *found.skipped])
    return found


def warn_of_overlap(pairs: PairFile, tests: list[Path]) -> dict[str, Leakage]:
    """Compare each test set with training pairs, and say on the error stream which images and how many texts both hold.

    Of several processes that train together the first one does it.
    """
    if os.environ.get("RANK", "0") != "0":
        return {}
    found = {str(test): compare(pairs, test) for test in tests}
    for test, one in found.items():
        if one.images:
            typer.secho(f"Warning: {test}: {one.summary()}. Scores on it will be too high.", fg="yellow", err=True)
        if one.texts:
            typer.secho(f"Note: {test}: {len(one.texts)} of its {one.test_texts} texts stand in the training set.", err=True)
    return found


def keeping(found: dict[str, Leakage], out: Path) -> Callable[[int, int, object], None]:
    """What writes leakage.json after the first step of a training, when its folder is made."""
    from slq.io.files import write_json

    content = {test: one.to_json() for test, one in found.items()}

    def after_step(step: int, total: int, encoder: object) -> None:
        if found:
            write_json(out / "leakage.json", content)
            found.clear()

    return after_step


def _read_test(path: Path, split: str) -> PairFile | RetrievalSet:
    from slq.data import read_beir, read_pairs
    from slq.data.karpathy import HELD_OUT_SPLITS

    return read_beir(path, split) if (path / "corpus.jsonl").is_file() else read_pairs(path, splits=HELD_OUT_SPLITS)
