"""How the miniature was made: tasks, batches, losses and the loop, run by `python -m slq.miniature.pretraining`."""

from slq.backbone import torchvision_shim  # noqa: F401  (before anything of transformers)
