"""Tuning strategies: latent queries beside LoRA and full fine-tuning, on the same data, batches and epochs (the paper's second table).

Each method's learning rate is chosen on validation pairs with the first seed; all seeds are then scored on the test sets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from slq.demo.run import RECIPE
from slq.methods import ZERO_SHOT
from slq.paper.study import Scores, Study, say, scores, spread


@dataclass(frozen=True)
class Method:
    """A way of adapting, and the learning rates that are tried for it."""

    rates: tuple[float, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


METHODS = {
    "latents": Method((0.005, 0.01, 0.02), {"init": RECIPE.init, "generation_prompt": RECIPE.generation_prompt}),
    "latents, as in the paper": Method((0.003, 0.006, 0.02)),
    "lora": Method((3e-4, 1e-3, 3e-3), {"method": "lora"}),
    "full": Method((3e-5, 1e-4, 3e-4), {"method": "full"}),
}


def run(study: Study) -> dict[str, Any]:
    """The table: for each method what it costs, what it finds, and what the adapted model still answers."""
    say("zero-shot readouts")
    result: dict[str, Any] = {"zero_shot": {name: scores(make(study.backbone), study.sets("test")) for name, make in ZERO_SHOT.items()}}
    result["methods"] = {name: of_method(study, name, method) for name, method in METHODS.items()}
    return study.write("tuning", result)


def of_method(study: Study, name: str, method: Method) -> dict[str, Any]:
    """One row of the table, over all seeds."""
    rate, tried = study.chosen_rate(name, method.rates, **method.options)
    trainings = [
        study.trained(f"{name}-{rate:g}-seed{seed}", study.options(**method.options, learning_rate=rate, seed=seed))
        for seed in study.size.seeds
    ]
    measured: list[Scores] = [each.measured for each in trainings]
    return {
        "learning_rate": rate,
        "validation_hit@1_by_rate": tried,
        "learned_numbers": measured[0]["learned_numbers"],
        "test": spread([each["test"] for each in measured]),
        "validation": spread([each["validation"] for each in measured]),
        **{figure: spread([{figure: each[figure]} for each in measured])[figure] for figure in ("seconds", "peak_bytes")},
    }
