"""Options of collections: what is indexed, and what is done with a collection as a whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from slq.config.evaluate import batch_size, num_workers
from slq.config.fields import option, validate
from slq.config.index import INPUT, OUTPUT, PRECISIONS, RUN
from slq.config.model import ModelConfig, model_of_collection
from slq.config.tables import READING, ReadingConfig
from slq.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class IndexConfig(ReadingConfig):
    """What `slq index` brings into a collection."""

    paths: tuple[Path, ...] = option(
        (),
        help="Folders of images, single images, and tables with text or image columns or both. They are remembered: without any, all that "
        "were ever named are looked at again.",
        panel=INPUT,
        positional=True,
    )
    collection: Path | None = option(
        None,
        help="Folder of the collection, made if it is not there.",
        panel=OUTPUT,
        flags=("--collection", "-c"),
        environment="SLQ_COLLECTION",
        required=True,
    )
    store: str | None = option(
        None,
        help="Kind of store of a new collection, or with --rebuild of one that is there. `exact` compares every row; `lance` (LanceDB, the "
        "extra [lance]) is for more than about 50,000.",
        default_text="exact",
        choices=("exact", "lance"),
        plugin_group="slq.stores",
        panel=OUTPUT,
    )
    follow_links: bool | None = option(
        None, help="Follow links to folders, and to files outside of PATHS.", default_text="off, or as it was", panel=READING
    )
    failed: bool = option(False, help="List what could not be indexed, with the reasons, and do nothing else.", panel=RUN)
    retry_failed: bool = option(
        False, help="Try again what could not be indexed before; without this only what has changed since is.", panel=RUN
    )
    repair: bool = option(
        False, help="Compare every row with the journal, and encode again what `slq collection verify` finds damaged.", panel=RUN
    )
    prune_missing: bool = option(
        False,
        help="Take a PATH that is missing or empty for one without images, and remove its rows; else it is an error, since its "
        "disk may not be mounted.",
        panel=RUN,
        explicit=True,
    )
    forget: tuple[Path, ...] = option(
        (),
        help="Take this PATH out of the collection (repeat it), with its rows; its files stay. What another PATH holds too stays indexed.",
        panel=RUN,
    )
    rebuild: bool = option(
        False,
        help="Encode everything again, with another --model or into another --store, beside the rows that are there; those are searched "
        "until it is done.",
        panel=RUN,
    )
    watch: float | None = option(None, help="Look again after so many seconds, until Ctrl-C.", above=0, panel=RUN)
    batch_size: int = batch_size(32)
    num_workers: int | None = num_workers()

    def __post_init__(self) -> None:
        validate(self)
        if self.said and not self.paths:
            raise ConfigError(f"{', '.join(self.said)} says how a PATH is read: name the PATH that it is about.")
        if self.failed and (self.paths or self.forget or self.rebuild or self.watch):
            raise ConfigError("failed lists what could not be indexed and does nothing else: leave out the other options, or --failed.")

    @property
    def again(self) -> IndexConfig:
        """The same, for another look at what is remembered."""
        unsaid: dict[str, Any] = dict.fromkeys(("image_column", "text_column", "image_root", "follow_links"))
        return replace(self, paths=(), forget=(), rebuild=False, repair=False, allow_outside=False, **unsaid)

    @property
    def said(self) -> dict[str, Any]:
        """How the paths are read, as far as somebody says."""
        given = {name: value for name, value in self.reading.items() if value not in (None, False)}
        given |= {} if self.image_root is None else {"image_root": str(self.image_root.absolute())}
        return given | ({} if self.follow_links is None else {"follow_links": self.follow_links})


@dataclass(frozen=True, kw_only=True)
class IndexModelConfig(ModelConfig):
    """The model of `slq index`: it must be named for a new collection, which holds to it."""

    model: str | None = model_of_collection(  # type: ignore[assignment]
        "Adapter (folder or hub name) or base model that encodes a new collection; of one that is there, its own."
    )


@dataclass(frozen=True, kw_only=True)
class CollectionConfig:
    """Which collection is looked at or changed."""

    collection: Path | None = option(
        None, help="Folder of the collection.", panel=INPUT, environment="SLQ_COLLECTION", positional=True, required=True
    )

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class CollectionCalibrateConfig(CollectionConfig, ReadingConfig):
    """What the judge of a collection is calibrated on."""

    pairs: Path | None = option(
        None,
        help="Texts, each with an item of the collection that it is true of: a table, a captions file or a folder with one. Name "
        "each of its items, for one that is not named counts as wrong. Of data that nothing was learned on, 100 texts and more.",
        panel=INPUT,
        positional=True,
        required=True,
    )
    rewrite: bool = option(
        False,
        help="Let the model rewrite the texts first, as `slq search --rewrite` does, and calibrate for that: for texts that do not name "
        "what they mean. Kept beside what was measured without it.",
        panel=RUN,
    )
    target_precision: float = option(0.9, help="Fraction of the results that are kept, and shall be right.", above=0, maximum=1, panel=RUN)
    max_queries: int = option(600, help="Use so many texts at most.", minimum=8, panel=RUN)
    seed: int = option(0, help="Of which texts are used for what.", minimum=0, panel=RUN)


@dataclass(frozen=True, kw_only=True)
class CollectionReportConfig(CollectionConfig):
    """What the page about a collection shows."""

    output: Path | None = option(
        None, help="File for the page, ending in .html.", panel=OUTPUT, flags=("--output", "-o"), required=True, affects_result=False
    )
    near: float = option(
        0.97, help="Rows are nearly the same from this cosine on; what it means depends on the model.", above=0, maximum=1, panel=RUN
    )
    name_clusters: bool = option(
        False,
        help="Let the model name each cluster by the image in its middle; else the words of its texts do. Loads the model.",
        panel=RUN,
    )
    sample: int = option(20_000, help="Look at so many rows, drawn at random where there are more.", minimum=3, panel=RUN)
    seed: int = option(0, help="Of the sample and the clusters.", minimum=0, panel=RUN)
    overwrite: bool = option(False, help="Replace the --output file.", panel=OUTPUT, affects_result=False, recorded=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output is not None and self.output.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"output must end in .html, not {self.output.name!r}.")


@dataclass(frozen=True, kw_only=True)
class CollectionExportConfig(CollectionConfig):
    """Where the vectors of a collection are written."""

    output: Path | None = option(
        None, help="File for the vectors, ending in .npz, .parquet or .jsonl.", panel=OUTPUT, flags=("--output", "-o"), required=True
    )
    precision: str = option(
        "float32", help="Number format of the vectors; int8 keeps their direction alone.", choices=PRECISIONS, panel=OUTPUT
    )
    overwrite: bool = option(False, help="Replace the --output file.", panel=OUTPUT, affects_result=False, recorded=False)


@dataclass(frozen=True, kw_only=True)
class CollectionDeleteConfig(CollectionConfig):
    """Which collection is deleted."""

    yes: bool = option(False, help="Do not ask.", flags=("--yes", "-y"), recorded=False, explicit=True)
