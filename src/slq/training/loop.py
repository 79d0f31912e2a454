"""The training loop, one for every method: read from `train` downwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs

from slq import console
from slq.adapters.files import CONFIG_FILE, PLUGINS, WEIGHTS_FILE
from slq.config import TrainConfig, dump_config
from slq.config.fields import result_settings
from slq.data import unique
from slq.encoders.base import Encoder
from slq.encoders.finetuned import FINETUNED_FILE
from slq.encoders.reuse import Prefetched
from slq.errors import ConfigError, InputError, NonFiniteLossError, ResumeMismatchError
from slq.io.files import write_json, write_jsonl, write_text
from slq.io.outputs import OutputFolder
from slq.io.provenance import isolated_rng, provenance
from slq.losses import Loss, compose_loss
from slq.models import FrozenModel, default_num_workers
from slq.training import checkpoints
from slq.training.batches import Batches, ContrastiveBatch
from slq.training.distributed import shard
from slq.training.facts import Facts
from slq.training.log import LOG_FILE, TRACKERS, TrainingLog, check_trackers
from slq.training.methods import Trainable
from slq.training.neighbors import arrange
from slq.training.optim import MAX_GRAD_NORM, create_optimizer, refresh_learning_rate, warmup_of
from slq.training.screening import Skipped, screen_pairs
from slq.training.start import create_trainable, learning_rate, plugins_of
from slq.training.step import ContrastiveStep
from slq.training.stopping import stop_after_step
from slq.training.validation import split_validation, validate
from slq.types import Item, Pair

CONFIG_TOML = "config.toml"
HEADING = "Options of a run of slq; `slq train --config config.toml -o NEW` repeats it."
SKIPPED_FILE = "skipped.jsonl"  # items that could not be used, with reasons
WRITES = (
    *(CONFIG_TOML, CONFIG_FILE, WEIGHTS_FILE, FINETUNED_FILE, LOG_FILE, SKIPPED_FILE, checkpoints.RUN_FILE, "leakage.json"),
    *(checkpoints.PATTERN, f"{checkpoints.PATTERN}.partial", "lora", "model", *TRACKERS),
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
    start: Encoder | None = None,
    command: str | None = None,
    facts: Facts | None = None,
) -> Encoder:
    """Learn by `config.method` on pairs and save what was learned, beside `log.jsonl` and the newest checkpoint.

    Items that cannot be used are skipped, and listed in `skipped.jsonl`.

    Args:
        pairs: training pairs.
        model: the base model; it stays as it is.
        out: the run's folder.
        config: every option; None for the defaults.
        validation_pairs: what is validated on; None: some of `pairs` are split off, as the options say.
        resume: whether to resume from the newest checkpoint in `out`; on the CPU in float32 the weights are those of an unbroken run. With
            more epochs or steps than before the run goes on for longer, also one that is finished.
        overwrite: whether what an earlier run wrote there is replaced.
        show_progress: whether progress and notes are shown.
        stop_after: stop at this step as if interrupted.
        after_step: called with the steps done, those in all, and the encoder as it is then.
        recorded: configs that stand in `config.toml` before this one, such as the model's.
        start: what an earlier run has learned on the same model, to begin with; None begins anew.
        command: the command line, for the run's record.
        facts: what is learned beside the pairs, with the weight that the options say.

    Returns:
        The encoder of what was learned: of latent queries, whose adapter `out` then holds, or a fine-tuned copy of the model.

    Raises:
        InputError: for pairs or options that cannot work.
        KeyboardInterrupt: after Ctrl-C, when the step in hand is done and saved.
        MissingExtraError: for a tracker that is not installed.
        OutputExistsError: if `out` holds something and neither `resume` nor `overwrite` is given.
        ResumeMismatchError: if a run is resumed with other data, another order of it, or other options.
        ConfigError: for more Matryoshka dimensions than the model has.
        NonFiniteLossError: if the loss, its gradient or what was learned is not finite; that step is not saved.
        DiskFullError: if there is no room for a checkpoint.
    """
    config = config or TrainConfig()
    check_trackers(config.report_to)
    if config.matryoshka_dims and max(config.matryoshka_dims) > model.dim:
        raise ConfigError(f"matryoshka_dims must be at most the {model.dim} dimensions of the model, not {max(config.matryoshka_dims)}.")
    loss = compose_loss(config)
    config = replace(config, learning_rate=learning_rate(model, config))
    accelerator = _accelerator(config, model)
    show = show_progress and accelerator.is_main_process
    OutputFolder.check(out, "train", overwrite=overwrite, resume=resume)
    given, (pairs, skipped) = pairs, _screened(pairs, model, show)
    if accelerator.is_main_process:
        console.list_failures([each.failure for each in skipped])
    console.check_skipped([each.failure for each in skipped], len(_items(given)), config.max_skipped)
    if validation_pairs is None:
        pairs, validation_pairs = split_validation(pairs, config)
    batches = Batches(pairs, config.batch_size, config.positives_per_query, config.seed, facts, config.facts_per_step)
    if batches.steps_per_epoch == 0:
        raise InputError(f"{len(pairs)} pair(s) are too few to train on: in-batch negatives need at least 2.")
    record = checkpoints.run_record(config, model, pairs, validation_pairs, start, facts)
    made_with = {"data": None if config.data is None else str(config.data), "command": command, "provenance": provenance(config.seed)}
    run = Run(accelerator, out, None, config, batches, validation_pairs, start, record["pairs_sha256"], show)
    if resume:
        _check_longer(run, checkpoints.steps_done(out))
    run = replace(run, folder=_open_folder(accelerator, out, record, made_with, [*recorded, config], skipped, resume, overwrite))
    with isolated_rng(config.seed):
        return _learn(run, model, loss, resume, stop_after, after_step)


@dataclass(frozen=True)
class Run:
    """What is settled before the first step.

    Attributes:
        accelerator: the processes that train together.
        out: the run's folder.
        folder: the same, where this process writes it.
        config: the options, with the learning rate.
        batches: which pairs meet in which step.
        validation_pairs: what is validated on; none, no validation.
        start: what is begun with; None begins anew.
        data_sha256: of the training pairs.
        show: whether this process shows progress and notes.
    """

    accelerator: Accelerator
    out: Path
    folder: OutputFolder | None
    config: TrainConfig
    batches: Batches
    validation_pairs: Sequence[Pair]
    start: Encoder | None
    data_sha256: str
    show: bool

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return min(self.config.epochs * self.batches.steps_per_epoch, self.config.max_steps or 10**12)

    def is_due(self, step: int) -> bool:
        """Whether this process validates after a step.

        Args:
            step: the number of steps done.
        """
        ended = step % self.batches.steps_per_epoch == 0 or step == self.total
        return bool(self.validation_pairs) and ended and self.accelerator.is_main_process

    def saves(self, step: int, stop_after: int | None) -> bool:
        """Whether a checkpoint follows a step.

        Args:
            step: the number of steps done.
            stop_after: the step at which the run stops as if interrupted; None for none.
        """
        return step % self.config.save_steps == 0 or step in (self.total, stop_after)

    def told(self, scores: Mapping[str, float], truncated: int) -> dict[str, Any]:
        """What is recorded beside what was learned.

        Args:
            scores: of the validation, the last ones.
            truncated: how many texts were cut.
        """
        begun, added = None if self.start is None else self.start.fingerprint, plugins_of(self.config)
        return {
            **result_settings(self.config),
            "pairs": len(self.batches.pairs),
            "data_sha256": self.data_sha256,
            "truncated_texts": truncated,
            "steps": self.total,
            "warmup_steps_taken": warmup_of(self.config, self.total),
            "start": begun,
            "final_scores": dict(scores),
            **provenance(self.config.seed),
            **({PLUGINS: added} if added else {}),
        }


def _learn(
    run: Run, model: FrozenModel, loss: Loss, resume: bool, stop_after: int | None, after_step: Callable[[int, int, Encoder], None]
) -> Encoder:
    """From the first step, or the newest checkpoint, to what was learned."""
    accelerator, config, total = run.accelerator, run.config, run.total
    rank, processes = accelerator.process_index, accelerator.num_processes
    trainable, own = create_trainable(model, config), partial(shard, rank=rank, processes=processes)
    if run.start is not None:
        trainable.start_from(run.start)
    num_workers = default_num_workers(model.device) if config.num_workers is None else config.num_workers
    facts = run.batches.facts.texts if run.batches.facts else ()
    items = _items([*run.batches.pairs, *run.validation_pairs])
    _prefill(trainable, own([*items, *facts]), num_workers, run.show)
    if config.batch_sampler == "nearest":
        run.batches.arrange = partial(arrange, trainable, run.batches.pairs, config.neighbors, rank, processes)
    encoder = trainable.encoder
    optimizer, schedule = create_optimizer(trainable, config, total)
    network = ContrastiveStep(trainable, loss, config.facts_weight, rank, processes)
    network, optimizer, schedule = accelerator.prepare(network, optimizer, schedule)
    start = checkpoints.load_newest(accelerator, run.out, run.batches) if resume else 0
    refresh_learning_rate(optimizer, schedule)
    if run.show:
        per_epoch = f"{run.batches.steps_per_epoch} steps an epoch, {total} in all"
        console.note(f"{len(run.batches.pairs)} pairs, effective batch size {config.batch_size}, {per_epoch}")
    log = TrainingLog(accelerator, run.out, config.report_to, total, run.batches.steps_per_epoch, start, run.show)
    with log, stop_after_step(processes == 1) as asked_to_stop:
        steps = _steps(trainable, run.batches, start, min(total, stop_after or total), own, num_workers)
        for step, (batch, prefetched) in enumerate(steps, start + 1):
            batch_loss = network(batch, prefetched)
            accelerator.backward(batch_loss)
            grad_norm = accelerator.clip_grad_norm_(network.parameters(), MAX_GRAD_NORM)
            rate = optimizer.param_groups[0]["lr"]
            if not (torch.isfinite(batch_loss) and torch.isfinite(torch.as_tensor(grad_norm))):
                raise _not_finite(
                    f"The loss of step {step} is {batch_loss.item()} and its gradient's norm {float(grad_norm)}", batch, run, encoder
                )
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            trainable.after_step()
            if step == total and config.wise_ft_alpha < 1:
                trainable.interpolate(config.wise_ft_alpha)
            if not all(bool(torch.isfinite(weights).all()) for weights in trainable.parameters()):
                raise _not_finite(f"What step {step} learned is not finite", batch, run, encoder)
            scores = validate(encoder, run.validation_pairs) if run.is_due(step) else {}
            log.step(step, batch_loss.item(), trainable.temperature.item(), float(grad_norm), rate, len(batch.items), scores)
            stops = asked_to_stop()
            if stops or run.saves(step, stop_after):
                checkpoints.save(accelerator, run.out, step, run.batches)
                if run.folder:
                    run.folder.keep()
            after_step(step, total, encoder)
            if stops and step < total:
                raise KeyboardInterrupt
    cut = {item.text for item, is_cut in zip(items, model.item_processor.truncated(items), strict=True) if is_cut}
    if run.folder and (stop_after is None or stop_after >= total):
        trainable.save(run.out, run.told(log.scores, len(cut)))
        run.folder.finish()
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return encoder


def _accelerator(config: TrainConfig, model: FrozenModel) -> Accelerator:
    # A process whose part of a batch holds no image leaves the vision encoder without a gradient.
    parallel = DistributedDataParallelKwargs(find_unused_parameters=config.train_vision_encoder)
    # Without `cpu` processes on CPUs would not know of each other. The schedule would take as many steps as there are processes.
    return Accelerator(cpu=model.device.type == "cpu", step_scheduler_with_optimizer=False, kwargs_handlers=[parallel])


def _screened(pairs: Sequence[Pair], model: FrozenModel, show: bool) -> tuple[list[Pair], list[Skipped]]:
    """The pairs without items that cannot be used, and those."""
    with console.progress_bar("checking pairs", len(pairs), show=show) as advance:
        return screen_pairs(pairs, model, advance)


def _open_folder(
    accelerator: Accelerator,
    out: Path,
    record: dict[str, Any],
    made_with: Mapping[str, Any],
    configs: Sequence[Any],
    skipped: Sequence[Skipped],
    resume: bool,
    overwrite: bool,
) -> OutputFolder | None:
    """The run's folder with its record, its options and what was skipped; the first process makes it, once all have looked at it."""
    folder = None
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        if resume and out.is_dir() and any(out.iterdir()):
            checkpoints.check_record(out, record)
            folder = OutputFolder.resume(out, "train", WRITES)
        else:
            folder = OutputFolder.create(out, "train", overwrite=overwrite, writes=WRITES)
        write_json(out / checkpoints.RUN_FILE, {**record, **made_with})
        write_text(out / CONFIG_TOML, dump_config(list(configs), out, HEADING))
        if skipped:
            write_jsonl(out / SKIPPED_FILE, map(asdict, skipped))
    accelerator.wait_for_everyone()
    return folder


