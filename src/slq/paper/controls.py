"""Where knowledge retrieval comes from: two controls that lack what the claim rests on.

without facts   the miniature pre-trained the same way but never told a fact: what pairs of pictures and captions give by themselves
from scratch    a contrastive encoder of the same shape, every weight drawn at random and learned on the same pairs
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from slq.errors import InputError
from slq.methods import LastTokenReadout
from slq.miniature.architecture import build_model, build_processor
from slq.paper.study import Study, say, scores, spread
from slq.paper.tuning import METHODS, Method, trainings

SCRATCH_RATES, SCRATCH_EPOCHS = (3e-4, 1e-3), 5  # times the epochs that the others have: it starts from nothing


def run(study: Study, without_facts: Path | None, with_facts: Path | None = None) -> dict[str, Any]:
    """Knowledge and explicit retrieval of the backbone and of its controls, all latents at the learning rate that the backbone chose.

    Raises InputError for data of one's own.

    with_facts: weights of as many pre-training steps as `without_facts`, since the backbone itself may have had more.
    """
    if not study.is_miniature:
        raise InputError("The controls are of the miniature's world, in which it is known which facts were told: leave out the data.")
    latents = METHODS["latents"]
    rate = study.chosen_rate("latents", latents.rates, **latents.options)

    def readouts(of: Study, name: str) -> dict[str, Any]:
        say(name)
        return {
            f"{name}: last token": spread([scores(LastTokenReadout(of.backbone), of.sets("test"))]),
            f"{name}: latents": spread([each.measured["test"] for each in trainings(of, "latents", latents, rate)]),
        }

    found = readouts(study, "the backbone")
    for name, weights in {"with facts": with_facts, "without facts": without_facts}.items():
        if weights is not None:
            found |= readouts(study.beside(str(weights)), f"{name}, equal steps")
    study.write("controls", {"readouts": found})  # the rest takes several times as long
    say("from scratch")
    found["from scratch"] = from_scratch(study)
    return study.write("controls", {"readouts": found, "scratch_epochs": SCRATCH_EPOCHS * study.size.epochs})


def from_scratch(study: Study) -> dict[str, Any]:
    """The contrastive encoder's scores: the learning rate chosen as for the methods, all weights learned, the vision tower's too."""
    folder = study.out / "scratch"
    if not folder.exists():
        torch.manual_seed(0)
        tokenizer = study.backbone.processor.tokenizer
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        partial = folder.with_name("scratch.partial")
        build_model(tokenizer).save_pretrained(partial)
        build_processor(tokenizer).save_pretrained(partial)
        partial.rename(folder)
    other = study.beside(str(folder))
    options = {"method": "full", "tune_vision": True, "epochs": SCRATCH_EPOCHS * study.size.epochs}
    rate = other.chosen_rate("scratch", SCRATCH_RATES, **options)
    return spread([each.measured["test"] for each in trainings(other, "scratch", Method(SCRATCH_RATES, options), rate)])
