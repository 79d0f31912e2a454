"""Ways of reading embeddings off a frozen backbone beside latent queries: the controls every result stands next to."""

from slq.methods.zero_shot import LastTokenReadout

__all__ = ["LastTokenReadout"]
