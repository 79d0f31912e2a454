"""The frozen multimodal LLM behind one contract: prepare, prefill, decode_latents, and forward_reference (the reference path)."""

from slq import compat  # noqa: F401  (before anything of transformers)
from slq.models import module_list  # noqa: F401  (before any of its models)
from slq.models.frozen import FrozenModel
from slq.models.identity import ModelIdentity, check_identity
from slq.models.kv import ItemKV, PrefixKV, PreparedBatch, stack_kv
from slq.models.latent_lora import LatentLora
from slq.models.loading import MINIATURE, load_model
from slq.models.prefetch import default_num_workers, prefetch_batches
from slq.models.preprocessing import Preprocessing
from slq.models.vision import VisionFeatures

__all__ = [
    "MINIATURE",
    "FrozenModel",
    "ItemKV",
    "LatentLora",
    "ModelIdentity",
    "PrefixKV",
    "PreparedBatch",
    "Preprocessing",
    "VisionFeatures",
    "check_identity",
    "default_num_workers",
    "load_model",
    "prefetch_batches",
    "stack_kv",
]
