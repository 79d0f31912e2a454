"""`slq compare`: results of `slq eval` side by side, and beside published figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slq.cli.shared import shares, table
from slq.errors import InputError

if TYPE_CHECKING:
    from slq.evaluation import Difference, Published


def compare(
    files: Annotated[list[Path], typer.Argument(help="Files of `slq eval --json`; the first is what the others are compared with.")],
    published: Annotated[
        bool, typer.Option("--published", help="Also show published figures of the same benchmark. They are not tested.")
    ] = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Compare also results of different data or protocols, with a warning.")] = False,
) -> None:
    """Compare results: differences, their 95 % intervals, and how likely such a difference is by chance (paired permutation test by
    cluster: the captions of one image are not independent).

    The tests need files written with --per-query. Each p-value stands alone: among many, some are small by chance.

        slq compare before.json after.json
        slq compare coco.json --published
    """
    from slq.evaluation import check_comparable, published_rows, read_result
    from slq.evaluation import compare as differences

    if len(files) < 2 and not published:
        raise InputError("There is nothing to compare with: name a second file, or pass --published.")
    first, *others = [read_result(path) for path in files]
    for path, other in zip(files[1:], others, strict=True):
        try:
            check_comparable(first, other)
        except InputError as error:
            if not anyway:
                raise InputError(f"{error} Pass --anyway to see them side by side.") from None
            typer.secho(f"Warning: {error}", fg="yellow", err=True)
        _show(files[0], path, differences(first, other))
    if published:
        figures = published_rows(first)
        if not figures:
            typer.echo("No published figures are known for these sets.")
        for where in dict.fromkeys(figure.where for figure in figures):
            _show_published(where, [figure for figure in figures if figure.where == where], dict(zip(files, [first, *others], strict=True)))


def _show(first: Path, second: Path, found: Sequence[Difference]) -> None:
    names = [first.stem, second.stem] if first.stem != second.stem else [str(first), str(second)]
    for where in dict.fromkeys(one.where for one in found):
        rows = []
        for one in (one for one in found if one.where == where):
            bounds = "" if one.ci95 is None else f"{100 * one.ci95[0]:+.1f} to {100 * one.ci95[1]:+.1f}"
            p = "" if one.p is None else f"{one.p:.4f}"
            rows.append([one.metric, *shares([one.first, one.second]), f"{100 * one.change:+.1f}", bounds, p])
        table([where, *names, "points", "95 % interval", "p"], rows)
    if any(one.p is None for one in found):
        typer.echo("No p: ranks of the same queries are not in both files (slq eval --per-query).")


def _show_published(where: str, figures: Sequence[Published], results: Mapping[Path, Mapping[str, Any]]) -> None:
    """Our files, then one row for each published model."""
    metrics = list(dict.fromkeys(figure.metric for figure in figures))
    rows = []
    for path, result in results.items():
        if scores := result["scores"].get(where) or result.get("averages", {}).get(where):
            rows.append([path.stem, *[shares([scores[metric]])[0] if metric in scores else "" for metric in metrics], "measured"])
    models: dict[tuple[str, str], dict[str, float]] = {}
    for figure in figures:
        models.setdefault((figure.model, figure.source), {})[figure.metric] = figure.value
    for (model, source), values in models.items():
        cells = [shares([values[metric]])[0] if metric in values else "" for metric in metrics]
        rows.append([model, *cells, f"published: {source}"])
    table([where or "(set not stated)", *metrics, "source"], rows)
