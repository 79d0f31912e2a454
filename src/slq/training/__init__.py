"""Training: pairs in, adapter out, one loop for every method."""

from slq.training.loop import train
from slq.training.methods import fresh_queries
from slq.training.options import PAPER, TrainConfig

__all__ = ["PAPER", "TrainConfig", "fresh_queries", "train"]
