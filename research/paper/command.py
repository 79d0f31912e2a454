"""The command `python -m research.paper`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from slq.cli.app import execute
from slq.cli.command import command
from slq.config.fields import option, validate

EXPERIMENTS = (
    *("pilot", "tuning", "cost", "blend", "retention", "gap", "ablations", "maps", "controls", "scratch", "scale"),
    *("comparison", "sizes", "further"),
)


@dataclass(frozen=True, kw_only=True)
class PaperConfig:
    """Which experiment is repeated, and on what."""

    experiment: str | None = option(
        None,
        help="pilot: baselines. tuning: latent queries, LoRA and full fine-tuning. cost: their seconds and memory. "
        "blend: between their start and their end. retention: what each of them leaves of the model. gap: images and captions in "
        "one plane. ablations: every part of the method. maps: what each latent looks at. controls: where knowledge comes from. "
        "scratch: an encoder without pre-training. scale: several models. comparison: latent LoRA beside LoRA and full "
        "fine-tuning with the same batches and facts. sizes: what to take with how many images. further: "
        "one change at a time to latent LoRA.",
        choices=(*EXPERIMENTS, "all"),
        positional=True,
        required=True,
    )
    output: Path | None = option(
        None, help="Folder of results and trainings; what is there is not done again.", flags=("--output", "-o"), required=True
    )
    model: str = option("miniature", help="Base model.", flags=("--model", "-m"), model_reference=True)
    device: str | None = option(None, help="cpu, cuda, cuda:1 or mps.", default_text="an accelerator if there is one")
    dtype: str | None = option(None, help="float32, bfloat16 or float16.", default_text="float32 on the CPU, else bfloat16")
    train: Path | None = option(None, help="Pairs to train on.", default_text="sample data, drawn")
    validation: Path | None = option(None, help="Pairs that learning rates are chosen by.")
    test: Path | None = option(None, help="Pairs to test on; a folder `knowledge` in BEIR layout beside them too.")
    seeds: int = option(3, help="How many seeds every method is trained with.", minimum=1)
    epochs: int | None = option(None, help="Passes over the pairs.", default_text="4", minimum=1)
    batch_size: int | None = option(None, help="Pairs a step.", default_text="128", minimum=2)
    task: tuple[str, ...] = option(("knowledge", "spatial", "reading"), help="What `retention` asks, see `slq retention` (repeat it).")
    beside: tuple[str, ...] = option((), help="For scale: a further model (repeat it).")
    without_facts: Path | None = option(
        None, help="For controls: weights of `python -m research.pretraining --no-facts`.", default_text="without them"
    )
    with_facts: Path | None = option(None, help="For controls: weights of as many steps with the facts.")
    quick: bool = option(False, help="A few images and one epoch: whether it runs, not what comes out.")

    def __post_init__(self) -> None:
        validate(self)


def run(config: PaperConfig) -> None:
    """Repeat one experiment, or all."""
    from research.paper.study import QUICK, Size, Study

    assert config.output is not None
    size = QUICK if config.quick else Size(seeds=tuple(range(config.seeds)))
    size = replace(size, epochs=config.epochs or size.epochs, batch_size=config.batch_size or size.batch_size)
    named = (("train", config.train), ("validation", config.validation), ("test", config.test))
    data = {name: path for name, path in named if path is not None}
    study = Study(config.output, config.model, size, data, device=config.device, dtype=config.dtype)
    own: dict[str, tuple[Any, ...]] = {
        "controls": (config.without_facts, config.with_facts),
        "scale": (config.beside,),
        "retention": (list(config.task),),
        "comparison": (list(config.task),),
    }
    for name in EXPERIMENTS if config.experiment == "all" else (config.experiment,):
        if config.experiment == "all" and name in ("controls", "scratch", "sizes") and not study.is_miniature:
            continue  # they are of the miniature's world alone
        import_module(f"research.paper.{name}").run(study, *own.get(str(name), ()))


@command("", program="python -m research.paper")
def app(config: PaperConfig) -> None:
    """Repeat an experiment of the paper, on the miniature or unchanged on a model and data of your own.

    Results are EXPERIMENT.json and figures in --output; trainings are kept there, so that a stopped run resumes and experiments share
    them. Learning rates are chosen on validation pairs for every method. docs/claims.md says what came out on the miniature.

        python -m research.paper tuning -o study

        python -m research.paper all -o study -m OpenGVLab/InternVL3-1B-hf --train t.jsonl --validation v.jsonl --test s.jsonl
    """
    run(config)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; an error of slq is shown as one sentence."""
    return execute(lambda: app, sys.argv[1:] if arguments is None else arguments)
