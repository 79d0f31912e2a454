"""The options of `slq karr`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slq.config import ModelConfig
from slq.config.fields import option, validate

PICTURES, MODEL, QUERIES, COST = "Images", "Model", "Queries", "Requests and cost"  # panels of --help


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """What `slq karr build` asks for, and what it may cost."""

    images: Path | None = option(
        None, help="Captions file, folder with captions, or bare folder of images.", panel=PICTURES, flags=("--images", "-i"), required=True
    )
    allow_outside: bool = option(
        False,
        help="Let the captions file name images outside of its folder, by absolute paths, `..` or links.",
        panel=PICTURES,
        explicit=True,
    )
    output: Path | None = option(
        None,
        help="Folder of the set. The same command again continues with it.",
        panel=PICTURES,
        flags=("--output", "-o"),
        required=True,
    )
    seed: int = option(0, help="Order in which images are taken.", panel=PICTURES)
    endpoint: str | None = option(
        None, help="OpenAI-compatible address, such as http://localhost:8000/v1.", default_text="a model on this machine", panel=MODEL
    )
    api_key_env: str | None = option(None, help="Environment variable that holds the endpoint's key.", panel=MODEL)
    count: int | None = option(None, help="Accepted queries wanted.", default_text="one for each image", minimum=1, panel=QUERIES)
    mix: str | None = option(
        None, help="Fractions of the categories, as in `logic_maths=1,functional=2`.", default_text="KARR-Bench's", panel=QUERIES
    )
    prompts: Path | None = option(None, help="Folder of prompts of your own; those it lacks are slq's.", panel=QUERIES)
    captions_only: bool = option(False, help="Send no images: cheaper, for models that see none.", panel=QUERIES)
    tries: int = option(3, help="Queries written for one image, at most, until one is accepted.", minimum=1, panel=QUERIES)
    max_positives: int = option(10, help="Other images judged for each query, at most.", minimum=0, panel=QUERIES)
    concurrency: int = option(4, help="Requests under way at once.", minimum=1, panel=COST)
    requests_per_minute: float | None = option(None, help="Requests sent a minute, at most.", default_text="no limit", above=0, panel=COST)
    price_in: float = option(0.0, help="Price of a million tokens in, in any currency.", minimum=0, panel=COST)
    price_out: float = option(0.0, help="Price of a million tokens out.", minimum=0, panel=COST)
    max_cost: float | None = option(None, help="Stop before the set has cost more than this, all runs together.", minimum=0, panel=COST)
    max_tokens: int = option(500, help="Tokens of an answer, at most. A model that thinks needs more.", minimum=1, panel=COST)
    max_side: int = option(1024, help="Images are scaled down to this many pixels a side before they are sent.", minimum=1, panel=COST)
    timeout: float = option(120.0, help="Seconds to wait for an answer.", minimum=1, panel=COST)
    fields: str | None = option(None, help="JSON put into every request; null removes a field.", panel=COST)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class AskedModelConfig(ModelConfig):
    """The model that writes and checks: at an endpoint, or loaded as everywhere."""

    model: str | None = option(  # type: ignore[assignment]
        None,
        help="The model's name at the endpoint; without an endpoint, a model on this machine.",
        panel=MODEL,
        flags=("--model", "-m"),
        required=True,
        model_reference=True,
    )


@dataclass(frozen=True, kw_only=True)
class ReviewConfig:
    """Which set is reviewed, by whom, and where the page is."""

    folder: Path | None = option(None, help="Folder of the set: candidates.jsonl and its images.", positional=True, required=True)
    reviewer: str | None = option(None, help="Your name, which stands beside your decisions.", flags=("--reviewer", "-r"), required=True)
    port: int = option(8765, help="Port on this machine; 0 takes any free one.", minimum=0, maximum=65535)
    no_browser: bool = option(False, help="Print the address only.")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Which set becomes a benchmark."""

    folder: Path | None = option(None, help="The set, as `slq karr build` wrote it.", positional=True, required=True)
    output: Path | None = option(None, help="New folder for the benchmark.", flags=("--output", "-o"), required=True)
    reviewed_only: bool = option(False, help="Leave out what nobody has reviewed.")
    overwrite: bool = option(False, help="Replace an earlier export.", recorded=False)

    def __post_init__(self) -> None:
        validate(self)
