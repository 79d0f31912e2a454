"""Training: pairs in, adapter out, one loop for every method."""

from slq.training.learners import fresh_queries
from slq.training.loop import train
from slq.training.options import PAPER, TrainingOptions

__all__ = ["PAPER", "TrainingOptions", "fresh_queries", "train"]
