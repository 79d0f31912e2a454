"""The optimiser of a run and its schedule."""

from __future__ import annotations

import torch
from torch.optim.lr_scheduler import LambdaLR

from slq.config import TrainConfig
from slq.training.methods import Trainable

MAX_GRAD_NORM = 1.0


def create_optimizer(trainable: Trainable, config: TrainConfig, steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW, and a schedule of linear warm-up and linear decay.

    Args:
        trainable: what is learned.
        config: the run's options, with its learning rate.
        steps: of the whole run; at most a tenth of them is warm-up.
    """
    assert config.learning_rate is not None
    optimizer = torch.optim.AdamW(trainable.parameter_groups(config.learning_rate), weight_decay=config.weight_decay)
    warmup = warmup_of(config, steps)
    return optimizer, LambdaLR(optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup))))


def warmup_of(config: TrainConfig, steps: int) -> int:
    """The steps of warm-up that a run of so many steps takes.

    Args:
        config: the run's options.
        steps: of the whole run.
    """
    return max(1, min(config.warmup_steps, steps // 10))


def refresh_learning_rate(optimizer: torch.optim.Optimizer, schedule: LambdaLR) -> None:
    """Set the learning rate of the next step as the schedule has it.

    A checkpoint holds the rate of the schedule that it was saved under; a run that is now longer has another one.

    Args:
        optimizer: of the run, as loaded.
        schedule: of the run, at the step that was loaded; may be wrapped by accelerate.
    """
    inner: LambdaLR = getattr(schedule, "scheduler", schedule)
    for group, base, factor in zip(optimizer.param_groups, inner.base_lrs, inner.lr_lambdas, strict=True):
        group["lr"] = base * factor(inner.last_epoch)
