"""The command `python -m research.paper`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from slq.cli import loading
from slq.errors import InputError, SlqError

EXPERIMENTS = ("pilot", "tuning", "cost", "blend", "retention", "gap", "ablations", "maps", "controls", "scratch", "scale")

app = typer.Typer(name="python -m research.paper", add_completion=False, rich_markup_mode="markdown", pretty_exceptions_enable=False)


@app.command()
@loading.loads_a_model("device", "dtype")
def paper(
    experiment: Annotated[
        str,
        typer.Argument(
            help="pilot: untrained encoders. tuning: latent queries, LoRA and full fine-tuning. cost: their seconds and memory. "
            "blend: between their start and their end. retention: what each of them leaves of the model. gap: images and captions in "
            "one plane. ablations: every part of the method. maps: what each latent looks at. controls: where knowledge comes from. "
            "scratch: an encoder without pre-training. scale: several models. all."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of results and trainings; what is there is not done again.")],
    model: Annotated[str, typer.Option("--model", "-b", help=loading.MODEL_HELP)] = "miniature",
    train: Annotated[Path | None, typer.Option("--train", help="Pairs to train on. Default: the miniature's world, drawn.")] = None,
    validation: Annotated[Path | None, typer.Option("--validation", help="Pairs that learning rates are chosen by.")] = None,
    test: Annotated[
        Path | None, typer.Option("--test", help="Pairs to test on; a folder `knowledge` in BEIR layout beside them too.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds every method is trained with.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pairs. Default: 4.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, help="Pairs per step. Default: 128.")] = None,
    tasks: Annotated[str, typer.Option(help="What `retention` asks, see `slq retention`.")] = "knowledge,spatial,reading",
    beside: Annotated[list[str] | None, typer.Option(help="For scale: a further model (repeat it).")] = None,
    without_facts: Annotated[
        Path | None, typer.Option(help="For controls: weights of `python -m research.pretraining --no-facts`. Default: without them.")
    ] = None,
    with_facts: Annotated[Path | None, typer.Option(help="For controls: weights of as many steps with the facts.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A few images and one epoch: whether it runs, not what comes out.")] = False,
    *,
    wanted: loading.Loading,
) -> None:
    """Repeat an experiment of the paper, on the miniature or unchanged on a model and data of your own.

    Results are EXPERIMENT.json and figures in --out; trainings are kept there, so that a stopped run goes on and experiments share them.
    Learning rates are chosen on validation pairs for every method. docs/claims.md says what came out on the miniature.

        python -m research.paper tuning --out study
        python -m research.paper all --out study --model OpenGVLab/InternVL3-1B-hf --train t.jsonl --validation v.jsonl --test s.jsonl
    """
    from dataclasses import replace
    from importlib import import_module

    from research.paper.study import QUICK, Size, Study

    if experiment not in (*EXPERIMENTS, "all"):
        raise InputError(f"Unknown experiment {experiment!r}: choose one of {', '.join(EXPERIMENTS)}, all.")
    size = QUICK if quick else Size(seeds=tuple(range(seeds)))
    size = replace(size, epochs=epochs or size.epochs, batch_size=batch_size or size.batch_size)
    data = {name: path for name, path in (("train", train), ("validation", validation), ("test", test)) if path is not None}
    study = Study(out, model, size, data, device=wanted.device, dtype=wanted.dtype)
    own: dict[str, tuple[Any, ...]] = {"controls": (without_facts, with_facts), "scale": (beside or (),), "retention": (tasks.split(","),)}
    for name in EXPERIMENTS if experiment == "all" else (experiment,):
        if experiment == "all" and name in ("controls", "scratch") and not study.is_miniature:
            continue  # they are of the miniature's world alone
        import_module(f"research.paper.{name}").run(study, *own.get(name, ()))


def main() -> None:
    """Run the command; an error of slq is shown as one sentence."""
    try:
        app()
    except SlqError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)
