"""`slq train`: learn an adapter on pairs."""

from __future__ import annotations

from typing import Any

from slq import console
from slq.cli.command import command
from slq.config import ModelConfig, PreprocessingConfig, TrainConfig


@command("train")
def app(config: TrainConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> None:
    """Learn latent queries on pairs; the model stays frozen.

    With --method lora or full a copy of the model is fine-tuned instead, to compare with. Writes what was learned, config.toml (which
    repeats the run), log.jsonl (loss, temperature and validation at every step) and the newest checkpoint.

        slq train data/train/captions.jsonl -o my-adapter

        slq train shop.csv -o shop-adapter -m OpenGVLab/InternVL3-1B-hf --epochs 3

        slq train --config my-adapter/config.toml -o again
    """
    from slq.training.run import train_from_configs

    encoder = train_from_configs(config, model, preprocessing)
    assert config.output is not None
    document: dict[str, Any] = {"output": str(config.output), "method": config.method, "fingerprint": encoder.fingerprint}

    def text() -> None:
        what = f"Adapter of {config.num_latents} latent queries" if config.method == "latents" else f"Fine-tuned model ({config.method})"
        console.result(f"{what} saved in {config.output}.")
        console.note(f"Next: slq embed IMAGES -m {config.output} -o my-index")

    console.show(document, text)
