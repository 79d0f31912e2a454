"""A study on captioned photographs: each training and each scoring done once, kept in a folder, and found again.

OUT/trainings/<name>/      what a training learned; measured.json, and what it scored on the test photographs in test.json
OUT/baselines/             the same of encoders that learn nothing, and what was measured once
OUT/vectors/               embeddings, by encoder: a scoring that was stopped goes on
OUT/prefixes/              prefixes of the model, of all trainings and scorings; may be removed afterwards, and is large
OUT/answers/, facts.jsonl  what the model answers and tells
OUT/rows/                  a row of the table, by method
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from research.paper.study import Scores, Size, Study, Trained, learned_numbers, once, shows_progress
from research.photo.knowledge import NAME, knowledge_set, read_queries
from research.photo.photographs import TEST, TRAIN, VALIDATION, Photograph, content_sha256, of_split, read_photographs, written
from research.photo.report import fixed_sample
from slq import console
from slq.cache import KVCache
from slq.config.fields import result_settings
from slq.data import PairFile, RetrievalSet, unique
from slq.encoders import LatentEncoder
from slq.encoders.base import Encoder
from slq.errors import DataError, SlqError
from slq.evaluation import Evaluation, bidirectional_sets, evaluate
from slq.io.provenance import provenance
from slq.training import TrainConfig, fresh_queries, train
from slq.training.facts import Facts
from slq.training.telling import read_facts, tell_facts
from slq.types import Item, Pair

TO_IMAGE, TO_TEXT = "text to image", "image to text"
# Figure -> set and metric, in percent.
FIGURES = {
    **{f"t2i_r{k}": (TO_IMAGE, f"hit@{k}") for k in (1, 5, 10)},
    **{f"i2t_r{k}": (TO_TEXT, f"hit@{k}") for k in (1, 5, 10)},
    "knowledge_hit5": (NAME, "hit@5"),
}
SHOWN = 10  # captions whose first hits are kept for the page
FACT_IMAGES, FACT_NAMES = 200, 40  # that the model is asked about, and told of


class TimeUpError(SlqError):
    """The minutes that were given are over; what is done is kept."""


@dataclass(frozen=True)
class Budget:
    """How long new work may begin, and how much room prefixes may take.

    Attributes:
        deadline: of `time.monotonic`; None for none.
        disk_bytes: of all prefixes.
    """

    deadline: float | None = None
    disk_bytes: int | None = None

    def check(self) -> None:
        """Refuse to begin what may take long.

        Raises:
            TimeUpError: after the deadline.
        """
        if self.deadline is not None and time.monotonic() > self.deadline:
            raise TimeUpError("The minutes are over: the same command goes on from here.")


class PhotoStudy(Study):
    """A `Study` whose pairs are photographs with all of their captions.

    Args:
        out: its folder.
        model: the base model.
        data: the photographs' file.
        size: how many of each split, and seeds, epochs and pairs a step; the test split is taken whole where it holds fewer.
        knowledge: folder of the knowledge queries.
        budget: of time and room.
        **loading: see `load_model`.

    Raises:
        DataError: if a split or the queries are missing.
    """

    def __init__(self, out: Path, model: str, data: Path, size: Size, knowledge: Path, budget: Budget, **loading: Any):
        read_queries(knowledge)
        photographs = read_photographs(data)
        super().__init__(out, model, size, **loading)
        counts = {TRAIN: size.training, VALIDATION: size.validation, TEST: size.test}
        self.photographs = {split: fixed_sample(of_split(photographs, split, least=2), count) for split, count in counts.items()}
        self.data, self.knowledge, self.budget = data, knowledge, budget

    @property
    def is_miniature(self) -> bool:
        """Never: the data are one's own."""
        return False

    # --- data ---------------------------------------------------------------------------------------------------------

    def sets(self, split: str) -> list[RetrievalSet]:
        """Photographs and all captions both ways, and on test photographs the knowledge queries where they have answers."""
        both = bidirectional_sets(self._file(split))
        if split != TEST:
            return both
        try:
            return [*both, knowledge_set(self.photographs[TEST], self.knowledge)]
        except DataError as error:
            console.note(f"No knowledge queries: {error}")
            return both

    def _file(self, split: str) -> PairFile:
        return PairFile(tuple(_pair(each) for each in self.photographs[split]), (), self.data)

    @cached_property
    def content(self) -> dict[str, str]:
        """A hash of each split's photographs and captions."""
        return {split: content_sha256(photographs) for split, photographs in self.photographs.items()}

    def _about_data(self) -> Any:
        return [self.content[TRAIN], self.content[VALIDATION]]

    # --- trainings ----------------------------------------------------------------------------------------------------

    def options(self, **changes: Any) -> TrainConfig:
        """Options at the study's size; prefixes are kept where all trainings and scorings find them."""
        room = None if self.budget.disk_bytes is None else self.budget.disk_bytes / 2**30
        return super().options(**{"cache_dir": self.out / "prefixes", "cache_memory_gb": 0.0, "cache_disk_gb": room, **changes})

    @cached_property
    def facts(self) -> Facts:
        """What the model tells of some of its training photographs; asked once.

        Raises:
            DataError: if it knows none of them again.
        """
        self.budget.check()
        console.note("facts that the model tells")
        file = self.out / "facts.jsonl"
        tell_facts(self.model, self.pairs(TRAIN)[:FACT_IMAGES], file, max_names=FACT_NAMES)
        return read_facts(file)

    def trained(self, name: str, options: TrainConfig, with_facts: bool = False) -> Trained:
        """See `Study.trained`; nothing new is begun after the deadline."""
        done = list((self.out / "trainings").glob(f"*-{self.digest(options, with_facts)}/measured.json"))
        if not done:
            self.budget.check()
        return super().trained(name, options, with_facts)

    def _train(self, name: str, folder: Path, options: TrainConfig, with_facts: bool) -> Scores:
        if options.method == "latents":
            self.fill_prefixes(options)
        console.note(f"training {name}")
        facts = self.facts if with_facts else None
        before, resumed = self.model.fingerprint, folder.exists()
        clocks = (time.perf_counter(), time.process_time())
        again: dict[str, Any] = {"resume": resumed, "show_progress": shows_progress(), "facts": facts}
        learned = train(self.pairs(TRAIN), self.model, folder, options, (), **again)
        seconds = [now - begun for now, begun in zip((time.perf_counter(), time.process_time()), clocks, strict=True)]
        found = self.evaluated(learned, self.sets(VALIDATION))
        return {
            "weights_changed": learned.model.fingerprint != before,
            "learned_numbers": learned_numbers(learned),
            "seconds": None if resumed else {"wall": seconds[0], "cpu": seconds[1]},  # of a part alone they would say little
            "validation": {one.name: {"hit@1": one.metrics["hit@1"], "hit@5": one.metrics["hit@5"]} for one in found},
            "options": result_settings(options),
            **provenance(options.seed),
        }

    def fill_prefixes(self, options: TrainConfig) -> dict[str, float]:
        """Compute the prefixes of all training items, so that no training's seconds hold them; done once.

        Args:
            options: of a training of latent queries.

        Returns:
            `items`, `wall` and `cpu` seconds.
        """

        def fill() -> dict[str, float]:
            items = unique([item for pair in self.pairs(TRAIN) for item in (pair.query, *pair.positives)])
            encoder = LatentEncoder(self.model, fresh_queries(self.model, options), self.cache())
            clocks = (time.perf_counter(), time.process_time())
            with console.progress_bar("prefixes of training items", len(items)) as advance:
                encoder.prefill(items, advance)
            return {"items": len(items), "wall": time.perf_counter() - clocks[0], "cpu": time.process_time() - clocks[1]}

        return once(self.out / "baselines" / f"prefixes-{self.digest(self.options())}.json", fill)

    def cache(self) -> KVCache:
        """Prefixes on disk, open."""
        return KVCache(0, folder=self.out / "prefixes", disk_budget=self.budget.disk_bytes)

    # --- scorings -----------------------------------------------------------------------------------------------------

    def evaluated(self, encoder: Encoder, sets: Sequence[RetrievalSet]) -> list[Evaluation]:
        """Score sets, with prefixes and embeddings from where they are kept."""
        if isinstance(encoder, LatentEncoder):
            encoder = LatentEncoder(encoder.model, encoder.queries, self.cache(), training=encoder.training)
        with console.progress_bar("embedding", sum(one.num_rows for one in sets)) as advance:
            return evaluate(encoder, sets, progress=advance, cache_dir=self.out / "vectors")

    def scored(self, file: Path, encoder: Callable[[], Encoder]) -> dict[str, Any]:
        """What an encoder scores on the test photographs, kept in a file: figures, each with its queries' values, and first hits.

        Args:
            file: that it is kept in.
            encoder: made only where the file is not there.
        """
        if not file.exists():
            self.budget.check()
        return once(file, lambda: _scores(self.evaluated(encoder(), self.sets(TEST))))


