"""Published figures of public benchmarks, to stand beside results; they are never tested against: their queries are not ours to pair."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PUBLISHED = Path(__file__).with_name("published.toml")


@dataclass(frozen=True)
class Published:
    """One published figure, as a fraction, of a set or average.

    Attributes:
        where: the set or average; empty where the source does not say which.
        metric: the metric's name.
        model: the model's name, as published.
        value: the figure.
        source: where it was published.
    """

    where: str
    metric: str
    model: str
    value: float
    source: str


def published_rows(result: Mapping[str, Any]) -> list[Published]:
    """Find published figures of the result's benchmark.

    Args:
        result: as `read_result` gives it.

    Returns:
        Figures of the sets and averages that the result has; none without a benchmark.
    """
    benchmark = result.get("benchmark") or {}
    known = {"", *result["scores"], *result.get("averages", {})}
    found = []
    for table in tomllib.loads(PUBLISHED.read_text(encoding="utf-8"))["table"]:
        fits = table["benchmark"] == benchmark.get("name") and benchmark.get("variant") in table.get("variants", [benchmark.get("variant")])
        if not fits or table["set"] not in known:
            continue
        for model, values in table["rows"].items():
            for metric, value in zip(table["metrics"], values, strict=True):
                found.append(Published(table["set"], metric, model, round(value / 100, 6), table["source"]))
    return found
