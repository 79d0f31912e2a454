"""`slq compare`: results of `slq eval` beside each other, and beside published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from slq import console
from slq.cli.command import command
from slq.config import CompareConfig
from slq.errors import InputError

if TYPE_CHECKING:
    from slq.benchmarks import Published
    from slq.evaluation import Difference


@command("compare")
def app(config: CompareConfig) -> None:
    """Compare results: differences, their 95 % intervals, and how likely such a difference is by chance.

    The paired test is by cluster, since the captions of one image are not independent, and its interval leaves 0
    out where p is below 0.05. It needs files written with --per-query. Each p-value stands alone: among many, some are small by chance.

        slq compare before.json after.json

        slq compare coco.json --published
    """
    from slq.benchmarks import published_rows
    from slq.evaluation import check_comparable, compare, read_result

    first, *others = [read_result(path) for path in config.files]
    found: dict[Path, Sequence[Difference]] = {}
    for path, other in zip(config.files[1:], others, strict=True):
        try:
            check_comparable(first, other)
        except InputError as error:
            if not config.force:
                raise InputError(f"{error} Pass --force to see them beside each other.") from None
            console.warn(str(error))
        found[path] = compare(first, other)
    figures = published_rows(first) if config.published else []
    document = {
        "files": [str(path) for path in config.files],
        "differences": {str(path): [asdict(one) for one in each] for path, each in found.items()},
        "published": [asdict(figure) for figure in figures],
    }

    def text() -> None:
        for path, differences in found.items():
            _show(config.files[0], path, differences)
        if config.published and not figures:
            console.result("No published figures are known for these sets.")
        results = dict(zip(config.files, [first, *others], strict=True))
        for where in dict.fromkeys(figure.where for figure in figures):
            _show_published(where, [figure for figure in figures if figure.where == where], results)

    console.show(document, text)


def _show(first: Path, second: Path, found: Sequence[Difference]) -> None:
    """One table for each set that both files hold."""
    names = [first.stem, second.stem] if first.stem != second.stem else [str(first), str(second)]
    for where in dict.fromkeys(one.where for one in found):
        rows = []
        for one in (one for one in found if one.where == where):
            bounds = "" if one.ci95 is None else f"{100 * one.ci95[0]:+.1f} to {100 * one.ci95[1]:+.1f}"
            p = "" if one.p is None else f"{one.p:.4f}"
            rows.append([one.metric, console.metric(one.first), console.metric(one.second), f"{100 * one.change:+.1f}", bounds, p])
        console.table([where, *names, "points", "95 % interval", "p"], rows)
    if any(one.p is None for one in found):
        console.result("No p: ranks of the same queries are not in both files (slq eval --per-query).")


def _show_published(where: str, figures: Sequence[Published], results: Mapping[Path, Mapping[str, Any]]) -> None:
    """Our files, then one row for each published model."""
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    rows = []
    for path, result in results.items():
        if scores := result["scores"].get(where) or result.get("averages", {}).get(where):
            rows.append([path.stem, *[console.metric(scores[metric]) if metric in scores else "" for metric in metrics], "measured"])
    models: dict[tuple[str, str], dict[str, float]] = {}
    for figure in figures:
        models.setdefault((figure.model, figure.source), {})[figure.metric] = figure.value
    for (model, source), values in models.items():
        cells = [console.metric(values[metric]) if metric in values else "" for metric in metrics]
        rows.append([model, *cells, f"published: {source}"])
    console.table([where or "(set not stated)", *metrics, "source"], rows)
