"""The command line: one module for each command or few, which reads its options and calls the library."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import typer

from slq.cli import benchmarks, cache, compare, doctor, evaluate, leakage, mine, retention, search, show, train
from slq.errors import SlqError

app = typer.Typer(
    name="slq",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Turn the multimodal LLM you already run into an encoder, without touching its weights.

A few *latent queries* (5 vectors, 5-80 KB) are learned on your pairs of images and captions; the model stays bit-identical.

**First steps, with the built-in miniature model (no download):**

    slq demo                                                  everything at once, with a page of results
    slq world --split train --out world/train                 a training set of images and captions
    slq train --pairs world/train/captions.jsonl --out my-adapter
    slq embed world/train/images --adapter my-adapter --out my-index
    slq search "a red cat" --index my-index

**With a real model:** add `--model OpenGVLab/InternVL3-1B-hf` to `slq train`; the rest stays as it is.""",
)

# In the order of `slq --help`.
app.command()(train.train)
app.command()(mine.mine)
app.command()(leakage.leakage)
app.command("eval")(evaluate.evaluate)
app.command()(benchmarks.benchmarks)
app.command()(compare.compare)
app.command()(retention.retention)
app.command()(search.embed)
app.command()(search.search)
app.command()(doctor.doctor)
app.add_typer(cache.app, name="cache")
app.command()(show.world)
app.command()(show.demo)


def add_commands_of_other_distributions() -> None:
    """Add what is installed under the entry-point group `slq.commands`; one that cannot be loaded is named and stops nothing else."""
    for command in sorted(entry_points(group="slq.commands"), key=lambda command: command.name):
        try:
            app.add_typer(command.load(), name=command.name)
        except Exception as error:
            of = f" of {command.dist.name}" if command.dist else ""
            typer.secho(f"Warning: the command {command.name}{of} is left out: {error!r}", fg="yellow", err=True)


def main() -> None:
    """Run the command line; errors of this package are shown as one sentence, Ctrl-C ends with code 130."""
    add_commands_of_other_distributions()
    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit; its own for Ctrl-C is 130
        if code == 130:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        typer.secho("\nStopped. What was finished is saved: the same command goes on from there, `slq train` with --resume.", err=True)
        sys.exit(130)
    except SlqError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's own usage errors
            error.show()
            sys.exit(error.exit_code)
        raise
