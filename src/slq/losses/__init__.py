"""Losses: one class each, found by name, composed from the options of a run."""

from slq.losses.base import CombinedLoss, Loss, LossBatch, create_loss, losses
from slq.losses.compose import compose_loss
from slq.losses.info_nce import InfoNCE
from slq.losses.late_interaction import LateInteraction
from slq.losses.matryoshka import Matryoshka
from slq.losses.orthogonality import Orthogonality

__all__ = [
    "CombinedLoss",
    "InfoNCE",
    "LateInteraction",
    "Loss",
    "LossBatch",
    "Matryoshka",
    "Orthogonality",
    "compose_loss",
    "create_loss",
    "losses",
]
