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
    from slq.evaluation.table import RunTable


@command("compare")
def app(config: CompareConfig) -> None:
    """Compare results: differences, their 95 % intervals, and how likely such a difference is by chance.

    The paired test is by cluster, since the captions of one image are not independent, and its interval leaves 0
    out where p is below 0.05. It needs files written with --per-query. Each p-value stands alone: among many, some are small by chance.

    Of more than two files one table is shown, a row a run with the settings in which they differ.

        slq compare before.json after.json

        slq compare first.json second.json third.json -o runs.csv

        slq compare coco.json --published
    """
    from slq.benchmarks import published_rows
    from slq.evaluation import check_comparable, compare, read_result, run_table
    from slq.io.outputs import check_output_file

    if config.output is not None:
        check_output_file(config.output, config.files, overwrite=config.overwrite)
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
    table = run_table(dict(zip(_names(config.files), [first, *others], strict=True)), config.metric)
    if len(config.files) > 2 and not table.metrics:
        raise InputError(f"None of the results has {' or '.join(config.metric)[:200]}: name another --metric.")
    document = {
        "files": [str(path) for path in config.files],
        "differences": {str(path): [asdict(one) for one in each] for path, each in found.items()},
        "runs": [dict(zip(table.header, row, strict=True)) for row in table.rows],
        "published": [asdict(figure) for figure in figures],
    }
    if config.output is not None:
        _write(config.output, document, table)

    def text() -> None:
        if len(found) > 1:
            console.table(table.header, list(map(table.shown, table.rows)), turn=False)
            console.note(
                f"Differences with intervals and p-values: slq compare {config.files[0]} {config.files[1]}, two at a time; or --json."
            )
        else:
            for path, differences in found.items():
                _show(config.files[0], path, differences)
        if config.published and not figures:
            console.result("No published figures are known for these sets.")
        results = dict(zip(config.files, [first, *others], strict=True))
        for where in dict.fromkeys(figure.where for figure in figures):
            _show_published(where, [figure for figure in figures if figure.where == where], results)
        for note in _prompt_notes(results) if figures else []:
            console.result(note)

    console.show(document, text)


def _write(output: Path, document: Mapping[str, Any], table: RunTable) -> None:
    """Write what the ending of the file asks for."""
    from slq.io.files import write_json, write_text

    ending = output.suffix.lower()
    if ending == ".json":
        write_json(output, document)
    else:
        write_text(output, table.to_csv() if ending == ".csv" else table.to_markdown())
    console.note(f"Written to {output}.")


def _names(files: Sequence[Path]) -> list[str]:
    """The files' names without their endings, or their paths where two have one name."""
    stems = [file.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file) for file in files]


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


def _prompt_notes(results: Mapping[Path, Mapping[str, Any]]) -> list[str]:
    """A sentence for each file that was measured with prompts where SLQ's published figures were not, or the other way round."""
    from slq.benchmarks import benchmarks

    notes = []
    for path, result in results.items():
        about = result["benchmark"]
        published, ours = (benchmarks.get(about["name"]).info.prompts, bool(about.get("prompts")))
        if published != ours:
            notes.append(
                f"{path}: measured {'with' if ours else 'without'} prompts, SLQ's published figures {'with' if published else 'without'}."
            )
    return notes


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
