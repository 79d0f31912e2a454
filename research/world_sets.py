"""Test sets of the miniature's world beyond images and captions: minimal pairs, composed queries and a style that no training saw."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from slq.data import RetrievalSet, read_beir, read_pairs
from slq.evaluation import bidirectional_sets

MINIMAL_PAIRS = "minimal pairs"


def minimal_pairs(folder: Path) -> RetrievalSet:
    """Captions of minimal pairs, each against the pair's two images alone, by what the two differ in; chance is half.

    Args:
        folder: what `slq sample-data` wrote.
    """
    whole = bidirectional_sets(read_pairs(folder))[0]
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
    place = {line["image"]: number for number, line in enumerate(lines)}
    captions, images = list(whole.queries), list(whole.corpus)
    candidates, differences = {}, {}
    for second, line in enumerate(lines):
        if "pair_of" in line:
            first = place[line["pair_of"]]
            for own in (first, second):
                candidates[captions[own]], differences[captions[own]] = (images[first], images[second]), line["differs_in"]
    queries = {caption: whole.queries[caption] for caption in candidates}
    qrels = {captions[own]: {images[own]: 1} for own in range(len(captions)) if captions[own] in candidates}
    # Both captions of a pair are right or wrong together more often than not.
    clusters = {caption: min(both) for caption, both in candidates.items()}
    return RetrievalSet(MINIMAL_PAIRS, queries, whole.corpus, qrels, (), differences, candidates=candidates, clusters=clusters)


def composed(folder: Path) -> RetrievalSet:
    """An image and a change ("but blue").

    Args:
        folder: what `slq sample-data` wrote.
    """
    return replace(read_beir(folder / "composed"), name="composed")


def unseen_style(folder: Path) -> list[RetrievalSet]:
    """Images and captions both ways, in a style that no training saw.

    Args:
        folder: what `slq sample-data --held-out-style` wrote.
    """
    return [replace(one, name=f"unseen style, {one.name}") for one in bidirectional_sets(read_pairs(folder))]
