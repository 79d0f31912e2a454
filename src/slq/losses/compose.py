"""The loss of a training run, from its options."""

from __future__ import annotations

from slq.config import TrainConfig
from slq.losses.base import CombinedLoss, Loss, create_loss
from slq.losses.late_interaction import LateInteraction
from slq.losses.matryoshka import Matryoshka


def compose_loss(config: TrainConfig) -> Loss:
    """The sum of the chosen losses, and of what other options of the run add.

    Args:
        config: `loss` names the parts. `matryoshka_dims` repeats those that read pooled embeddings over first dimensions,
            `multi_vector_sizes` adds late interaction, `false_negative_margin` holds for every part that has such a field.

    Raises:
        ConfigError: see `create_loss`.
        InputError: see `create_loss`.
        PluginError: see `create_loss`.
    """
    margin = config.false_negative_margin
    chosen = [create_loss(each, {"false_negative_margin": margin}) for each in config.loss]
    on_states = [part for part in chosen if getattr(part, "reads_states", False)]
    on_embeddings = [part for part in chosen if not getattr(part, "reads_states", False)]
    if config.matryoshka_dims:
        on_embeddings = [Matryoshka(part, config.matryoshka_dims) for part in on_embeddings]
    if config.multi_vector_sizes:
        on_states.insert(0, LateInteraction(config.multi_vector_sizes, margin))
    return CombinedLoss((*on_embeddings, *on_states))
