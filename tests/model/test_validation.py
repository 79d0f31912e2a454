"""Validation in training: of how many pairs it is, what chance gives, and that equal items tie."""

from __future__ import annotations

from dataclasses import replace

import pytest
from noisy import Noisy

from slq.training.log import _told
from slq.training.validation import validate


def test_validation_tells_of_how_many_pairs_it_is_and_what_chance_gives(encoder, pairs):
    scores = validate(encoder, pairs[:8])
    for way in ("query_to_positive", "positive_to_query"):
        assert scores[f"val/{way}/queries"] == 8
        assert scores[f"val/{way}/random_hit@1"] == pytest.approx(1 / 8) and scores[f"val/{way}/random_hit@5"] == pytest.approx(5 / 8)
    told = {"val/query_to_positive/hit@5": 0.75, "val/query_to_positive/random_hit@5": 0.625, "val/query_to_positive/queries": 8}
    assert _told(told) == ["hit@5 75.0% (chance 62.5%)", "8 pairs"] and _told({}) == []


@pytest.mark.slow
def test_equal_items_tie_in_validation_though_batches_would_round_them_apart(encoder, pairs):
    """One image stands beside twelve captions: whatever a batch does to its last digits, none of the twelve finds its own by luck."""
    few = [replace(pair, query=pairs[0].query) if n < 12 else pair for n, pair in enumerate(pairs)]
    assert validate(Noisy(encoder), few) == validate(encoder, few)
