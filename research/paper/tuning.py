"""Tuning strategies: latent queries beside LoRA and full fine-tuning, on the same data, batches and epochs (the paper's second table).

Each method's learning rate is chosen on validation pairs with the first seed; all seeds are then scored on the test sets. What the adapted
model still answers is asked by the tasks of `slq retention`, with LoRA's matrices beside the weights and merged into them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from research.paper import plots
from research.paper.study import Study, Trained, quality, say, scores, spread
from slq.encoders import LastTokenEncoder
from slq.training import PRESETS


@dataclass(frozen=True)
class Method:
    """A way of adapting, and the learning rates that are tried for it."""

    rates: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    "latents": Method((0.005, 0.01, 0.02, 0.04, 0.08, 0.16), {"num_latents": 20}),
    "5 latents": Method((0.02, 0.04, 0.08, 0.16, 0.32)),
    "latents, as in the paper": Method((0.006, 0.02, 0.04, 0.08), PRESETS["paper"]),
    "lora": Method((3e-4, 1e-3, 3e-3, 1e-2, 3e-2), {"method": "lora"}),
    "full": Method((3e-5, 1e-4, 3e-4, 1e-3, 3e-3), {"method": "full"}),
}


def run(study: Study) -> dict[str, Any]:
    """The table: for each method what it learns and what it finds; and how its learning rate trades one for the other."""
    say("last token")
    result: dict[str, Any] = {"last token": scores(LastTokenEncoder(study.model), study.sets("test"))}
    result["methods"] = {name: of_method(study, name, method) for name, method in METHODS.items()}
    plots.trade(study.out / "tuning.png", result)
    return study.write("tuning", result)


def of_method(study: Study, name: str, method: Method) -> dict[str, Any]:
    """One row of the table, over all seeds."""
    rate = study.chosen_rate(name, method.rates, **method.options)
    measured = [each.measured for each in trainings(study, name, method, rate)]
    return {
        "learning_rate": rate,
        "by_rate": {f"{tried:g}": _of_rate(each) for tried, each in study.by_rate(name, method.rates, **method.options).items()},
        "learned_numbers": measured[0]["learned_numbers"],
        "test": spread([each["test"] for each in measured]),
        "validation": spread([each["validation"] for each in measured]),
    }


def _of_rate(trained: Trained) -> dict[str, float]:
    found = {"validation": quality(trained.measured), "test": quality(trained.measured, "test")}
    knowledge = trained.measured["test"].get("knowledge")
    return found | ({"test_knowledge": knowledge["hit@5"]} if knowledge else {})


def trainings(study: Study, name: str, method: Method, rate: float) -> list[Trained]:
    """One training a seed, at the chosen rate."""
    return [
        study.trained(f"{name}-{rate:g}-seed{seed}", study.options(**method.options, learning_rate=rate, seed=seed))
        for seed in study.size.seeds
    ]


def chosen(study: Study, name: str) -> list[Trained]:
    """The trainings of a method at its chosen rate."""
    method = METHODS[name]
    return trainings(study, name, method, study.chosen_rate(name, method.rates, **method.options))
