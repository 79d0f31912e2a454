"""The training loop, one for every method: plain functions from pairs to what was learned, read from `train` downwards."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from slq.adapters.files import CONFIG_FILE, WEIGHTS_FILE
from slq.config import TrainConfig, dump_config
from slq.config.fields import result_settings
from slq.encoders.base import Encoder
from slq.encoders.finetuned import FINETUNED_FILE
from slq.encoders.latent import Prefetched
from slq.errors import Failure, InputError
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.evaluation.ranking import rank
from slq.io.files import append_jsonl, write_jsonl, write_text
from slq.io.outputs import OutputFolder
from slq.io.provenance import provenance, seed_everything
from slq.models import FrozenModel, default_num_workers
from slq.training import checkpoints
from slq.training.batches import Batches, ContrastiveBatch
from slq.training.distributed import shard
from slq.training.methods import Learner, fresh_learner, learning_rate
from slq.training.screening import screen_pairs
from slq.types import Item, Pair

CONFIG_TOML = "config.toml"
LOG_FILE = "log.jsonl"
LEFT_OUT_FILE = "left_out.jsonl"  # items that could not be used, with reasons
OWN_FILES = (
    *(CONFIG_TOML, CONFIG_FILE, WEIGHTS_FILE, FINETUNED_FILE, LOG_FILE, LEFT_OUT_FILE, checkpoints.RUN_FILE, "leakage.json"),
    *("checkpoint-*", "lora", "model", "tensorboard"),
)


def train(
    pairs: Sequence[Pair],
    model: FrozenModel,
    out: Path,
    config: TrainConfig | None = None,
    validation_pairs: Sequence[Pair] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    show_progress: bool = True,
    stop_after: int | None = None,
    after_step: Callable[[int, int, Encoder], None] = lambda step, total, encoder: None,
    recorded: Sequence[Any] = (),
) -> Encoder:
    """Learn by `config.method` on pairs and save what was learned in `out`, beside `log.jsonl` and the newest checkpoint.

    Returns the encoder of latent queries, whose adapter `out` then holds; for the other methods the tuned copy of the model.

    validation_pairs: default, some of `pairs` set aside by `config.validation`. resume: go on from the newest checkpoint in `out`;
    on the CPU in float32 the weights are those of an unbroken run. stop_after: stop at this step as if interrupted. after_step: called
    with the steps done, those in all, and the encoder as it is then. recorded: further configs for `config.toml`,
    such as the model's. Items that cannot be used are left out and listed in `left_out.jsonl`.
    Raises OutputExistsError if `out` holds something and neither `resume` nor `overwrite` is given, InputError for pairs or settings that
    cannot work, DiskFullError when there is no room for a checkpoint.
    """
    config = _resolved(config or TrainConfig(), model)
    accelerator = _accelerator(out, config)
    main, show_progress = accelerator.is_main_process, show_progress and accelerator.is_main_process
    OutputFolder.check(out, overwrite, resume="train" if resume else "")
    pairs, failures = _usable(pairs, model, show_progress)
    if validation_pairs is None:
        pairs, validation_pairs = split_validation(pairs, config)
    batches = Batches(pairs, config.batch_size, config.positives_per_query, config.seed)
    if batches.steps_per_epoch == 0:
        raise InputError(f"{len(pairs)} pair(s) are too few to train on: in-batch negatives need at least 2.")
    total = min(config.epochs * batches.steps_per_epoch, config.max_steps or 10**12)
    described = {**result_settings(config), "pairs": len(pairs), "backbone": model.identity.to_dict()}
    folder = _open_folder(accelerator, out, described, [*recorded, config], failures, resume, overwrite)

    seed_everything(config.seed)
    rank, processes = accelerator.process_index, accelerator.num_processes
    learner, own = fresh_learner(model, config, rank, processes), partial(shard, rank=rank, processes=processes)
    workers = default_num_workers(model.device) if config.num_workers is None else config.num_workers
    _prefill(learner, own(_items([*pairs, *validation_pairs])), workers, show_progress)
    network, optimiser, schedule = _prepare(accelerator, learner, config, total)
    start = _resume(accelerator, out) if resume else 0
    log = _Log(accelerator, out, total, start, config, show_progress)
    log.begin(f"{len(pairs)} pairs, effective batch {config.batch_size}, {batches.steps_per_epoch} steps an epoch, {total} in all")
    with log:
        steps = _steps(learner, batches, start, min(total, stop_after or total), own, workers)
        for step, (batch, ahead) in enumerate(steps, start + 1):
            loss = network(batch, ahead)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            if step == total and config.wise_ft_alpha < 1:
                learner.interpolate(config.wise_ft_alpha)
            due = validation_pairs and (step % batches.steps_per_epoch == 0 or step == total)
            log.step(step, loss, norm, learner, batch, _validate(learner.encoder, validation_pairs) if due and main else {})
            if step % config.save_steps == 0 or step in (total, stop_after):
                checkpoints.save(accelerator, out, step)
                if folder:
                    folder.keep()
            after_step(step, total, learner.encoder)
    if stop_after is None or stop_after >= total:
        training = {**result_settings(config), "pairs": len(pairs), "steps": total, "final_scores": log.scores, **provenance(config.seed)}
        if folder:
            learner.save(out, training)
            folder.finish()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return learner.encoder


def _resolved(config: TrainConfig, model: FrozenModel) -> TrainConfig:
    """The options with the learning rate that holds where none was chosen."""
    return replace(config, learning_rate=learning_rate(model, config))


def split_validation(pairs: Sequence[Pair], config: TrainConfig) -> tuple[list[Pair], list[Pair]]:
    """Split pairs into training and validation; a fraction never takes more than 500."""
    count = min(500, int(config.validation_split * len(pairs))) if config.validation_size is None else config.validation_size
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(config.seed)).tolist()
    chosen = set(order[: min(count, max(0, len(pairs) - 2))])
    return [pair for i, pair in enumerate(pairs) if i not in chosen], [pairs[i] for i in sorted(chosen)]


def _usable(pairs: Sequence[Pair], model: FrozenModel, show_progress: bool) -> tuple[list[Pair], list[Failure]]:
    with _bar(show_progress) as bar:
        task = bar.add_task("checking pairs", total=len(pairs))
        usable, failures = screen_pairs(pairs, model, lambda count: bar.advance(task, count))
    for failure in failures:
        print(f"left out: {failure}", file=sys.stderr)
    return usable, failures


def _open_folder(
    accelerator: Accelerator,
    out: Path,
    described: dict[str, Any],
    configs: Sequence[Any],
    failures: Sequence[Failure],
    resume: bool,
    overwrite: bool,
) -> OutputFolder | None:
    """The run's folder with what decides its weights, the options that repeat it, and what was left out.

    The first process makes it, once all have looked at it.
    """
    folder = None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if resume and out.is_dir() and any(out.iterdir()):
            checkpoints.describe_run(out, described, resume)  # before anything is written: another run is refused
            folder = OutputFolder.resume(out, "train", OWN_FILES)
        else:
            folder = OutputFolder.create(out, "train", overwrite=overwrite, writes=OWN_FILES)
            checkpoints.describe_run(out, described, resume=False)
        heading = "Options of a run of slq; `slq train --config config.toml -o NEW` repeats it."
        write_text(out / CONFIG_TOML, dump_config(configs, out, heading))
        if failures:
            write_jsonl(out / LEFT_OUT_FILE, map(asdict, failures))
    accelerator.wait_for_everyone()
    return folder


def _accelerator(out: Path, config: TrainConfig) -> Accelerator:
    return Accelerator(
        log_with="tensorboard" if "tensorboard" in config.report_to else None,
        project_dir=str(out),
        step_scheduler_with_optimizer=False,  # else the schedule goes on by as many steps as there are processes
    )


def _prepare(accelerator: Accelerator, learner: Learner, config: TrainConfig, total: int) -> tuple[Any, Any, Any]:
    """The learner made ready, AdamW, and a schedule of linear warm-up and linear fall."""
    assert config.learning_rate is not None
    optimiser = torch.optim.AdamW(learner.groups_of_parameters(config.learning_rate), weight_decay=config.weight_decay)
    warmup = max(1, min(config.warmup_steps, total // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min((step + 1) / warmup, max(0.0, (total - step) / max(1, total - warmup)))
    )
    return accelerator.prepare(learner, optimiser, schedule)


def _items(pairs: Sequence[Pair]) -> list[Item]:
    return [item for pair in pairs for item in (pair.query, *pair.positives, *pair.negatives)]


def _steps(
    learner: Learner, batches: Batches, start: int, stop: int, own: Callable[[Sequence[Item]], list[Item]], workers: int
) -> Iterator[tuple[ContrastiveBatch, Prefetched]]:
    """The batch of each step, with those of this process's items that must be read for it, prepared while the model ran."""
    for epoch in batches.from_step(start, stop):
        yield from zip(epoch, learner.prefetch_batches([own(batch.items) for batch in epoch], workers), strict=True)
    learner.encoder.model.item_processor.warn_truncated()


