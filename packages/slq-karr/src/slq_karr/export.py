"""A finished set as a benchmark that `slq eval` and other tools read.

DIR/karr.jsonl            one query a line: _id, image, text, category; target, caption, where it came from, what was checked
DIR/corpus.jsonl, queries.jsonl, qrels/test.tsv      the same in BEIR layout: the images that have a query
DIR/whole-gallery/        BEIR layout over all images of the set, those without a query included
DIR/images/             every image of the set
DIR/README.md             the data card
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.data import RetrievalSet, write_beir
from slq.data.tables import read_json
from slq.errors import DataError
from slq.io.files import map_os_errors, write_jsonl
from slq.io.outputs import OutputFolder
from slq.types import Item
from slq_karr.candidates import SKIPPED, read_candidates, read_own_rows
from slq_karr.card import data_card
from slq_karr.categories import CATEGORIES
from slq_karr.gallery import GalleryImage, link_or_copy, read_gallery
from slq_karr.selection import SelectedQuery, read_reviews, select_queries
from slq_karr.settings import SETTINGS
from slq_karr.verify import FindLeaks, leaks_of, own_leaks

TABLE, WHOLE = "karr.jsonl", "whole-gallery"


@dataclass(frozen=True)
class Exported:
    """What was written. images: those that have a query. warnings: what a person should look at."""

    queries: int
    images: int
    categories: Mapping[str, int]
    warnings: tuple[str, ...]


def export(folder: Path, out: Path, reviewed_only: bool = False, overwrite: bool = False, find_leaks: FindLeaks | None = None) -> Exported:
    """Write the selected queries of a set into a new folder.

    Args:
        folder: of the set.
        out: of the benchmark.
        reviewed_only: take only queries that somebody reviewed.
        overwrite: replace an earlier export.
        find_leaks: looks for targets in edited queries; by default `slq_karr.leaks`.

    Returns:
        What was written, and what a person should look at.

    Raises:
        DataError: if no query of the set can be selected, or a file of it is damaged.
        OutputExistsError: if the folder holds something, unless it is an earlier export and `overwrite` is given.
    """
    candidates, damaged = read_candidates(folder)
    if damaged:
        raise DataError(f"{folder} holds candidates that cannot be used, {damaged[0]}; build the set again")
    reviews, broken = read_reviews(folder)
    selected = select_queries(candidates, reviews, reviewed_only)
    if not selected:
        raise DataError(f"{folder} holds no query to keep: of {len(candidates)} candidates none was accepted")
    settings = read_json(folder / SETTINGS, "build the set again", "build the set again")
    uncaptioned = {row["id"] for row in read_own_rows(folder / SKIPPED) if row["stage"] == "caption"}
    shown = {each.image: each for each in read_gallery(folder)[0] if each.image not in uncaptioned}
    asked = [image for image in shown if image in {each.candidate.image for each in selected}]
    warnings = [*(f"{each}; this review does not count" for each in broken), *_edited_leaks(selected, find_leaks)]
    with OutputFolder.create(out, "karr export", overwrite=overwrite) as output, map_os_errors(out):
        (output.path / "images").mkdir()
        for image in shown:
            link_or_copy(folder / image, output.path / image)
        write_jsonl(output.path / TABLE, (_row(each, shown[each.candidate.image], settings) for each in selected))
        write_beir(output.path, _retrieval_set(output.path, selected, asked))
        write_beir(output.path / WHOLE, _retrieval_set(output.path, selected, list(shown)))
        card = data_card(settings, candidates, selected, list(shown), len(asked))
        (output.path / "README.md").write_text(card, encoding="utf-8")
    counts = Counter(each.candidate.category for each in selected)
    return Exported(len(selected), len(asked), {name: counts[name] for name in CATEGORIES if counts[name]}, tuple(warnings))


def _row(selected: SelectedQuery, shown: GalleryImage, settings: Mapping[str, Any]) -> dict[str, Any]:
    candidate = selected.candidate
    return {
        "_id": candidate.id,
        "image": candidate.image,
        "text": selected.query,
        "category": candidate.category,
        "target": candidate.target,
        "caption": candidate.caption,
        "source": shown.source,
        "sha256": shown.sha256,
        "written_by": settings["model"],
        **({"before_editing": candidate.query} if selected.query != candidate.query else {}),
        "checks": {check: verdict["passed"] for check, verdict in candidate.verdicts.items()},
        "reviews": {"reviewers": selected.reviews, "approved": selected.approved},
    }


def _retrieval_set(out: Path, selected: Sequence[SelectedQuery], gallery: Sequence[str]) -> RetrievalSet:
    inside = set(gallery)
    return RetrievalSet(
        name=out.name,
        queries={each.candidate.id: Item(each.query) for each in selected},
        corpus={image: Item(image=out / image) for image in gallery},
        qrels={each.candidate.id: {image: 1 for image in each.candidate.positives if image in inside} for each in selected},
        failures=(),
        categories={each.candidate.id: each.candidate.category for each in selected},
    )


def _edited_leaks(selected: Sequence[SelectedQuery], find_leaks: FindLeaks | None) -> list[str]:
    """Edited queries that name their target: no check has seen them."""
    found = []
    for each in selected:
        if each.query == each.candidate.query:
            continue
        look = find_leaks or own_leaks()  # asked for only here: it needs dictionaries
        if leaks := leaks_of(each.query, each.candidate.names, each.candidate.target, look):
            found.append(f"{each.candidate.id} was edited to {each.query!r}, which names its target {each.candidate.target!r}: {leaks}")
    return found
