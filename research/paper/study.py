"""What the experiments share: data, the model, and trainings that are done once and found again.

A study's folder holds:
    world/                 images of the miniature's world, where no data of one's own are given
    trainings/<name>/      what each training learned, with `measured.json`
    costs/, baselines/     what each training cost, and what is measured without one
    <experiment>.json      results, and beside them their figures
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console

from slq.config.fields import result_settings
from slq.data import PairFile, RetrievalSet, read_beir, read_pairs
from slq.encoders import load_encoder
from slq.encoders.base import Encoder
from slq.errors import InputError
from slq.evaluation import bidirectional_sets, evaluate
from slq.io.files import write_json
from slq.io.provenance import provenance
from slq.miniature.export import write_sample_data
from slq.models import FrozenModel, load_model
from slq.training import TrainConfig, train
from slq.training.facts import Facts
from slq.training.telling import read_facts, tell_facts
from slq.types import Pair

SPLITS = ("train", "validation", "test")
console = Console()
Scores = dict[str, Any]  # figures as fractions, by name, some of them by category


@dataclass(frozen=True)
class Size:
    """How much of the miniature's world a study draws: images to train on, to choose by and to test on; questions a suite; seeds."""

    training: int = 1500
    validation: int = 300
    test: int = 500
    questions: int = 300
    seeds: tuple[int, ...] = (0, 1, 2)
    epochs: int = 4
    batch_size: int = 128


QUICK = Size(training=40, validation=20, test=24, questions=12, seeds=(0, 1), epochs=1, batch_size=16)


@dataclass(frozen=True)
class Trained:
    """One training: where it is saved, and what was measured of it."""

    folder: Path
    measured: Scores


class Study:
    """A folder in which experiments find what others have made; a stopped one goes on where it was.

    data: folders or files for training, validation and test as `slq sample-data` writes them (None: those). A `knowledge` folder
    in BEIR layout beside pairs is scored too. loading: see `load_model`.
    """

    def __init__(
        self,
        out: Path,
        model: str = "miniature",
        size: Size | None = None,
        data: Mapping[str, Path] | None = None,
        **loading: Any,
    ):
        self.out, self.model_name, self.size, self.loading = out, model, size or Size(), loading
        self._data = dict(data or {})
        self._facts_file = out / "facts.jsonl"
        if missing := set(SPLITS) - set(self._data) if self._data else set():
            raise InputError(f"A study on one's own data needs all three of them; {', '.join(sorted(missing))} is missing.")
        out.mkdir(parents=True, exist_ok=True)

    def beside(self, model: str) -> Study:
        """A study of another model on the same data, in a folder of its own inside this one's."""
        name = hashlib.sha256(str(Path(model).resolve() if Path(model).exists() else model).encode()).hexdigest()[:8]
        data = {split: self.folder(split) for split in SPLITS}
        return Study(self.out / f"beside-{name}", model, self.size, data, **self.loading)

    def with_size(self, name: str, **changes: Any) -> Study:
        """A study of the same model on other numbers of images of the miniature's world, in a folder of its own inside this one's."""
        other = Study(self.out / name, self.model_name, replace(self.size, **changes), self._data, **self.loading)
        other.__dict__["model"] = self.model  # loaded once
        if other.size.training == self.size.training:
            other._facts_file = self._facts_file  # the same images, which are asked about once
        return other

    @cached_property
    def model(self) -> FrozenModel:
        return load_model(self.model_name, **self.loading)

    @property
    def is_miniature(self) -> bool:
        """Whether the data are the miniature's world, whose suites and scenes are known."""
        return not self._data

    # --- data -------------------------------------------------------------------------------------------------------------

    def folder(self, split: str, held_out_style: bool = False) -> Path:
        """Where a split's pairs are; the world's are drawn when they are first asked for, if wanted in the style that no training sees."""
        if self._data:
            return self._data[split]
        counts = {"train": self.size.training, "validation": self.size.validation, "test": self.size.test}
        folder = self.out / "world" / f"{split}-{counts[split]}{'-held-out' if held_out_style else ''}"
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            write_sample_data(partial, split, counts[split], held_out_style=held_out_style, overwrite=partial.exists())
            partial.rename(folder)
        return folder

    def pairs(self, split: str) -> Sequence[Pair]:
        return self._file(split).pairs

    def sets(self, split: str) -> list[RetrievalSet]:
        """Images and captions both ways, and the knowledge queries where there are any."""
        sets = bidirectional_sets(self._file(split))
        knowledge = self.folder(split) / "knowledge"
        return [*sets, replace(read_beir(knowledge), name="knowledge")] if knowledge.is_dir() else sets

    def _file(self, split: str) -> PairFile:
        return read_pairs(self.folder(split))

    # --- trainings --------------------------------------------------------------------------------------------------------

    def options(self, **changes: Any) -> TrainConfig:
        """Options at the study's size, the same data, batches and epochs for every method."""
        return TrainConfig(**{"epochs": self.size.epochs, "batch_size": self.size.batch_size, "validation_split": 0} | changes)

    @cached_property
    def facts(self) -> Facts:
        """What the model tells about the training images; asked once."""
        say("facts")
        tell_facts(self.model, self.pairs("train"), self._facts_file)
        return read_facts(self._facts_file)

    def trained(self, name: str, options: TrainConfig, with_facts: bool = False) -> Trained:
        """What a training with these options learned and scored on validation and test; found where it was done before."""
        digest = self.digest(options, with_facts)
        named = self.out / "trainings" / file_name(f"{name}-{digest}")
        # By another name, where two experiments share it.
        folder = next((path.parent for path in sorted(named.parent.glob(f"*-{digest}/measured.json"))), named)
        return Trained(folder, once(folder / "measured.json", lambda: self._train(name, folder, options, with_facts)))

    def _train(self, name: str, folder: Path, options: TrainConfig, with_facts: bool) -> Scores:
        say(f"training {name}")
        facts = self.facts if with_facts else None
        before = self.model.fingerprint
        again: dict[str, Any] = {"resume": folder.exists(), "show_progress": shows_progress(), "facts": facts}
        learned = train(self.pairs("train"), self.model, folder, options, (), **again)
        return {
            "weights_changed": learned.model.fingerprint != before,
            "learned_numbers": learned_numbers(learned),
            "validation": scores(learned, self.sets("validation")),
            "test": scores(learned, self.sets("test")),
            "options": result_settings(options),
            **provenance(options.seed),
        }

    def digest(self, options: TrainConfig, with_facts: bool = False) -> str:
        """Stands for all that a training depends on."""
        plain = result_settings(TrainConfig())
        weights = {
            name: value for name, value in result_settings(options).items() if value != plain[name] and not name.startswith("cache_")
        }
        about: list[Any] = [weights, self.model.identity.to_dict(), self._about_data()]
        about += ["facts"] if with_facts else []
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:8]

    def _about_data(self) -> Any:
        """What a training depends on of the data."""
        if self.is_miniature:
            return [self.size.training, self.size.validation, self.size.test]
        return sorted(map(str, self._data.values()))

    def load(self, trained: Trained) -> Encoder:
        """The encoder that a training saved."""
        return load_encoder(trained.folder, self.model)

    def by_rate(self, name: str, rates: Sequence[float], **options: Any) -> dict[float, Trained]:
        """One training a learning rate, with the first seed."""
        seed = self.size.seeds[0]
        return {rate: self.trained(f"{name}-{rate:g}-seed{seed}", self.options(**options, learning_rate=rate, seed=seed)) for rate in rates}

    def chosen_rate(self, name: str, rates: Sequence[float], **options: Any) -> float:
        """The learning rate that is best on validation pairs (`quality`), with the first seed."""
        tried = self.by_rate(name, rates, **options)
        return max(tried, key=lambda rate: quality(tried[rate].measured))

    # --- results ----------------------------------------------------------------------------------------------------------

    def write(self, experiment: str, result: Mapping[str, Any]) -> dict[str, Any]:
        """Write an experiment's result with what it depends on; returns the whole."""
        whole = {
            **result,
            "base_model": self.model.identity.to_dict(),
            "size": asdict(self.size),
            "data": {name: str(path) for name, path in self._data.items()} or "the miniature's world",
            "command": f"python -m research.paper {experiment} --seeds {len(self.size.seeds)} -o STUDY",
            **provenance(),
        }
        path = self.out / f"{experiment}.json"
        _write_json(path, whole)
        console.print(f"written to {path}")
        return whole


