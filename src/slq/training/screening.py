"""Which pairs can be trained on: every item is opened once beforehand, so that a bad one cannot stop a run half-way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from slq.errors import Failure, InputError
from slq.models import FrozenModel
from slq.types import Item, Pair


def screen_pairs(
    pairs: Sequence[Pair], model: FrozenModel, progress: Callable[[int], None] = lambda count: None
) -> tuple[list[Pair], list[Failure]]:
    """The pairs without their bad items, and what was left out.

    A bad positive or negative goes alone, as long as a positive is left; a bad query takes its pair along.
    """
    reasons: dict[int, str] = {}
    failures: list[Failure] = []
    usable: list[Pair] = []

    def is_good(item: Item, pair: Pair, number: int) -> bool:
        if id(item) not in reasons:
            try:
                model.message(item)
                reasons[id(item)] = ""
            except InputError as error:
                reasons[id(item)] = str(error)
                failures.append(Failure(pair.source or f"pair {number}", str(error)))
        return not reasons[id(item)]

    for number, pair in enumerate(pairs):
        good = replace(
            pair,
            positives=tuple(item for item in pair.positives if is_good(item, pair, number)),
            negatives=tuple(item for item in pair.negatives if is_good(item, pair, number)),
        )
        if is_good(pair.query, pair, number) and good.positives:
            usable.append(good)
        progress(1)
    return usable, failures
