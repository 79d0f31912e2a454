"""How the miniature was made: tasks, batches, losses and the loop, run by `python -m research.pretraining`."""

from slq import compat  # noqa: F401  (before anything of transformers)
