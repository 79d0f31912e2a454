"""Training: pairs in, adapter out, one loop for every method."""

from slq.training.loop import fresh_queries, train
from slq.training.options import TrainingOptions

__all__ = ["TrainingOptions", "fresh_queries", "train"]