def _prefill(learner: Learner, items: Sequence[Item], workers: int, show_progress: bool) -> None:
    """Read every item once and keep what there is room for."""
    items = list({item.content_hash: item for item in items}.values())
    with _bar(show_progress) as bar:
        task = bar.add_task("reading items", total=len(items))
        kept = learner.prefill(items, lambda count: bar.advance(task, count), workers)
        bar.update(task, visible=bool(kept))
    if show_progress and kept:
        print(kept)


@torch.no_grad()
def _validate(encoder: Encoder, pairs: Sequence[Pair]) -> dict[str, float]:
    """hit@1 and hit@5 of the first positive against the pairs' queries and back, as fractions."""
    queries = encoder.encode([pair.query for pair in pairs]).vectors
    positives = encoder.encode([pair.positives[0] for pair in pairs]).vectors
    accepted = [{positive.content_hash for positive in pair.positives} for pair in pairs]
    first = [pair.positives[0].content_hash for pair in pairs]
    relevant = np.array([[content in each for content in first] for each in accepted])
    forward, backward = _hits(queries, positives, relevant), _hits(positives, queries, relevant.T)
    return {f"{way} hit@{k}": side[f"hit@{k}"] for way, side in (("query", forward), ("positive", backward)) for k in (1, 5)}


