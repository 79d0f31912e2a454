"""What to take with how many images: plain latent queries, or latent LoRA with the model's own facts, and for how long.

The number of epochs is the one that is best on validation images with the first seed, as is every other choice of the other experiments;
the learning rates are the presets'.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from research.paper.study import Study, quality, say, spread
from slq.config.train import PRESETS
from slq.errors import InputError

IMAGES = (50, 500, 5000)
EPOCHS = {50: (20, 60), 500: (10, 30), 5000: (4,)}
METHODS: Mapping[str, tuple[str, bool]] = {  # preset, and whether with facts
    "5 latents": ("default", False),
    "latent-lora-small": ("latent-lora-small", False),
    "latent-lora-small, facts": ("latent-lora-small", True),
    "latent-lora, facts": ("latent-lora", True),
}


def run(study: Study) -> dict[str, Any]:
    """The scores of every method for every number of images; written after each."""
    if not study.is_miniature:
        raise InputError("The numbers of images are of the miniature's world: leave out the data.")
    rows: list[dict[str, Any]] = []
    for images in IMAGES:
        smaller = study.with_size(f"{images}-images", training=images)
        for name, (preset, with_facts) in METHODS.items():
            rows.append({"images": images, "method": name, **_of_method(smaller, name, images, PRESETS[preset], with_facts)})
            result = study.write("sizes", {"rows": rows})
    return result


def _of_method(study: Study, name: str, images: int, preset: Mapping[str, Any], with_facts: bool) -> dict[str, Any]:
    batch_size = min(study.size.batch_size, images)

    def trained(epochs: int, seed: int) -> Any:
        options = study.options(**preset, epochs=epochs, batch_size=batch_size, seed=seed, cache_dir=study.out / "prefixes")
        return study.trained(f"{name}-{epochs}-epochs-seed{seed}", options, with_facts)

    first = study.size.seeds[0]
    tried = {epochs: trained(epochs, first) for epochs in EPOCHS[images]}
    epochs = max(tried, key=lambda each: quality(tried[each].measured))
    say(f"{images} images: {name}")
    runs = [trained(epochs, seed).measured for seed in study.size.seeds]
    return {
        "epochs": epochs,
        "validation": {str(each): quality(one.measured) for each, one in tried.items()},
        "parameters": runs[0]["learned_numbers"],
        "seeds": len(runs),
        "test": spread([each["test"] for each in runs]),
    }
