"""The data card of an exported set: what is in it, how it came about, and what it cannot tell."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from slq_karr.candidates import CHECKS, QueryCandidate
from slq_karr.categories import CATEGORIES, label
from slq_karr.selection import SelectedQuery


def data_card(
    settings: Mapping[str, Any], candidates: Sequence[QueryCandidate], selected: Sequence[SelectedQuery], gallery: Sequence[str], asked: int
) -> str:
    """The data card of an exported set.

    Args:
        settings: what the set was built with.
        candidates: every query written.
        selected: those that the export takes.
        gallery: all images of the set.
        asked: how many of them have a query.

    Returns:
        Markdown.
    """
    total = len(selected)
    positives = [len(each.candidate.positives) for each in selected]
    unjudged = sum(each.candidate.unjudged > 0 for each in selected)
    reviewed = [each for each in selected if each.reviews]
    edited = sum(each.query != each.candidate.query for each in selected)
    reviewers = f"{statistics.mean(each.reviews for each in reviewed):.1f}" if reviewed else "no"
    rejected = Counter(each.failed for each in candidates if each.failed)
    lines = [
        "# A set of knowledge-aware retrieval queries",
        "",
        f"{total} queries, none of which names what it is after, over {asked} images; {len(gallery)} with those that have no query.",
        "",
        "| category | queries | fraction | wanted |",
        "|---|---|---|---|",
        *_categories(selected, settings["mix"]),
        "",
        "## How it came about",
        "",
        f"- Images: {Path(settings['images']).name}{'' if not settings['captions_only'] else '; the model saw captions only'}.",
        f"- Written and judged by `{settings['model']}`, prompts {_listed(settings['prompts'])}.",
        f"- {len(candidates)} queries were written. {_rejections(rejected)}",
        f"- People reviewed {len(reviewed)} of the {total} selected queries, {reviewers} reviewers each, and edited {edited}.",
        f"- Positives: {statistics.mean(positives):.1f} images a query; {unjudged} queries have further images that show the target by "
        f"their captions and were not judged (over {settings['max_positives']} a query).",
        "",
        "`karr.jsonl` holds for each query its target, caption, the image's name in its source and its hash, the checks and the reviews.",
        "",
        "## What it cannot tell",
        "",
        "- The model that wrote the queries also judged them. Facts may be wrong, and what it does not know is missing.",
        "- An image that answers a query and was not judged counts as a wrong answer.",
        "- The images keep the licence of their source; nothing here changes it.",
        "",
        "## How to score",
        "",
        "    slq eval --benchmark karr --data THIS_FOLDER            among the images that have a query, both ways",
        "    slq eval --data THIS_FOLDER/whole-gallery               among all images",
        "",
    ]
    return "\n".join(lines)


def _categories(selected: Sequence[SelectedQuery], mix: Mapping[str, float]) -> list[str]:
    counts = Counter(each.candidate.category for each in selected)
    return [
        f"| {label(name)} | {counts[name]} | {100 * counts[name] / len(selected):.1f} % | {100 * mix.get(name, 0.0):.1f} % |"
        for name in CATEGORIES
        if counts[name] or mix.get(name)
    ]


def _rejections(rejected: Mapping[str, int]) -> str:
    found = [f"{check.replace('_', ' ')} {rejected[check]}" for check in CHECKS if rejected.get(check)]
    return f"The checks rejected: {', '.join(found)}." if found else "The checks rejected none."


def _listed(hashes: Mapping[str, str]) -> str:
    return ", ".join(f"{name} `{value}`" for name, value in hashes.items())
