"""Options of what measures: retrieval, leakage, retention, the doctor, and of mining negatives, which ranks as they do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.config.fields import option, validate
from slq.config.tables import ReadingConfig
from slq.errors import ConfigError

DATA, SCORING, RUN = "Data", "Scoring", "Run"  # panels of --help
BASELINES = ("last_token", "last_token_one_word", "mean_tokens", "zero_token", "zero_token_one_word")
RETENTION_SUITES = ("knowledge", "spatial", "reading")
MAX_HAMMING_DISTANCE = 20  # bits of 256: how many copies it finds and how rarely different images come as close stands in docs/leakage.md


def batch_size(default: int, what: str = "Items encoded at once") -> Any:
    """The option of a batch that changes memory and speed, not results.

    Args:
        default: how many.
        what: is counted, such as items.
    """
    return option(default, help=f"{what}; lower it if memory is short.", minimum=1, panel=RUN, affects_result=False)


def num_workers(panel: str = RUN) -> Any:
    """The option of processes that prepare images.

    Args:
        panel: of `--help`.
    """
    return option(
        None,
        help="Processes that open and resize images while the model runs.",
        default_text="0 on the CPU, else up to 4",
        minimum=0,
        panel=panel,
        affects_result=False,
    )


def result_file(what: str) -> Any:
    """The option of a file that also receives the result.

    Args:
        what: the result is.
    """
    return option(None, help=f"Also write {what} to this file, as JSON.", panel=RUN, flags=("--output", "-o"), affects_result=False)


def overwrite(panel: str = RUN) -> Any:
    """The option of replacing a file of results.

    Args:
        panel: of `--help`.
    """
    return option(False, help="Replace the --output file.", panel=panel, affects_result=False, recorded=False)


@dataclass(frozen=True, kw_only=True)
class EvalConfig(ReadingConfig):
    """What `slq eval` scores and how."""

    data: Path | None = option(
        None,
        help="Pairs, scored in both directions, or a folder in BEIR layout. With --benchmark: a local copy of it.",
        panel=DATA,
        positional=True,
    )
    benchmark: str | None = option(None, help="A public benchmark by name; `slq benchmarks` lists them.", panel=DATA)
    variant: str | None = option(None, help="Protocol of the benchmark.", default_text="its first", panel=DATA)
    prompts: bool | None = option(
        None,
        help="Put the prompts of the papers around the benchmark's items, or do not.",
        default_text="as SLQ's published figures: for cirr and fashioniq",
        panel=DATA,
    )
    data_revision: str | None = option(None, help="Commit of the benchmark's data on the hub.", default_text="the newest", panel=DATA)
    split: str = option("test", help="Split of a BEIR folder (qrels/SPLIT.tsv), without --benchmark.", panel=DATA)
    exclude_self: str = option(
        "id",
        help="What a query of a BEIR folder that stands in the corpus itself does not find: the candidate of its `id`, also those of equal "
        "`content`, or `no`, it does. Answers stay.",
        choices=("id", "content", "no"),
        panel=DATA,
    )
    baseline: str | None = option(
        None,
        help="For a base model, what of its states is the embedding; `one_word` asks for the item in one word first (E5-V).",
        default_text="last_token",
        choices=BASELINES,
        panel=SCORING,
    )
    truncate_dim: int | None = option(
        None,
        help="Score by this many of the first dimensions, normalised again.",
        default_text="all",
        minimum=1,
        panel=SCORING,
    )
    multi_vector_size: int | None = option(
        None,
        help="Compare this many latent queries one by one (late interaction), not their mean; for adapters trained with that size.",
        default_text="off",
        minimum=1,
        panel=SCORING,
    )
    per_query: bool = option(
        False,
        help="Also write the ranks of each query's positives to --output, for the tests of `slq compare`.",
        panel=RUN,
        affects_result=False,
    )
    cache_dir: Path | None = option(
        None,
        help="Cache embeddings in this folder: a run that was stopped, or the next one, encodes only what is missing.",
        default_text="none",
        environment="SLQ_CACHE_DIR",
        panel=RUN,
        affects_result=False,
    )
    submission: Path | None = option(
        None,
        help="Write to this folder what the benchmark's evaluation server takes, for a split whose judgements are hidden.",
        panel=RUN,
        affects_result=False,
    )
    batch_size: int = batch_size(32)
    num_workers: int | None = num_workers()
    output: Path | None = result_file("the scores, with all that they depend on,")
    overwrite: bool = overwrite()

    def __post_init__(self) -> None:
        validate(self)
        if self.per_query and self.output is None:
            raise ConfigError("per_query writes ranks to a file: name it with --output.")
        if self.benchmark is None:
            for name in ("variant", "prompts", "data_revision", "submission"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"{name} belongs to a benchmark: name one with --benchmark.")
        elif self.exclude_self != "id":
            raise ConfigError("exclude_self is for data of your own: a benchmark's protocol says what a query may find.")
        elif named := [name for name, value in self.reading.items() if value]:
            raise ConfigError(f"{', '.join(named)}: a benchmark's files are read as they are published; leave it out, or --benchmark.")


@dataclass(frozen=True, kw_only=True)
class CompareConfig:
    """Which results `slq compare` puts beside each other."""

    files: tuple[Path, ...] = option(
        (), help="Files written by `slq eval --output`; the first is what the others are compared with.", panel=DATA, positional=True
    )
    published: bool = option(False, help="Also show published figures of the same benchmark. They are not tested.", panel=SCORING)
    force: bool = option(False, help="Compare results of different data or protocols too, with a warning.", panel=SCORING)
    metric: tuple[str, ...] = option(
        ("hit@1",), help="Metric in the table of more than two results (repeat it), such as recall@5 or ndcg@10.", panel=SCORING
    )
    output: Path | None = option(
        None,
        help="Also write to this file: .csv or .md for the table, a row a run with its settings; .json for differences and table.",
        panel=RUN,
        flags=("--output", "-o"),
        affects_result=False,
    )
    overwrite: bool = overwrite()

    def __post_init__(self) -> None:
        validate(self)
        if len(self.files) < 2 and not (self.files and self.published):
            raise ConfigError("There is nothing to compare with: name a second file, or pass --published.")
        if self.output is not None and self.output.suffix.lower() not in (".csv", ".md", ".json"):
            raise ConfigError(f"output must end in .csv, .md or .json, not {self.output.name!r}.")


@dataclass(frozen=True, kw_only=True)
class RetentionConfig:
    """What `slq retention` asks a model before and after it was adapted."""

    task: tuple[str, ...] = option(
        RETENTION_SUITES,
        help="A task (repeat it): knowledge, spatial or reading (the miniature's suites); mmmu_val, realworldqa, ocrbench; any other "
        "task of lm-evaluation-harness that is answered in text; or a table of one's own, such as questions.jsonl, with the columns "
        "question and answer, and image where there is one.",
        panel=DATA,
        flags=("--task", "-t"),
    )
    task_dir: tuple[Path, ...] = option((), help="Folder of further tasks in the harness's YAML format (repeat it).", panel=DATA)
    num_questions: int = option(300, help="Questions drawn for each suite of the miniature.", minimum=1, panel=DATA)
    limit: int | None = option(
        None, help="Ask only the first questions of each task, or of each of its parts.", default_text="all", minimum=1, panel=DATA
    )
    seed: int = option(0, help="Which questions the suites draw.", panel=DATA)
    per_question: bool = option(False, help="Also write every question with both answers to --output.", panel=RUN, affects_result=False)
    cache_dir: Path | None = option(
        None,
        help="Cache answers in this folder: a run that was stopped continues where it was.",
        default_text="none",
        environment="SLQ_CACHE_DIR",
        panel=RUN,
        affects_result=False,
    )
    batch_size: int = batch_size(32, "Questions asked at once")
    output: Path | None = result_file("the scores, with all that they depend on,")
    overwrite: bool = overwrite()

    def __post_init__(self) -> None:
        validate(self)
        if self.per_question and self.output is None:
            raise ConfigError("per_question writes answers to a file: name it with --output.")


@dataclass(frozen=True, kw_only=True)
class LeakageConfig(ReadingConfig):
    """Which training and test sets `slq leakage` compares."""

    train: Path | None = option(None, help="Training pairs, as `slq train` reads them.", panel=DATA, positional=True, required=True)
    test: Path | None = option(
        None, help="Pairs, or a folder in BEIR layout. Of Karpathy splits: val and test.", panel=DATA, positional=True, required=True
    )
    split: str = option("test", help="Split of a BEIR folder (qrels/SPLIT.tsv).", panel=DATA)
    max_hamming_distance: int = option(
        MAX_HAMMING_DISTANCE,
        help="Bits of 256 in which the hashes of near-duplicate images may differ; 0 finds only equal hashes.",
        minimum=0,
        maximum=64,
        panel=SCORING,
    )
    output: Path | None = result_file("everything found")
    overwrite: bool = overwrite()

    def __post_init__(self) -> None:
        validate(self)


@dataclass(frozen=True, kw_only=True)
class MiningConfig(ReadingConfig):
    """Which hard negatives `slq mine` adds to pairs."""

    data: Path | None = option(None, help="Pairs, as `slq train` reads them.", panel=DATA, positional=True, required=True)
    output: Path | None = option(
        None,
        help="JSONL file for the pairs with their negatives.",
        panel=RUN,
        flags=("--output", "-o"),
        affects_result=False,
        required=True,
    )
    direction: str = option(
        "query_to_positive",
        help="For which side negatives are found: the queries, the positives (each is then the query of a pair), or both.",
        choices=("query_to_positive", "positive_to_query", "both"),
        panel=SCORING,
    )
    num_negatives: int = option(3, help="Negatives of each query, at most.", minimum=1, panel=SCORING)
    range_min: int = option(0, help="How many of the highest-ranked candidates to skip.", minimum=0, panel=SCORING)
    absolute_margin: float = option(
        0.05, help="Skip candidates less than this below the weakest positive: they may well be matches.", panel=SCORING
    )
    batch_size: int = batch_size(32)
    num_workers: int | None = num_workers()
    overwrite: bool = overwrite()

    def __post_init__(self) -> None:
        validate(self)


DOCTOR_CHECKS = (
    *("prefix caching", "cached prefixes", "batch of one", "order in the batch", "mixed batch", "attention", "saved adapter"),
    *("generation", "weights", "other dtype"),
)


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """How `slq doctor` tries a model."""

    checks: tuple[str, ...] = option(
        (),
        help="Run this check (repeat it), in place of all checks and the figures.",
        choices=DOCTOR_CHECKS,
        panel=RUN,
        flags=("--check",),
    )
    batch_size: int = option(8, help="Items in the batches that are timed.", minimum=1, panel=RUN)
    output: Path | None = result_file("checks and figures")
    overwrite: bool = overwrite()

    def __post_init__(self) -> None:
        validate(self)
