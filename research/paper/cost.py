"""What a training costs, for each method at its chosen learning rate: seconds, and memory beyond the loaded model's.

Each runs in a process of its own, one after the other, so that none finds memory that another has left. Run it on a machine that has
nothing else to do; what was measured stays in costs/: remove it to measure again. The first seed alone: a seed changes what is learned,
not how much work it is.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil
import torch

from research.paper.study import SPLITS, Study, file_name, once, say
from research.paper.tuning import METHODS
from slq.io.provenance import provenance
from slq.training import TrainConfig, train

SIDES: dict[str, Mapping[str, Any]] = {"latents": {"latents, nothing cached": {"cache_memory_gb": 0}}}  # further ways of the same training


def run(study: Study) -> dict[str, Any]:
    """Seconds from pairs to the saved result, and the most memory in use, by method."""
    found: dict[str, Any] = {}
    for name, method in METHODS.items():
        rate = study.chosen_rate(name, method.rates, **method.options)
        for way, changes in {name: {}, **SIDES.get(name, {})}.items():
            say(f"the cost of {way}")
            options = study.options(**method.options, learning_rate=rate, seed=study.size.seeds[0], **changes)
            kept = study.out / "costs" / f"{file_name(way)}-{study.digest(options)}.json"
            found[way] = once(kept, partial(_apart, study, options))
    return study.write("cost", {"trainings": found})


def _apart(study: Study, options: TrainConfig) -> dict[str, Any]:
    """The cost of one training in a new process."""
    data = {split: study.folder(split) for split in SPLITS}
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(_cost, study.out, study.model_name, data, study.loading, options).result()


def _cost(out: Path, model: str, data: Mapping[str, Path], loading: Mapping[str, Any], options: TrainConfig) -> dict[str, Any]:
    study = Study(out, model, data=data, **loading)
    pairs, network = study.pairs("train"), study.model
    with tempfile.TemporaryDirectory() as folder, PeakMemory(network.device) as peak:
        clock = time.perf_counter()
        train(pairs, network, Path(folder) / "learned", options, (), show_progress=False)
        seconds = time.perf_counter() - clock
    return {"seconds": round(seconds, 1), "peak_bytes": peak.bytes, **provenance(options.seed)}


class PeakMemory:
    """The most memory that was in use beyond what was at the start: of the accelerator, or of this process as sampled."""

    def __init__(self, device: torch.device):
        self._on_accelerator = device.type == "cuda"
        self._process, self._stop = psutil.Process(), threading.Event()
        self.bytes = 0

    def __enter__(self) -> PeakMemory:
        if self._on_accelerator:
            torch.cuda.reset_peak_memory_stats()
            self._begin = torch.cuda.memory_allocated()
        else:
            self._begin = self._process.memory_info().rss
            self._thread = threading.Thread(target=self._sample, daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._on_accelerator:
            self.bytes = torch.cuda.max_memory_allocated() - self._begin
        else:
            self._stop.set()
            self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(0.05):
            self.bytes = max(self.bytes, self._process.memory_info().rss - self._begin)
