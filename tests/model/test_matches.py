"""Pairs that repeat or reverse one another are no negatives of each other: in batches, in mining and in validation."""

from __future__ import annotations

import pytest
import torch

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.training.batches import Batches
from slq.training.mining import mine
from slq.training.validation import validate
from slq.types import Item, Pair

CAT, DOG = Item("A red cat."), Item("the caf\u00e9's dog")
REPEATS = {
    "repeated": (CAT, DOG),
    "case": (Item("a RED cat."), DOG),
    "blanks": (Item(" A  red\tcat. "), DOG),
    "Unicode form": (CAT, Item("the cafe\u0301's dog")),
    "reversed": (DOG, CAT),
    "reversed and spelled otherwise": (Item("THE CAFE\u0301'S  DOG"), Item("a red cat.")),
}


@pytest.mark.parametrize("again", REPEATS.values(), ids=REPEATS)
def test_pairs_that_repeat_one_another_are_nobodys_negatives(again, model):
    query, positive = again
    other = Pair(Item("a boat"), (Item("a ship"),))
    ((batch,),) = Batches([Pair(CAT, (DOG,)), Pair(query, (positive,)), other], 3, 1, seed=0).from_step(0, 1)
    ours = [item not in (other.query, *other.positives) for item in batch.queries]
    theirs = [item not in (other.query, *other.positives) for item in batch.candidates]
    assert batch.positives.tolist() == [[mine == yours for yours in theirs] for mine in ours]


def test_mined_and_validated_pairs_are_matched_alike(model):
    encoder = LatentEncoder(model, LatentQueries.create(2, model.dim, generator=torch.Generator().manual_seed(1)))
    pairs = [Pair(CAT, (DOG,)), Pair(Item("a hen"), (Item("a RED  cat."),)), Pair(DOG, (Item("a puppy"),))]
    mined = mine(encoder, pairs, 9, absolute_margin=-2).pairs
    assert mined[0].negatives == (Item("a puppy"),) and Item("a RED  cat.") not in mined[2].negatives
    assert validate(encoder, [pairs[0], Pair(DOG, (CAT,))])["val/query_to_positive/hit@1"] == 1.0
