"""Ways of reading embeddings off a backbone beside latent queries: the controls every result stands next to."""

from slq.methods.late_interaction import LateInteraction
from slq.methods.load import load_embedder
from slq.methods.tuned import TunedBackbone
from slq.methods.zero_shot import ZERO_SHOT, LastTokenReadout, MeanReadout, ZeroTokenReadout

__all__ = ["ZERO_SHOT", "LastTokenReadout", "LateInteraction", "MeanReadout", "TunedBackbone", "ZeroTokenReadout", "load_embedder"]
