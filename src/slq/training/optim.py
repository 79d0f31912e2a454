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
    warmup = max(1, min(config.warmup_steps, steps // 10))
    return optimizer, LambdaLR(optimizer, lambda step: min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup))))
