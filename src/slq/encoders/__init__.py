"""Ways of reading embeddings off a model beside latent queries: the controls every result stands next to."""

from slq.encoders.baselines import ZERO_SHOT, LastTokenReadout, MeanReadout, ZeroTokenReadout
from slq.encoders.finetuned import FineTunedModel
from slq.encoders.loading import load_encoder
from slq.encoders.multi_vector import LateInteraction

__all__ = ["ZERO_SHOT", "FineTunedModel", "LastTokenReadout", "LateInteraction", "MeanReadout", "ZeroTokenReadout", "load_encoder"]
