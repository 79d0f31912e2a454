"""Where knowledge retrieval comes from: the miniature pre-trained the same way but never told a fact, and its twin that was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from research.paper.study import Study, say, scores, spread
from research.paper.tuning import METHODS, trainings
from slq.encoders import LastTokenEncoder
from slq.errors import InputError


def run(study: Study, without_facts: Path | None, with_facts: Path | None = None) -> dict[str, Any]:
    """Knowledge and explicit retrieval of the model and of its controls, all latents at the learning rate that the model chose.

    Raises InputError for data of one's own.

    with_facts: weights of as many pre-training steps as `without_facts`, since the model itself may have had more.
    """
    if not study.is_miniature:
        raise InputError("The controls are of the miniature's world, in which it is known which facts were told: leave out the data.")
    latents = METHODS["latents"]
    rate = study.chosen_rate("latents", latents.rates, **latents.options)

    def encoders(of: Study, name: str) -> dict[str, Any]:
        say(name)
        return {
            f"{name}: last token": spread([scores(LastTokenEncoder(of.model), of.sets("test"))]),
            f"{name}: latents": spread([each.measured["test"] for each in trainings(of, "latents", latents, rate)]),
        }

    found = encoders(study, "the model")
    for name, weights in {"with facts": with_facts, "without facts": without_facts}.items():
        if weights is not None:
            found |= encoders(study.beside(str(weights)), f"{name}, equal steps")
    return study.write("controls", {"encoders": found})