def once(path: Path, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is kept at `path`, or else measured and kept there now, so that a stopped experiment goes on where it was."""
    if not path.exists():
        measured = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_json(path, measured)
    return json.loads(path.read_text(encoding="utf-8"))


def file_name(name: str) -> str:
    """A name of ours as a file's."""
    return name.replace(" ", "_").replace(",", "")


def scores(encoder: Encoder, sets: Sequence[RetrievalSet], dims: int | None = None) -> Scores:
    """hit@1 and hit@5 of each set; of sets with categories hit@5 by category too. dims: of so many leading numbers."""
    found: Scores = {}
    for one in evaluate(encoder, sets, truncate_dim=dims):
        found[one.name] = {"hit@1": one.metrics["hit@1"], "hit@5": one.metrics["hit@5"]}
        if one.by_category:
            found[one.name]["by_category"] = {name: metrics["hit@5"] for name, metrics in one.by_category.items()}
    return found


def quality(measured: Scores, split: str = "validation") -> float:
    """What learning rates are chosen by: the mean of hit@1 both ways on validation pairs."""
    return statistics.mean(measured[split][way]["hit@1"] for way in ("text to image", "image to text"))


def spread(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Runs of the same shape to one: each figure as mean and standard deviation over them (0 for a single run)."""
    combined: dict[str, Any] = {}
    for name, first in runs[0].items():
        values = [one[name] for one in runs]
        if isinstance(first, Mapping):
            combined[name] = spread(values)
        else:
            combined[name] = {"mean": statistics.mean(values), "sd": statistics.stdev(values) if len(values) > 1 else 0.0}
    return combined


def say(text: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {text}")


def shows_progress() -> bool:
    return console.is_terminal


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_json(path, value)


def learned_numbers(encoder: Encoder) -> int:
    """How many parameters a training has learned, its temperature aside."""
    trainable: Any = getattr(encoder, "trainable", None)
    if trainable is None:
        trainable = [value for name, value in encoder.queries.named_parameters() if name != "log_temperature"]  # type: ignore[attr-defined]
    return sum(parameter.numel() for parameter in trainable)
