"""The table of methods on photographs: what each learned, found on the test photographs, knew, and left of the model.

Every trained method's learning rates are chosen on validation photographs with the first seed, by hit@1, the mean of both ways. All seeds
are then scored on the test photographs. Where weights are unchanged by their hash, so is every answer.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils.logging import disable_progress_bar

from research.paper.study import Size, Trained, once, quality, spread
from research.photo.command import EvaluateConfig
from research.photo.knowledge import CONCEPTS, FOLDER, QUERIES, read_concepts
from research.photo.photographs import TEST, VALIDATION
from research.photo.questions import all_questions, known_questions, right_after
from research.photo.study import FIGURES, Budget, PhotoStudy, TimeUpError
from slq import console
from slq.encoders import LastTokenEncoder, LatentEncoder
from slq.encoders.base import Encoder
from slq.encoders.multi_vector import MultiVectorEncoder
from slq.errors import DataError
from slq.evaluation.statistics import QueryValues, interval, paired_test
from slq.io.files import load_json, write_json
from slq.io.provenance import record
from slq.retention.own import OwnTask
from slq.training import TrainConfig, fresh_queries
from slq.training.methods import LORA_LR_TIMES_DIM
from slq.training.start import learning_rate

RESULT, QUESTIONS, RIVAL = "photographs.json", "questions.json", "lora"
NEAREST: Mapping[str, Any] = {"batch_sampler": "nearest"}
RANK = 8
WITH_FACTS = "latent_lora_facts"


@dataclass(frozen=True)
class Method:
    """A way of adapting.

    Attributes:
        options: of its training.
        factors: tries, each a factor of the usual learning rate, and beside latent LoRA one of that of the matrices.
        facts: whether it learns what the model tells.
        late_interaction: whether its latent queries are compared one by one.
    """

    options: Mapping[str, Any]
    factors: tuple[tuple[float, ...], ...]
    facts: bool = False
    late_interaction: bool = False


LATENT_LORA = {**NEAREST, "latent_lora_rank": RANK}
LATENT_LORA_FACTORS = ((1.0, 1.0), (1.0, 0.3), (0.3, 1.0))
TRAINED = {
    "latents": Method({}, ((1.0,), (3.0,), (0.3,))),
    "late_interaction": Method({}, ((1.0,), (3.0,), (0.3,)), late_interaction=True),
    "latent_lora": Method(LATENT_LORA, LATENT_LORA_FACTORS),
    WITH_FACTS: Method(LATENT_LORA, LATENT_LORA_FACTORS, facts=True),
    "lora": Method({**NEAREST, "method": "lora", "lora_rank": RANK}, ((3.0,), (1.0,), (10.0,))),
    "full": Method({**NEAREST, "method": "full"}, ((3.0,), (1.0,), (10.0,))),
}
BASELINES: Mapping[str, Callable[[PhotoStudy, TrainConfig], Encoder]] = {
    "zero_shot": lambda study, options: LastTokenEncoder(study.model),
    "untrained": lambda study, options: LatentEncoder(study.model, fresh_queries(study.model, options)),
}
METHODS = (*BASELINES, *TRAINED)


def evaluate_methods(config: EvaluateConfig, command: str) -> dict[str, Any]:
    """Train and score methods, and write the table of all that the folder has.

    Args:
        config: the options.
        command: the command line, for the record.

    Returns:
        What `photographs.json` holds.

    Raises:
        DataError: if the data are missing or wrong, or the model can answer no question.
        ModelError: if the model cannot be loaded.
    """
    assert config.output is not None
    disable_progress_bar()  # the model loads in a blink
    table = Table(_study(config), config.num_latents, config.tries, command)
    files = [config.output / RESULT, *([config.result] if config.result else [])]
    for name in config.methods:
        try:
            table.measure(name)
        except TimeUpError as error:
            console.note(str(error))
            break
        except DataError as error:
            if name != WITH_FACTS:
                raise
            console.note(f"{name} is left out: {error}")
            continue
        table.write(*files)
    return table.write(*files)


def _study(config: EvaluateConfig) -> PhotoStudy:
    assert config.model is not None and config.data is not None and config.output is not None
    counts = (config.train_images, config.validation_images, config.test_images or sys.maxsize)
    size = Size(*counts, seeds=tuple(range(config.seeds)), epochs=config.epochs, batch_size=config.batch_size)
    deadline = None if config.minutes is None else time.monotonic() + 60 * config.minutes
    budget = Budget(deadline, int(config.disk_gb * 2**30))
    name = str(config.model.resolve()) if config.model.exists() else str(config.model)
    loading = {"device": config.device, "dtype": config.dtype}
    return PhotoStudy(config.output, name, config.data, size, config.knowledge or FOLDER, budget, **loading)


class Table:
    """The rows of a study.

    Args:
        study: that trains and scores.
        num_latents: latent queries of every method that has some.
        tries: how many learning rates are tried for each method, at most.
        command: the command line, for the record.
    """

    def __init__(self, study: PhotoStudy, num_latents: int, tries: int, command: str):
        self.study, self.num_latents, self.tries, self.command = study, num_latents, tries, command
        size = {"epochs": study.size.epochs, "batch_size": study.size.batch_size, "num_latents": num_latents}
        self.settings = {**size, "knowledge": _digest_of(study.knowledge), "photographs": study.content}
        self._digest = hashlib.sha256(json.dumps([self.settings, study.model.fingerprint], sort_keys=True).encode()).hexdigest()[:8]

    def measure(self, name: str) -> None:
        """A method's row, from what was done before and what is missing; kept in the study's folder.

        Args:
            name: of the method.

        Raises:
            TimeUpError: if something is missing and the minutes are over.
        """
        console.note(name)
        row = self._baseline(name) if name in BASELINES else self._adapted(name, TRAINED[name])
        file = self._row_file(name)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, self._recorded(row))

    def write(self, *files: Path) -> dict[str, Any]:
        """Write the table of all rows that the study has, measured now or before.

        Args:
            *files: for it.

        Returns:
            What they hold.
        """
        study = self.study
        rows = [load_json(file) for name in METHODS if (file := self._row_file(name)).is_file()]
        asked = study.out / QUESTIONS
        content = {
            "rows": [{name: value for name, value in row.items() if name != "values"} for row in rows],
            "unit": "percent; modality_gap, parameters and seconds as they are",
            "against": {"rival": RIVAL, "methods": _against({row["name"]: row["values"] for row in rows})},
            "photographs": {split: len(each) for split, each in study.photographs.items()},
            "captions": sum(len(each.captions) for each in study.photographs[TEST]),
            "questions": {name: each["counts"] for name, each in load_json(asked).items()} if asked.is_file() else None,
            "settings": self.settings,
            "base_model": {**study.model.identity.to_dict(), "name": _name_of(study.model.identity.name)},
        }
        whole = self._recorded(content)
        for file in files:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, whole)
        return whole

    # --- rows ---------------------------------------------------------------------------------------------------------

    def _baseline(self, name: str) -> dict[str, Any]:
        """The row of an encoder that learns nothing."""
        study, file = self.study, self.study.out / "baselines" / f"{name}-{self._digest}.json"
        measured = study.scored(file, lambda: BASELINES[name](study, study.options(num_latents=self.num_latents)))
        return {"name": name, "weights_changed": False, **_figures([measured]), **_kept([1.0]), "parameters": 0, **self._measured_in(file)}

    def _adapted(self, name: str, method: Method) -> dict[str, Any]:
        """The row of a method: tries with the first seed, then all seeds at the best of them."""
        study, seeds = self.study, self.study.size.seeds
        tries = [self._rates(method, factors) for factors in method.factors[: self.tries]]
        tried = [self._trained(name, method, rates, seeds[0]) for rates in tries]
        validation = [quality(each.measured) for each in tried]
        rates = tries[validation.index(max(validation))]
        runs = [self._trained(name, method, rates, seed) for seed in seeds]
        files = [each.folder / f"test-{self._digest}.json" for each in runs]
        measured = [study.scored(file, partial(self._encoder, method, each)) for file, each in zip(files, runs, strict=True)]
        changed = any(each.measured["weights_changed"] for each in runs)
        return {
            "name": name,
            "weights_changed": changed,
            **_figures(measured),
            **_kept([self._retention(each) for each in runs] if changed else [1.0] * len(runs)),
            "parameters": runs[0].measured["learned_numbers"],
            **_seconds(runs),
            "rates": rates,
            "tries": [{**each, "validation": 100 * found} for each, found in zip(tries, validation, strict=True)],
            **({"facts": len(study.facts.texts)} if method.facts else {}),
            **self._measured_in(files[0]),
        }

    def _trained(self, name: str, method: Method, rates: Mapping[str, float], seed: int) -> Trained:
        rate = "-".join(f"{value:.3g}" for value in rates.values())
        options = self.study.options(**self._options(method), **rates, seed=seed)
        return self.study.trained(f"{name}-{rate}-seed{seed}", options, method.facts)

    def _options(self, method: Method) -> dict[str, Any]:
        """Of a training, but for its rates and seed."""
        if "method" in method.options:  # it has no latent queries
            return dict(method.options)
        vectors = {"multi_vector_sizes": (self.num_latents,)} if method.late_interaction else {}
        return {**method.options, "num_latents": self.num_latents, **vectors}

    def _rates(self, method: Method, factors: Sequence[float]) -> dict[str, float]:
        """Learning rates at factors of the usual ones."""
        model = self.study.model
        usual = {"learning_rate": learning_rate(model, self.study.options(**self._options(method)))}
        usual |= {"latent_lora_learning_rate": LORA_LR_TIMES_DIM / model.dim} if "latent_lora_rank" in method.options else {}
        return {name: rate * factor for (name, rate), factor in zip(usual.items(), factors, strict=True)}

    def _encoder(self, method: Method, trained: Trained) -> Encoder:
        encoder = self.study.load(trained)
        return MultiVectorEncoder(encoder, self.num_latents) if method.late_interaction and isinstance(encoder, LatentEncoder) else encoder

    def _measured_in(self, file: Path) -> dict[str, str]:
        """Where the first seed's values and hits are."""
        return {"measured": file.relative_to(self.study.out).as_posix()}

    def _row_file(self, name: str) -> Path:
        return self.study.out / "rows" / f"{name}-{self._digest}.json"

    def _recorded(self, content: Mapping[str, Any]) -> dict[str, Any]:
        return record(content, command=self.command, device=str(self.study.model.device))

    # --- retention ----------------------------------------------------------------------------------------------------

    @cached_property
    def _known(self) -> list[OwnTask]:
        """What the model can answer before it is adapted; which questions these are is written down."""
        study = self.study
        study.budget.check()
        console.note("questions to the model")
        tasks = all_questions(study.photographs[VALIDATION], read_concepts(study.knowledge))
        known = known_questions(study.model, tasks, study.out / "answers")
        if not known:
            raise DataError("The model answers none of the questions right, so that nothing can be said of what it keeps.")
        asked = {task.name: len(task) for task in tasks}
        told = {task.name: [question.id for question in task.questions] for task in known}
        counts = {name: {"asked": count, "known": len(told.get(name, ()))} for name, count in asked.items()}
        write_json(study.out / QUESTIONS, {name: {"counts": counts[name], "known": told.get(name, [])} for name in asked})
        return known

    def _retention(self, trained: Trained) -> float:
        """The fraction of the known questions that are still answered right, the mean over tasks."""

        def ask() -> dict[str, Any]:
            self.study.budget.check()
            console.note(f"questions to {trained.folder.name}")
            return right_after(self.study.model, self.study.load(trained).model, self._known, self.study.out / "answers")

        return statistics.mean(once(trained.folder / "answers.json", ask).values())


