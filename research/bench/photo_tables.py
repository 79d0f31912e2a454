"""The tables of docs/photographs.md, from research/results/photographs.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from research.bench.claims import day, result, table

NAMES = {
    "zero_shot": "last token, nothing learned",
    "untrained": "latent queries where training begins",
    "latents": "latent queries",
    "late_interaction": "latent queries, compared one by one",
    "latent_lora": "latent LoRA, rank 8",
    "latent_lora_facts": "latent LoRA and what the model tells",
    "lora": "LoRA, rank 8",
    "full": "full fine-tuning",
}
WAYS = {"t2i": "captions to photographs", "i2t": "photographs to captions"}
TOPS = (1, 5, 10)


def retrieval() -> str:
    found = result("photographs")
    header = ["method (seeds)", *(f"{way}: R@{k}" for way in WAYS.values() for k in TOPS)]
    rows = [[_name(row), *(_figure(row, f"{way}_r{k}") for way in WAYS for k in TOPS)] for row in found["rows"]]
    photographs = found["photographs"]
    told = (
        f"{photographs['test']:,} test photographs with {found['captions']:,} captions; {photographs['train']:,} to train on, "
        f"{photographs['validation']:,} to choose by. Intervals are by photograph. {day(found['provenance'])}\n"
    )
    return table(header, rows) + "\n" + told


def knowledge() -> str:
    found = result("photographs")
    header = [
        "method (seeds)",
        "knowledge hit@5",
        "questions still right, of those before",
        "weights",
        "numbers learned",
        "seconds of training",
    ]
    rows = [
        [
            _name(row),
            _figure(row, "knowledge_hit5"),
            f"{row['retention']['mean']:.1f}",
            "changed" if row["weights_changed"] else "as they were",
            f"{row['parameters']:,}",
            f"{row['seconds']['mean']:.0f}" if "seconds" in row else "",
        ]
        for row in found["rows"]
    ]
    return table(header, rows) + f"\n{day(found['provenance'])}\n"


def by_category() -> str:
    rows = [row for row in result("photographs")["rows"] if "knowledge_by_category" in row]
    categories = list(rows[0]["knowledge_by_category"])
    lines = [[NAMES[row["name"]], *(f"{row['knowledge_by_category'][each]['mean']:.1f}" for each in categories)] for row in rows]
    return table(["knowledge hit@5 in percent", *categories], lines) + f"\n{day(result('photographs')['provenance'])}\n"


def _name(row: Mapping[str, Any]) -> str:
    return f"{NAMES[row['name']]} ({row['seeds']})"


def _figure(row: Mapping[str, Any], figure: str) -> str:
    """A mean over seeds with its interval, in percent."""
    if figure not in row:
        return ""
    low, high = row["ci95"][figure]
    return f"{row[figure]['mean']:.1f} ({low:.1f} to {high:.1f})"


TABLES: dict[str, Callable[[], str]] = {
    "photographs retrieval": retrieval,
    "photographs knowledge": knowledge,
    "photographs categories": by_category,
}
