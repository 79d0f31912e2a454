"""What a run tells while it goes: a line a step in `log.jsonl`, a progress bar, and trackers where they are asked for."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from accelerate import Accelerator

from slq import console
from slq.io.files import append_jsonl, write_text

LOG_FILE = "log.jsonl"
_SHOWN = "val/query_to_positive/"


class TrainingLog:
    """The log of one run; a context manager, within which the progress bar is shown.

    Args:
        accelerator: whose first process writes, and whose trackers are told.
        folder: where `log.jsonl` is.
        total: steps of the whole run.
        start: steps that are done already; lines of later ones are dropped, since the run repeats them.
        show: whether a progress bar is shown.

    Attributes:
        scores: the newest validation scores.
    """

    def __init__(self, accelerator: Accelerator, folder: Path, total: int, start: int, show: bool):
        self.accelerator, self.file = accelerator, folder / LOG_FILE
        self._bar_shown = console.progress_bar("training", total, show=show, completed=start)
        self._clock = time.perf_counter()
        self.scores: dict[str, float] = {}
        if accelerator.log_with:
            accelerator.init_trackers("tensorboard")
        if self.file.exists() and accelerator.is_main_process:
            lines = [line for line in self.file.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= start]
            write_text(self.file, "".join(line + "\n" for line in lines))

    def __enter__(self) -> Self:
        self._bar = self._bar_shown.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar_shown.__exit__(kind, error, trace)

    def step(self, step: int, loss: float, temperature: float, grad_norm: float, num_items: int, scores: Mapping[str, float]) -> None:
        """Tell of one step.

        Args:
            step: its number, from 1.
            loss: of its batch.
            temperature: after it.
            grad_norm: before clipping.
            num_items: of its batch.
            scores: of the validation that followed; empty if there was none.
        """
        now = time.perf_counter()
        told = {"loss": loss, "temperature": temperature, "grad_norm": grad_norm, "items_per_second": num_items / (now - self._clock)}
        told |= scores
        self._clock, self.scores = now, dict(scores) or self.scores
        if self.accelerator.is_main_process:
            append_jsonl(self.file, {"step": step, **told})
        self.accelerator.log(told, step=step)
        found = [f"{name.removeprefix(_SHOWN)} {console.percent(value)}" for name, value in self.scores.items() if _SHOWN in name]
        self._bar.update(completed=step, note=", ".join([f"loss {loss:.3f}", *found]))
