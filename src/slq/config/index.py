"""Options of encoding items to a folder, and of searching in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slq.config.evaluate import batch_size
from slq.config.fields import option, validate
from slq.config.model import MODEL, ModelConfig
from slq.errors import ConfigError

INPUT, OUTPUT, RUN = "Input", "Output", "Run"  # panels of --help


@dataclass(frozen=True, kw_only=True)
class EmbedConfig:
    """What `slq embed` encodes, and where to."""

    items: Path | None = option(
        None, help="Folder of images, or a table with text or image columns or both.", panel=INPUT, positional=True, required=True
    )
    output: Path | None = option(
        None, help="Folder for the embeddings.", panel=OUTPUT, flags=("--output", "-o"), affects_result=False, required=True
    )
    batch_size: int = batch_size(32)
    num_workers: int | None = option(
        None,
        help="Processes that open and resize images while the model runs.",
        default_text="0 on the CPU, else up to 4",
        minimum=0,
        panel=RUN,
        affects_result=False,
    )
    overwrite: bool = option(False, help="Replace what an earlier run wrote there.", panel=OUTPUT, affects_result=False, recorded=False)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What `slq search` looks for, and where."""

    text: str | None = option(None, help="What to look for. With --image: what to change about it.", panel=INPUT, positional=True)
    image: Path | None = option(None, help="Search by this image, alone or with text.", panel=INPUT)
    collection: Path = option(
        Path("my-index"),
        help="Folder written by `slq embed`.",
        panel=INPUT,
        flags=("--collection", "-c"),
        environment="SLQ_COLLECTION",
    )
    top_k: int = option(10, help="How many results.", minimum=1, panel=OUTPUT, flags=("--top-k", "-k"))

    def __post_init__(self) -> None:
        validate(self)
        if self.text is None and self.image is None:
            raise ConfigError("There is nothing to look for: give TEXT, --image FILE, or both.")


@dataclass(frozen=True, kw_only=True)
class SearchModelConfig(ModelConfig):
    """The model of a search: by default the one that the collection was encoded with, whatever model other commands use."""

    model: str | None = option(  # type: ignore[assignment]
        None,
        help="The model that the collection was encoded with, if it is not where it was.",
        default_text="the collection's",
        panel=MODEL,
        flags=("--model", "-m"),
        model_reference=True,
    )
