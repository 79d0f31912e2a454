"""`slq train`: learn an adapter on pairs."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

from slq import console
from slq.cli.command import INTERRUPTED, command, command_line
from slq.config import ModelConfig, PreprocessingConfig, TrainConfig


@command("train")
def app(config: TrainConfig, model: ModelConfig, preprocessing: PreprocessingConfig) -> int | None:
    """Learn latent queries on pairs; the model stays frozen.

    With an adapter as --model the run goes on from it, also on other pairs (a second stage). A run that was stopped, by Ctrl-C too, goes
    on with the same command and --resume; with more --epochs or --max-steps beside it, a finished run is trained longer. With --method
    lora or full a copy of the model is fine-tuned instead, to compare with. Writes what was learned, config.toml (which repeats the run),
    log.jsonl (loss, learning rate, validation and more at every step) and the newest checkpoint.

        slq train data/train/captions.jsonl -o my-adapter

        slq train shop.csv -o shop-adapter -m OpenGVLab/InternVL3-1B-hf --epochs 3

        slq train --config my-adapter/config.toml -o again

        slq train shop.csv -o second-stage -m my-adapter
    """
    from slq.training.run import train_from_configs

    assert config.output is not None
    before = _newest_checkpoint(config.output)
    try:
        encoder = train_from_configs(config, model, preprocessing, command_line())
    except KeyboardInterrupt:
        console.note(_stopped(config, before))
        return INTERRUPTED
    document: dict[str, Any] = {"output": str(config.output), "method": encoder.kind, "fingerprint": encoder.fingerprint}

    if os.environ.get("RANK", "0") != "0":
        return None  # of several processes the first one tells

    def text() -> None:
        queries = getattr(encoder, "queries", None)
        what = f"Fine-tuned model ({encoder.kind})" if queries is None else f"Adapter of {queries.num_latents} latent queries"
        console.result(f"{what} saved in {config.output}.")
        console.note(f"Next: slq embed IMAGES -m {config.output} -o my-index")

    console.show(document, text)
    return None


def _newest_checkpoint(output: Path) -> tuple[Path, int] | None:
    """The newest checkpoint of a run, and when it was written."""
    if not output.is_dir():
        return None
    from slq.training.checkpoints import newest

    found = newest(output)
    return None if found is None else (found, found.stat().st_mtime_ns)


def _stopped(config: TrainConfig, before: tuple[Path, int] | None) -> str:
    """What a run that was interrupted leaves, and how it goes on.

    Args:
        config: its options.
        before: the newest checkpoint when it began.
    """
    assert config.output is not None
    given = [each for each in sys.argv[1:] if each not in ("--resume", "--overwrite")]
    resumed = shlex.join(["slq", *given, "--resume"])
    found = _newest_checkpoint(config.output)
    if found is not None and (config.resume or found != before):
        return f"\nStopped. {found[0]} is saved; to go on from there: {resumed}"
    again = command_line() if config.overwrite or not config.output.is_dir() else resumed
    return f"\nStopped. No step was saved yet; to begin again: {again}"
