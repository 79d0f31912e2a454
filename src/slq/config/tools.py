"""Options of every command, and of the smaller ones: sample data, the demo, caches, benchmarks, and adapters on the hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slq.config.fields import option, validate

COMMON = "Common"  # panel of --help


@dataclass(frozen=True, kw_only=True)
class CommonConfig:
    """What every command takes."""

    config: Path | None = option(
        None, help="TOML file with options; flags win over it, and it over slq.toml in the working folder.", panel=COMMON, recorded=False
    )
    json: bool = option(False, help="Print the result as JSON on stdout.", panel=COMMON, recorded=False)
    quiet: bool = option(False, help="No notes and no progress on stderr.", panel=COMMON, recorded=False, flags=("--quiet", "-q"))
    verbose: bool = option(False, help="More notes; errors with their traceback.", panel=COMMON, recorded=False, flags=("--verbose", "-v"))

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class SampleDataConfig:
    """What `slq sample-data` draws."""

    output: Path | None = option(
        None, help="Folder for the images, captions.jsonl and the BEIR sets; with --contact-sheet a file.", positional=True, required=True
    )
    split: str = option(
        "test",
        help="Train has two captions an image. No content is in two splits.",
        choices=("train", "validation", "test"),
    )
    count: int | None = option(None, help="Number of images.", default_text="3000 for train, else 500", minimum=1)
    seed: int = option(0, help="Another seed draws other scenes of the same split.")
    held_out_style: bool = option(False, help="Draw in the one style that no training ever sees.")
    contact_sheet: bool = option(False, help="Write one image with every concept instead.")
    overwrite: bool = option(False, help="Replace what an earlier run wrote there.", affects_result=False, recorded=False)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Where `slq demo` works."""

    output: Path = option(
        Path("demo"), help="Folder for everything the demo writes; what an earlier demo wrote is replaced.", flags=("--output", "-o")
    )
    seed: int = option(0, help="Seed of the adaptation.")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class CacheInfoConfig:
    """Which cache folder is looked into."""

    folder: Path | None = option(None, help="The folder given as --cache-dir.", environment="SLQ_CACHE_DIR", positional=True, required=True)
    verify: bool = option(False, help="Read every entry, and remove those that are corrupt.")

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class CacheClearConfig:
    """Which cache folder is emptied."""

    folder: Path | None = option(None, help="The folder given as --cache-dir.", environment="SLQ_CACHE_DIR", positional=True, required=True)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class BenchmarksConfig:
    """Which benchmark is described."""

    name: str | None = option(None, help="A benchmark to tell everything about.", default_text="the list of all", positional=True)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class ModelInfoConfig:
    """Which adapter is shown."""

    adapter: str | None = option(None, help="Adapter: a folder or a name on the hub.", positional=True, required=True)

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class ModelPushConfig:
    """Which adapter is uploaded, and where to."""

    adapter: Path | None = option(None, help="Adapter folder.", positional=True, required=True)
    repository: str | None = option(None, help="Name on the hub, OWNER/NAME.", positional=True, required=True)
    branch: str | None = option(None, help="Branch to upload to, made if it is not there.", default_text="main")
    private: bool = option(False, help="Hide a new repository from others.")

    def __post_init__(self) -> None:
        validate(self)
