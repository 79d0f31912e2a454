"""What a run tells while it goes: a line a step in `log.jsonl`, a progress bar, and trackers where they are asked for."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator
from accelerate.tracking import GeneralTracker, TensorBoardTracker, WandBTracker

from slq import console
from slq.errors import MissingExtraError
from slq.io.files import append_jsonl, read_jsonl, write_jsonl

LOG_FILE = "log.jsonl"
TRACKERS = ("tensorboard", "wandb")  # also the names of their packages, of the extras that install them, and of their folders
_SHOWN = "val/query_to_positive/"


def check_trackers(names: Sequence[str]) -> None:
    """Refuse a tracker that is not installed, before the work and not after it.

    Args:
        names: as `--report-to` has them.

    Raises:
        MissingExtraError: naming the command that installs it.
    """
    for name in names:
        if name in TRACKERS and importlib.util.find_spec(name) is None:
            raise MissingExtraError(f'--report-to {name} needs {name}, which is not installed; run: pip install "slq[{name}]"')


class TrainingLog:
    """The log of one run; a context manager, within which the progress bar is shown.

    Args:
        accelerator: whose first process writes, and whose trackers are told.
        folder: where `log.jsonl` is.
        report_to: names of trackers; `none` is none.
        total: steps of the whole run.
        steps_per_epoch: of one pass over the pairs.
        start: steps that are done already; lines of later ones are dropped, since the run repeats them.
        show: whether a progress bar is shown.

    Attributes:
        scores: the newest validation scores.
    """

    def __init__(
        self, accelerator: Accelerator, folder: Path, report_to: Sequence[str], total: int, steps_per_epoch: int, start: int, show: bool
    ):
        self.accelerator, self.file, self.steps_per_epoch = accelerator, folder / LOG_FILE, steps_per_epoch
        self._bar_shown = console.progress_bar("training", total, show=show, completed=start)
        self._clock = time.perf_counter()
        self.scores: dict[str, float] = {}
        self.trackers = _trackers(report_to, folder, start) if accelerator.is_main_process else []
        if self.file.exists() and accelerator.is_main_process:
            rows, torn = read_jsonl(self.file)
            if torn:
                console.warn(f"{self.file}: {torn} line(s) that a crash cut off are dropped.")
            write_jsonl(self.file, [row for row in rows if row["step"] <= start])

    def __enter__(self) -> Self:
        self._bar = self._bar_shown.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar_shown.__exit__(kind, error, trace)
        for tracker in self.trackers:
            tracker.finish()

    def step(
        self, step: int, loss: float, temperature: float, grad_norm: float, rate: float, num_items: int, scores: Mapping[str, float]
    ) -> None:
        """Tell of one step.

        Args:
            step: its number, from 1.
            loss: of its batch.
            temperature: after it.
            grad_norm: before clipping.
            rate: the learning rate that it was taken with.
            num_items: of its batch.
            scores: of the validation that followed; empty if there was none.
        """
        now = time.perf_counter()
        told = {"epoch": step / self.steps_per_epoch, "loss": loss, "temperature": temperature, "grad_norm": grad_norm}
        told |= {"learning_rate": rate, "items_per_second": num_items / (now - self._clock), **scores}
        self._clock, self.scores = now, dict(scores) or self.scores
        if self.accelerator.is_main_process:
            append_jsonl(self.file, {"step": step, "time": datetime.now(UTC).isoformat(timespec="milliseconds"), **told})
        for tracker in self.trackers:
            tracker.log(told, step=step)
        self._bar.update(completed=step, note=", ".join([f"loss {loss:.3f}", *_told(self.scores)]))


def _trackers(names: Sequence[str], folder: Path, start: int) -> list[GeneralTracker]:
    """The trackers of a run that goes on behind a step; TensorBoard drops what it has of later ones, W&B begins a run of its own."""
    made: dict[str, GeneralTracker] = {}
    if "tensorboard" in names:
        made["tensorboard"] = TensorBoardTracker("tensorboard", folder, purge_step=start + 1)
    if "wandb" in names:
        made["wandb"] = WandBTracker("slq", name=folder.resolve().name, dir=str(folder))
    for tracker in made.values():
        tracker.start()
    return list(made.values())


def _told(scores: Mapping[str, float]) -> list[str]:
    """Validation in words: each hit@k beside what chance gives, and of how many pairs; of few pairs chance alone hits most."""
    found = {name.removeprefix(_SHOWN): value for name, value in scores.items() if name.startswith(f"{_SHOWN}hit@")}
    told = [f"{name} {console.percent(hit)} (chance {console.percent(scores[f'{_SHOWN}random_{name}'])})" for name, hit in found.items()]
    return [*told, f"{scores[f'{_SHOWN}queries']} pairs"] if told else []
