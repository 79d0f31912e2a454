"""The retriever behind other libraries' interfaces."""

from slq.backbone import torchvision_shim  # noqa: F401  (before anything of transformers)
