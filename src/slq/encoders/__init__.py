"""Encoders: what turns items into vectors."""

from slq.encoders.base import Encoder
from slq.encoders.baselines import BASELINES, LastTokenEncoder, MeanTokensEncoder, ZeroTokenEncoder
from slq.encoders.finetuned import FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.encoders.loading import load_encoder
from slq.encoders.multi_vector import MultiVectorEncoder

__all__ = [
    "BASELINES",
    "Encoder",
    "FineTunedModel",
    "LastTokenEncoder",
    "LatentEncoder",
    "MeanTokensEncoder",
    "MultiVectorEncoder",
    "ZeroTokenEncoder",
    "load_encoder",
]