def _figures(measured: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean and standard deviation over seeds of each figure, their intervals by cluster, and each query's mean over seeds."""
    seeds = [each["figures"] for each in measured]
    values = {
        figure: {"values": np.mean([each[figure]["values"] for each in seeds], axis=0).tolist(), "clusters": seeds[0][figure]["clusters"]}
        for figure in seeds[0]
    }
    found = spread([{figure: 100 * one["mean"] for figure, one in each.items()} for each in seeds])
    bounds = {figure: interval([QueryValues(np.array([one["values"]]), one["clusters"])])[0] for figure, one in values.items()}
    found["ci95"] = {figure: (100 * each).tolist() for figure, each in bounds.items()}
    if all("by_category" in each for each in measured):
        by_category = [{name: 100 * value for name, value in each["by_category"].items()} for each in measured]
        found["knowledge_by_category"] = spread(by_category)
    if all(each["modality_gap"] is not None for each in measured):
        found |= spread([{"modality_gap": each["modality_gap"]} for each in measured])
    return {**found, "seeds": len(measured), "values": values}


def _kept(right: Sequence[float]) -> dict[str, Any]:
    return spread([{"retention": 100 * each} for each in right])


def _seconds(runs: Sequence[Trained]) -> dict[str, Any]:
    """Wall and CPU seconds of a training, of those that ran without a stop."""
    whole = [each.measured["seconds"] for each in runs if each.measured["seconds"] is not None]
    return spread([{"seconds": each["wall"], "cpu_seconds": each["cpu"]} for each in whole]) if whole else {}


def _against(values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Each method's differences to the rival, in points: of each query the mean over seeds, then a paired test by cluster."""
    if RIVAL not in values:
        return {}
    return {name: _differences(ours, values[RIVAL]) for name, ours in values.items() if name != RIVAL}


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    found = {}
    for figure in (figure for figure in FIGURES if figure in ours and figure in theirs):
        difference_Q = np.array(ours[figure]["values"]) - np.array(theirs[figure]["values"])
        tested = paired_test([QueryValues(difference_Q[None], ours[figure]["clusters"])])
        bounds = (100 * tested.bounds_M2[0]).tolist()
        found[figure] = {"difference": 100 * float(difference_Q.mean()), "ci95": bounds, "p": float(tested.p_M[0])}
    return found


def _name_of(model: str) -> str:
    """A model on the hub by its name there, a folder by its own, wherever it lies."""
    return Path(model).name if Path(model).is_absolute() else model


def _digest_of(folder: Path) -> str:
    """Of the knowledge queries and their answers."""
    return hashlib.sha256(b"".join((folder / name).read_bytes() for name in (QUERIES, CONCEPTS))).hexdigest()[:16]
