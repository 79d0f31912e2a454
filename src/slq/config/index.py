"""Options of encoding items to a folder, and of searching in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.config.evaluate import batch_size, num_workers
from slq.config.fields import option, validate
from slq.config.model import ModelConfig, model_of_collection
from slq.config.tables import ReadingConfig
from slq.errors import ConfigError

SEARCH_OUTPUTS = (".jsonl", ".png", ".jpg", ".jpeg")
INPUT, OUTPUT, RUN, MODEL = "Input", "Output", "Run", "What the model says"  # panels of --help
STANDARD_INPUT = "/dev/stdin"  # what `-` stands for on the command line
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


def searched_collection() -> Any:
    """The option of a folder that is searched."""
    return option(
        Path("my-index"),
        help="Folder of a collection of `slq index`, or one that `slq embed` wrote.",
        panel=INPUT,
        flags=("--collection", "-c"),
        environment="SLQ_COLLECTION",
    )


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What `slq search` looks for, and where."""

    text: tuple[str, ...] = option(
        (),
        help="What to look for; several are weighed. With one --image: what to change about it. `-` reads queries from standard input, one "
        "a line, each a text or a JSON object with the names of these options.",
        panel=INPUT,
        positional=True,
    )
    image: tuple[Path, ...] = option(
        (), help="Search by this image (repeat it), alone or with text; it is left out of the results.", panel=INPUT
    )
    like: tuple[str, ...] = option(
        (), help="Search by an item of the collection (repeat it), named by its id; alone it loads no model.", panel=INPUT
    )
    exclude: tuple[str, ...] = option(
        (), help="What is not wanted (repeat it): less of what is like this text.", panel=INPUT, flags=("--not",)
    )
    weight: tuple[float, ...] = option(
        (),
        help="How much each part counts (repeat it), in the order TEXT, --image, --like, --not; by default 1, and 0.5 for --not. Parts are "
        "added as vectors of length 1, times their weights, --not below zero.",
        above=0,
        panel=INPUT,
    )
    collection: Path = searched_collection()
    filter: tuple[str, ...] = option(
        (),
        help="Only items of which this holds (repeat it): a column of the table that was encoded, one of = != < <= > >=, and a value, "
        "such as 'price<20' or 'colour=red,blue'.",
        panel=INPUT,
    )
    hybrid: bool = option(
        False,
        help="Also rank by the words of captions and columns (BM25), and merge both rankings: for names, codes and other words that must "
        "be there as they are written.",
        panel=INPUT,
    )
    exact: bool = option(False, help="Compare every row, whatever index the store has.", panel=INPUT)
    rewrite: bool = option(
        False,
        help="Let the model say in plain words what TEXT means, or what --image shows after the change that it asks for; it is shown, and "
        "looked for too.",
        panel=MODEL,
    )
    rerank: int | None = option(
        None, help="Let the model judge so many of the best results, and order them by it too.", default_text="none", minimum=1, panel=MODEL
    )
    judge: bool = option(
        False,
        help="Leave out results that do not match, so that a query without an answer finds nothing; by the threshold, and the judge or "
        "similarity alone, that `slq collection calibrate` found best.",
        panel=MODEL,
    )
    why: bool = option(
        False,
        help="Say on which words each result rests; with --output sheet.png also where in its image.",
        panel=MODEL,
    )
    fold: bool = option(True, help="Show equal items as one result, with their number.", panel=OUTPUT)
    fold_above: float | None = option(
        None,
        help="Show results as one, the best of them, that are as near to each other as this cosine, such as 0.98: bursts of one scene, "
        "copies in another size.",
        above=0,
        maximum=1,
        panel=OUTPUT,
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
        if not (self.text or self.image or self.like):
            raise ConfigError("There is nothing to look for: give TEXT, --image FILE, both, or --like ID.")
        if self.reads_queries and (len(self.text) > 1 or self.image or self.like or self.exclude or self.weight or self.output):
            raise ConfigError("TEXT - reads whole queries from standard input: leave out the parts of another one, and --output.")
        if self.output is not None and self.output.suffix.lower() not in SEARCH_OUTPUTS:
            raise ConfigError(f"output must end in {', '.join(SEARCH_OUTPUTS)}, not {self.output.name!r}.")

    @property
    def reads_queries(self) -> bool:
        """Whether queries come from standard input."""
        return self.text in (("-",), (STANDARD_INPUT,))


@dataclass(frozen=True, kw_only=True)
class AskConfig:
    """What `slq ask` asks, and about which item."""

    item: str | None = option(
        None, help="Id of an item of the collection, as `slq search` shows it.", panel=INPUT, positional=True, required=True
    )
    question: str | None = option(None, help="What to ask about it.", panel=INPUT, positional=True, required=True)
    collection: Path = searched_collection()
    max_new_tokens: int = option(128, help="Where the answer ends at the latest.", minimum=1, panel=OUTPUT)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class SearchModelConfig(ModelConfig):
    """The model of a search: by default the one that the collection was encoded with, whatever model other commands use."""

    model: str | None = model_of_collection(  # type: ignore[assignment]
        "The model that the collection was encoded with, if it is not where it was."
    )
