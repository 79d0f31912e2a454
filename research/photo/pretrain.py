"""The training loop: the projector on captions, then optionally the decoder's last layers beside it. All else stays as it was loaded.

A run keeps in its folder:
    checkpoint.pt   what is trained, its optimiser, and the step; written whole, so that a killed run goes on from there
    log.jsonl       a line a step; those behind the checkpoint are dropped when the run goes on, since they come again
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from research.photo.captions import CaptionBatches, CaptionRow, CaptionTokens, caption_losses
from research.photo.features import FeatureCache
from slq import console
from slq.errors import NonFiniteLossError
from slq.io.files import append_jsonl, crash_point, read_jsonl, write_atomic, write_jsonl

CHECKPOINT_FILE, LOG_FILE = "checkpoint.pt", "log.jsonl"
WARM_UP = 50  # steps, or a tenth of a short run
MAX_GRAD_NORM = 1.0
SCORED_TOGETHER = 32  # captions a batch where nothing is trained


@dataclass(frozen=True)
class Phase:
    """One part of a training: what is trained, for how long, and how fast.

    Attributes:
        name: for the log.
        epochs: passes over the photographs.
        projector_rate: the largest learning rate of the projector.
        decoder_rate: that of the decoder's layers.
        layers: how many of these are trained, the last ones.
        seconds: it ends after so many, if it is given; the rate falls to zero until then.
    """

    name: str
    epochs: int
    projector_rate: float
    decoder_rate: float = 0.0
    layers: int = 0
    seconds: float | None = None


@dataclass(frozen=True)
class Run:
    """What a training works with.

    Attributes:
        model: transformers' FastVLM, on its device.
        batches: of training captions.
        features: of all images.
        validation: captions that are scored at each checkpoint; may be empty.
        phases: in their order.
        folder: for checkpoint and log.
        checkpoint_every: steps.
        half: whether products are computed in bfloat16.
    """

    model: Any
    batches: CaptionBatches
    features: FeatureCache
    validation: Sequence[CaptionRow]
    phases: Sequence[Phase]
    folder: Path
    checkpoint_every: int
    half: bool


def pretrain(run: Run) -> list[dict[str, Any]]:
    """Train, from the checkpoint if there is one; the model holds what was learned.

    Args:
        run: with its model as it was assembled.

    Returns:
        For each phase its steps, seconds and losses.

    Raises:
        NonFiniteLossError: if the loss is not finite any more.
    """
    checkpoint, log = run.folder / CHECKPOINT_FILE, run.folder / LOG_FILE
    saved = torch.load(checkpoint, map_location=run.model.device, weights_only=True) if checkpoint.exists() else {}
    run.model.load_state_dict(saved.get("trained", {}), strict=False)
    if log.exists():
        done = (saved.get("phase", 0), saved.get("step", 0))
        write_jsonl(log, [row for row in read_jsonl(log)[0] if (row["phase"], row["step"]) <= done])
    total = sum(phase.epochs for phase in run.phases) * run.batches.steps
    with console.progress_bar("training", total, completed=_before(run, saved.get("phase", 0)) + saved.get("step", 0)) as bar:
        for number in range(saved.get("phase", 0), len(run.phases)):
            _train_phase(run, number, saved if saved.get("phase") == number else {}, bar)
    return [_summary(run, number) for number in range(len(run.phases))]


def rate_factor(step: int, steps: int, progress: float) -> float:
    """Linear warm-up, then a linear fall to zero.

    Args:
        step: from 0.
        steps: of the phase, at most.
        progress: how much of the phase is done, by its steps or by its time, from 0 to 1.
    """
    return min((step + 1) / min(WARM_UP, max(1, steps // 10)), 1 - progress)


@torch.no_grad()
def caption_sums(
    model: Any, tokens: CaptionTokens, features: FeatureCache, rows: Sequence[CaptionRow], show_progress: bool = False
) -> tuple[list[float], list[int]]:
    """The loss of captions, each with the image of its row.

    Args:
        model: transformers' FastVLM.
        tokens: of the model.
        features: of the images.
        rows: captions with an image each.
        show_progress: whether there is a progress bar, which nothing else may show at the same time.

    Returns:
        For each row the sum over its tokens, in nats, and how many these are.
    """
    sums, counts = [], []
    with console.progress_bar("scoring captions", len(rows), show=show_progress) as advance:
        for start in range(0, len(rows), SCORED_TOGETHER):
            part = rows[start : start + SCORED_TOGETHER]
            losses_N, row_N = _losses(model, tokens, features, part)
            sums += torch.zeros(len(part)).index_add(0, row_N.cpu(), losses_N.cpu()).tolist()
            counts += torch.bincount(row_N, minlength=len(part)).tolist()
            advance(len(part))
    return sums, counts


def _losses(model: Any, tokens: CaptionTokens, features: FeatureCache, rows: Sequence[CaptionRow]) -> tuple[Tensor, Tensor]:
    batch = {name: value.to(model.device) for name, value in tokens.collate(rows).items()}
    return caption_losses(model, features.get([row.image for row in rows]), batch)


def _train_phase(run: Run, number: int, saved: dict[str, Any], bar: console.ProgressBar) -> None:
    """One phase, from where it was saved."""
    if saved.get("finished"):
        return
    phase, steps, before = run.phases[number], run.phases[number].epochs * run.batches.steps, _before(run, number)
    trained, groups = _select(run.model, phase)
    optimiser = torch.optim.AdamW(groups)
    if saved:
        optimiser.load_state_dict(saved["optimiser"])
    step, seconds = saved.get("step", 0), saved.get("seconds", 0.0)
    clock = time.perf_counter() - seconds
    while (progress := _progress(phase, step, steps, seconds)) < 1:
        factor = rate_factor(step, steps, progress)
        loss, norm = _train_step(run, run.batches.batch(before + step), optimiser, trained, factor)
        step, seconds = step + 1, time.perf_counter() - clock
        row = {"phase": number, "step": step, "loss": loss, "grad_norm": norm, "learning_rate": factor * phase.projector_rate}
        finished = _progress(phase, step, steps, seconds) >= 1
        if due := finished or step % run.checkpoint_every == 0:
            row |= _validate(run)
        append_jsonl(run.folder / LOG_FILE, row | {"seconds": round(seconds, 2)})
        bar.update(completed=before + step, description=phase.name, note=f"loss {loss:.3f}")
        crash_point("photo.step")
        if due:
            state = {"phase": number, "step": step, "seconds": seconds, "finished": finished}
            _save(run.folder, {**state, "trained": trained, "optimiser": optimiser.state_dict()})


def _train_step(
    run: Run, rows: Sequence[CaptionRow], optimiser: torch.optim.Optimizer, trained: dict[str, Tensor], factor: float
) -> tuple[float, float]:
    """One update; its loss and the norm of its gradient."""
    for group in optimiser.param_groups:
        group["lr"] = factor * group["rate"]
    with torch.autocast(run.model.device.type, torch.bfloat16, enabled=run.half):
        losses_N, _ = _losses(run.model, run.batches.tokens, run.features, rows)
    loss = losses_N.mean()
    if not math.isfinite(loss.item()):
        raise NonFiniteLossError("The loss is not finite any more: build into another folder, with a lower --learning-rate or --tune-rate.")
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(trained.values(), MAX_GRAD_NORM)
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return loss.item(), norm.item()


def _select(model: Any, phase: Phase) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """The parameters of a phase by name, which alone get a gradient, and their groups for the optimiser."""
    model.requires_grad_(False)
    layers = model.model.language_model.layers
    parts: list[tuple[Any, float]] = [(model.model.multi_modal_projector, phase.projector_rate)]
    parts += [(layer, phase.decoder_rate) for layer in layers[len(layers) - phase.layers :]]
    for part, _ in parts:
        part.requires_grad_(True)
    trained = {name: value for name, value in model.named_parameters() if value.requires_grad}
    return trained, [{"params": list(part.parameters()), "rate": rate} for part, rate in parts]


def _progress(phase: Phase, step: int, steps: int, seconds: float) -> float:
    return max(step / steps, 0.0 if phase.seconds is None else seconds / phase.seconds)


def _before(run: Run, number: int) -> int:
    """Steps of all earlier phases, as if none had ended early: every phase draws batches of its own."""
    return sum(phase.epochs for phase in run.phases[:number]) * run.batches.steps


def _validate(run: Run) -> dict[str, float]:
    if not run.validation:
        return {}
    sums, counts = caption_sums(run.model, run.batches.tokens, run.features, run.validation)
    return {"validation_loss": sum(sums) / sum(counts)}


def _save(folder: Path, state: dict[str, Any]) -> None:
    write: Callable[[Path], None] = lambda partial: torch.save(state, partial)  # noqa: E731
    write_atomic(folder / CHECKPOINT_FILE, write)


def _summary(run: Run, number: int) -> dict[str, Any]:
    rows = [row for row in read_jsonl(run.folder / LOG_FILE)[0] if row["phase"] == number]
    some = max(1, len(rows) // 10)
    ends = {"first": rows[:some], "last": rows[-some:]}
    losses = {f"{name}_loss": round(sum(row["loss"] for row in part) / len(part), 4) for name, part in ends.items()}
    scored = {"validation_loss": round(rows[-1]["validation_loss"], 4)} if "validation_loss" in rows[-1] else {}
    return {"name": run.phases[number].name, "steps": len(rows), "seconds": rows[-1]["seconds"], **losses, **scored}