def _hits(queries: np.ndarray, corpus: np.ndarray, relevant_QC: np.ndarray) -> dict[str, float]:
    """Metrics at 1 and 5 of queries (Q, D) against a corpus (C, D)."""
    judged = [{int(position): 1 for position in np.flatnonzero(relevant_C)} for relevant_C in relevant_QC]
    ranked = rank(queries, corpus, judged)
    return from_ranks([RelevantRanks(one.ranks_R, np.ones(len(one.ranks_R), dtype=int)) for one in ranked], (1, 5))


def _resume(accelerator: Accelerator, out: Path) -> int:
    checkpoint = checkpoints.newest(out)
    if checkpoint is None:
        return 0
    accelerator.load_state(str(checkpoint))
    return checkpoints.step_of(checkpoint)


def _bar(show: bool) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, disable=not show)


class _Log:
    """One line a step in `log.jsonl`, a progress bar, and TensorBoard where asked for."""

    def __init__(self, accelerator: Accelerator, out: Path, total: int, start: int, config: TrainConfig, show: bool):
        self.accelerator, self.file, self.show = accelerator, out / LOG_FILE, show
        self.bar = _bar(show)
        self.task = self.bar.add_task("adapting", total=total, completed=start)
        self.clock = time.perf_counter()
        self.scores: dict[str, float] = {}
        self._forget_after(start)
        if "tensorboard" in config.report_to:
            accelerator.init_trackers("tensorboard")

    def _forget_after(self, start: int) -> None:
        """Drop lines of steps that a resumed run will repeat."""
        if self.file.exists() and self.accelerator.is_main_process:
            lines = [line for line in self.file.read_text(encoding="utf-8").splitlines() if json.loads(line)["step"] <= start]
            self.file.write_text("".join(line + "\n" for line in lines), encoding="utf-8")

    def begin(self, text: str) -> None:
        if self.show:
            print(text)

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def step(self, step: int, loss: Tensor, norm: Tensor, learner: Learner, batch: ContrastiveBatch, scores: dict[str, float]) -> None:
        now = time.perf_counter()
        line = {
            "step": step,
            "loss": loss.item(),
            "temperature": learner.temperature.item(),
            "gradient_norm": float(norm),
            "items_per_second": (len(batch.queries) + len(batch.candidates)) / (now - self.clock),
            **scores,
        }
        self.clock = now
        self.scores = scores or self.scores
        if self.accelerator.is_main_process:
            append_jsonl(self.file, line)
        self.accelerator.log({name: value for name, value in line.items() if name != "step"}, step=step)
        shown = f"loss {line['loss']:.3f}" + "".join(f", {name} {value:.0%}" for name, value in self.scores.items() if "query" in name)
        self.bar.update(self.task, completed=step, description=f"adapting ({shown})")