def _items(pairs: Sequence[Pair]) -> list[Item]:
    return [item for pair in pairs for item in (pair.query, *pair.positives, *pair.negatives)]


def _prefill(trainable: Trainable, items: Sequence[Item], num_workers: int, show: bool) -> None:
    """Compute once what never changes, as far as there is room for it."""
    items = list({item.content_hash: item for item in items}.values())
    with console.progress_bar("caching prefixes", len(items), show=show) as advance:
        cached = trainable.prefill(items, advance, num_workers)
    if show and cached:
        console.note(cached)


def _steps(
    trainable: Trainable, batches: Batches, start: int, stop: int, own: Callable[[Sequence[Item]], list[Item]], num_workers: int
) -> Iterator[tuple[ContrastiveBatch, Prefetched]]:
    """The batch of each step, with what was prepared of this process's items while the model ran."""
    for epoch in batches.from_step(start, stop):
        yield from zip(epoch, trainable.prefetch_batches([own(batch.items) for batch in epoch], num_workers), strict=True)


def _check_longer(run: Run, start: int) -> None:
    """Refuse to resume a run for fewer steps than it has done, or one whose end was interpolated and is no point on its way."""
    if start > run.total:
        raise ResumeMismatchError(f"{run.out} has done {start} steps, and {run.total} are asked for: raise --epochs or --max-steps.")
    if 0 < start < run.total and run.config.wise_ft_alpha < 1 and any((run.out / name).is_file() for name in (CONFIG_FILE, FINETUNED_FILE)):
        raise ResumeMismatchError(
            f"{run.out} ended with --wise-ft-alpha {run.config.wise_ft_alpha:g}, so it cannot be trained longer: begin a run with "
            f"--model {run.out} and another --output."
        )


def _not_finite(what: str, batch: ContrastiveBatch, run: Run, encoder: Encoder) -> NonFiniteLossError:
    """Why training stops before a step is saved, with the last checkpoint and the pairs at fault: those without embeddings, or else all."""
    newest = checkpoints.newest(run.out)
    saved = f"{newest.name} is from before it" if newest else "nothing was saved yet"
    items = unique(batch.items)
    failures = encoder.encode(items, [item.content_hash for item in items], on_error="skip").failures
    failed = {failure.item for failure in failures}
    at_fault = [
        source
        for source, pair in zip(batch.sources, batch.pairs, strict=True)
        if not failed or any(item.content_hash in failed for item in _items([pair]))
    ]
    more = f" and {len(at_fault) - 5} more" if len(at_fault) > 5 else ""
    return NonFiniteLossError(
        f"{what}, so training stops; {saved}. Its pairs: {', '.join(source[-50:] for source in at_fault[:5])}{more}. "
        "Lower --learning-rate, or use --dtype float32."
    )