def _pair(photograph: Photograph) -> Pair:
    captions = dict.fromkeys(Item(written(caption)) for caption in photograph.captions)
    return Pair(Item(image=photograph.image), tuple(captions), source=photograph.name)


def _scores(found: Sequence[Evaluation]) -> dict[str, Any]:
    of_set = {one.name: one for one in found}
    scores: dict[str, Any] = {"modality_gap": of_set[TO_IMAGE].modality_gap, "figures": {}}
    for figure, (name, metric) in FIGURES.items():
        if name in of_set:
            one = of_set[name]
            scores["figures"][figure] = {"mean": one.metrics[metric], "values": one.values[metric].tolist(), "clusters": one.clusters}
    captions = {query.id: query for query in of_set[TO_IMAGE].queries}
    step = max(1, len(captions) // SHOWN)
    scores["captions"] = _hits({id_: captions[id_] for id_ in sorted(captions)[::step][:SHOWN]})
    if NAME in of_set:
        one = of_set[NAME]
        scores["knowledge"] = _hits({query.id: query for query in one.queries})
        scores["by_category"] = {category: metrics["hit@5"] for category, metrics in one.by_category.items()}
    return scores


def _hits(queries: Mapping[str, Any]) -> dict[str, Any]:
    """By query the rank of its first answer, None where none is found, and what stands first."""
    return {
        id_: {"rank": query.first_hit if query.first_hit < float("inf") else None, "top": [image for image, _ in query.top_k]}
        for id_, query in queries.items()
    }
