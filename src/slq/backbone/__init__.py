"""The frozen multimodal LLM behind one contract: prepare, prefix, suffix, and full (the slow twin)."""

from slq.backbone import torchvision_shim  # noqa: F401  (before anything of transformers)
from slq.backbone.ahead import default_workers, prepare_ahead
from slq.backbone.features import PictureFeatures
from slq.backbone.frozen import BackboneIdentity, FrozenBackbone
from slq.backbone.load import MINIATURE, load_backbone
from slq.backbone.preprocessing import Preprocessing
from slq.backbone.states import KeptPrefix, PrefixStates, Prepared, join

__all__ = [
    "MINIATURE",
    "BackboneIdentity",
    "FrozenBackbone",
    "KeptPrefix",
    "PictureFeatures",
    "PrefixStates",
    "Prepared",
    "Preprocessing",
    "default_workers",
    "join",
    "load_backbone",
    "prepare_ahead",
]
