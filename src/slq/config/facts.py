"""What can be chosen about self-generated facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from slq.config.fields import option, validate
from slq.config.tables import ReadingConfig

DATA, QUESTIONS, RUN = "Data", "Questions", "Run"


@dataclass(frozen=True, kw_only=True)
class FactsConfig(ReadingConfig):
    """What a model is asked about its training images, and how much."""

    data: Path | None = option(None, help="Pairs, as `slq train` reads them.", panel=DATA, positional=True, required=True)
    output: Path | None = option(
        None,
        help="JSONL file for everything that is said; one that the same command began is continued.",
        panel=RUN,
        flags=("--output", "-o"),
        affects_result=False,
        required=True,
    )
    facts_per_name: int = option(10, help="How often the model is asked to tell of a thing.", minimum=1, panel=QUESTIONS)
    max_names: int | None = option(
        None, help="Things that are told of at most, those that most images show first.", default_text="all", minimum=1, panel=QUESTIONS
    )
    temperature: float = option(0.8, help="Temperature of telling; the other answers are greedy.", above=0, panel=QUESTIONS)
    question_shown: str | None = option(
        None, help="What is asked about each image.", default_text="to name the main things", panel=QUESTIONS
    )
    question_tell: str | None = option(
        None, help="What is asked about each thing, with {name} in it.", default_text="to tell a short fact", panel=QUESTIONS
    )
    question_recognise: str | None = option(
        None, help="What is asked about each fact, with {fact} in it.", default_text="what it is about", panel=QUESTIONS
    )
    seed: int = option(0, help="Seed of telling.", panel=RUN)

    def __post_init__(self) -> None:
        validate(self)
