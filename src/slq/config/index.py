"""Options of encoding items to a folder, and of searching in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slq.config.evaluate import batch_size, num_workers
from slq.config.fields import option, validate
from slq.config.model import MODEL, ModelConfig
from slq.config.tables import ReadingConfig
from slq.errors import ConfigError

SEARCH_OUTPUTS = (".jsonl", ".png", ".jpg", ".jpeg")
INPUT, OUTPUT, RUN = "Input", "Output", "Run"  # panels of --help
PRECISIONS = ("float32", "float16", "int8")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(ReadingConfig):
    """What `slq embed` encodes, and where to."""

    items: Path | None = option(
        None, help="Folder of images, or a table with text or image columns or both.", panel=INPUT, positional=True, required=True
    )
    output: Path | None = option(
        None,
        help="Folder for the embeddings, which `slq search` reads; or one file for other tools, ending in .npz, .parquet or .jsonl. A "
        "folder that an earlier run made of the same ITEMS is brought up to date: what is new or changed is encoded, what is gone goes.",
        panel=OUTPUT,
        flags=("--output", "-o"),
        affects_result=False,
        required=True,
    )
    truncate_dim: int | None = option(
        None,
        help="Keep this many of the first dimensions, normalised again; for adapters trained with --matryoshka-dims.",
        default_text="all",
        minimum=1,
        panel=OUTPUT,
    )
    precision: str = option(
        "float32",
        help="Number format of the vectors; int8 keeps their direction alone.",
        choices=PRECISIONS,
        panel=OUTPUT,
    )
    batch_size: int = batch_size(32)
    num_workers: int | None = num_workers()
    overwrite: bool = option(
        False,
        help="Replace what an earlier run wrote there, and encode everything again.",
        panel=OUTPUT,
        affects_result=False,
        recorded=False,
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What `slq search` looks for, and where."""

    text: str | None = option(None, help="What to look for. With --image: what to change about it.", panel=INPUT, positional=True)
    image: Path | None = option(None, help="Search by this image, alone or with text.", panel=INPUT)
    like: str | None = option(None, help="Search by an item of the collection, named by its id; loads no model.", panel=INPUT)
    collection: Path = option(
        Path("my-index"),
        help="Folder written by `slq embed`.",
        panel=INPUT,
        flags=("--collection", "-c"),
        environment="SLQ_COLLECTION",
    )
    filter: tuple[str, ...] = option(
        (),
        help="Only items of which this holds (repeat it): a column of the table that was encoded, one of = != < <= > >=, and a value, "
        "such as 'price<20' or 'colour=red,blue'.",
        panel=INPUT,
    )
    top_k: int = option(10, help="How many results.", minimum=1, panel=OUTPUT, flags=("--top-k", "-k"))
    output: Path | None = option(
        None,
        help="Also write the results to this file: .jsonl, or .png or .jpg for a sheet of their images.",
        panel=OUTPUT,
        flags=("--output", "-o"),
        affects_result=False,
    )
    overwrite: bool = option(False, help="Replace the --output file.", panel=OUTPUT, affects_result=False, recorded=False)

    def __post_init__(self) -> None:
        validate(self)
        if self.text is None and self.image is None and self.like is None:
            raise ConfigError("There is nothing to look for: give TEXT, --image FILE, both, or --like ID.")
        if self.like is not None and not (self.text is None and self.image is None):
            raise ConfigError("like searches by an item of the collection alone: leave out TEXT and --image, or --like.")
        if self.output is not None and self.output.suffix.lower() not in SEARCH_OUTPUTS:
            raise ConfigError(f"output must end in {', '.join(SEARCH_OUTPUTS)}, not {self.output.name!r}.")


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
