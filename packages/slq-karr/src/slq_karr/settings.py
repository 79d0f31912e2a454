"""What decides a set, kept beside it: a build that goes on must match it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.data.tables import read_json
from slq.errors import InputError
from slq.io.files import write_json
from slq_karr.categories import CATEGORIES

SETTINGS = "settings.json"
LATEST = ("images", "endpoint")  # recorded; the same images or model may stand elsewhere the next time


@dataclass(frozen=True)
class Options:
    """What is wanted of a set.

    Args:
        count: accepted queries; None: as many as there are images.
        mix: category and fraction.
        tries: queries written for an image, at most, until one is accepted.
        max_positives: other images that the model judges for each query, at most.
        captions_only: no image is sent, for a model that takes text alone.
        seed: the order in which images are taken.

    Raises:
        InputError: if a number is out of range.
    """

    count: int | None = None
    mix: tuple[tuple[str, float], ...] = tuple(CATEGORIES.items())
    tries: int = 3
    max_positives: int = 10
    captions_only: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("count", 1), ("tries", 1), ("max_positives", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise InputError(f"{name} must be at least {least}, not {value}.")


def settle(out: Path, wanted: Mapping[str, Any]) -> None:
    """Write the settings of a new set, or see that those of an earlier run are the same.

    Args:
        out: folder of the set.
        wanted: this run's settings.

    Raises:
        InputError: if the set was begun with others.
    """
    path = out / SETTINGS
    wanted = json.loads(json.dumps(wanted))
    if path.is_file():
        before = read_json(path, "build the set again", "build the set in a new folder")
        differ = [name for name in wanted if name not in LATEST and before.get(name) != wanted[name]]
        if differ:
            name = differ[0]
            raise InputError(
                f"{out} was begun with {name} = {_short(before.get(name))}, not {_short(wanted[name])}. Give what it was begun with, or a "
                f"new folder; copy {out / 'requests.jsonl'} there first, and what was paid for is not paid again."
            )
    write_json(path, wanted)


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:80] + "..."
