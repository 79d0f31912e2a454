"""What pre-training is worth: a contrastive encoder of the miniature's shape that learns every weight on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from research.paper.study import Study, say, spread
from research.paper.tuning import Method, trainings
from research.pretraining.architecture import build_model, build_processor
from slq.errors import InputError

RATES, EPOCHS = (3e-4, 1e-3), 5  # times the epochs that the others have: it starts from nothing


def run(study: Study) -> dict[str, Any]:
    """The encoder's scores: the learning rate chosen as for the methods, all weights learned, the vision encoder's too.

    Raises InputError for data of one's own: the encoder has the miniature's shape and tokens.
    """
    if not study.is_miniature:
        raise InputError("The encoder from scratch is of the miniature's shape and world: leave out the data.")
    say("from scratch")
    other = study.beside(str(_untrained(study)))
    options = {"method": "full", "train_vision_encoder": True, "epochs": EPOCHS * study.size.epochs}
    rate = other.chosen_rate("scratch", RATES, **options)
    found = spread([each.measured["test"] for each in trainings(other, "scratch", Method(RATES, options), rate)])
    return study.write("scratch", {"test": found, "learning_rate": rate, "epochs": options["epochs"]})


def _untrained(study: Study) -> Path:
    """A folder of random weights with the model's tokenizer."""
    folder = study.out / "scratch"
    if not folder.exists():
        torch.manual_seed(0)
        tokenizer = study.model.processor.tokenizer
        assert isinstance(tokenizer, PreTrainedTokenizerFast)
        partial = folder.with_name("scratch.partial")
        build_model(tokenizer).save_pretrained(partial)
        build_processor(tokenizer).save_pretrained(partial)
        partial.rename(folder)
    return folder
