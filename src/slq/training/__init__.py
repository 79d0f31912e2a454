"""Training: one loop for every method."""

from slq.config import PRESETS, TrainConfig
from slq.training.loop import train
from slq.training.methods import fresh_queries

__all__ = ["PRESETS", "TrainConfig", "fresh_queries", "train"]
