"""Many results in one table: a row a run, with the settings in which the runs differ."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# Of a run's record what says when and where, or follows from the rest.
_NO_SETTINGS = frozenset(
    {"final_scores", "steps", "pairs", "date", "hardware", "python", "torch", "transformers", "sentence_transformers", "slq"}
)


@dataclass(frozen=True)
class RunTable:
    """Rows of equal columns, ready to be shown or written.

    Attributes:
        settings: names of the settings in which the runs differ.
        metrics: names of the scores, `SET METRIC`.
        rows: for each run its name, settings and scores; None where a run has none.
    """

    settings: tuple[str, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    @property
    def header(self) -> list[str]:
        """Names of the columns."""
        return ["run", *self.settings, *self.metrics]

    def to_csv(self) -> str:
        """As CSV, scores as fractions."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([self.header, *(["" if cell is None else cell for cell in row] for row in self.rows)])
        return text.getvalue()

    def to_markdown(self) -> str:
        """As a table of Markdown, scores in percent."""
        lines = [self.header, ["---"] * len(self.header), *map(self.shown, self.rows)]
        return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)

    def shown(self, row: Sequence[Any]) -> list[str]:
        """A row as a person reads it.

        Args:
            row: one of `rows`.
        """
        count = 1 + len(self.settings)
        scores = ["" if cell is None else f"{cell:.1%}" if isinstance(cell, float) else str(cell) for cell in row[count:]]
        return [*("" if cell is None else str(cell) for cell in row[:count]), *scores]


def run_table(results: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]) -> RunTable:
    """Put results beside each other.

    Args:
        results: by the name of the run, as `read_result` gives them.
        metrics: which scores of each set, and of each average.
    """
    settings = {name: settings_of(result) for name, result in results.items()}
    known = list(dict.fromkeys(key for each in settings.values() for key in each))
    told = tuple(key for key in known if len({json.dumps(each.get(key), sort_keys=True) for each in settings.values()}) > 1)
    scores = {name: _scores(result, metrics) for name, result in results.items()}
    columns = tuple(dict.fromkeys(key for each in scores.values() for key in each))
    rows = tuple(
        (name, *(_plain(settings[name].get(key)) for key in told), *(scores[name].get(column) for column in columns)) for name in results
    )
    return RunTable(told, columns, rows)


def settings_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """What a result was made with: base model, encoder, protocol, and how an adapter was trained.

    Args:
        result: as `read_result` gives it.
    """
    base, benchmark = result.get("base_model") or {}, result.get("benchmark") or {}
    training = {key: value for key, value in (result.get("training") or {}).items() if key not in _NO_SETTINGS}
    told = {
        "base_model": base.get("name"),
        **(result.get("encoder") or {}),
        "truncate_dim": result.get("truncate_dim"),
        "prompts": bool(benchmark.get("prompts")),
        "data_sha256": (result.get("data_sha256") or "")[:12],
    }
    return {**training, **told}


def _scores(result: Mapping[str, Any], metrics: Sequence[str]) -> dict[str, Any]:
    found = {**result["scores"], **result.get("averages", {})}
    return {f"{name} {metric}": scores[metric] for name, scores in found.items() for metric in metrics if metric in scores}


def _plain(value: Any) -> Any:
    """A setting as one cell."""
    if isinstance(value, Mapping):
        return ",".join(f"{key}={_plain(each)}" for key, each in value.items())
    return " ".join(str(_plain(each)) for each in value) if isinstance(value, Sequence) and not isinstance(value, str) else value
