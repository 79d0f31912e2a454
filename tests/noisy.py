"""An encoder whose vectors differ in their last digits from call to call, as those of other batches do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from slq.encoders.base import Encoder


class Noisy(Encoder):
    """An encoder whose every vector differs in its last digits, as if each came from a batch of its own."""

    def __init__(self, inner: Encoder):
        self.inner, self.model, self.pooling, self.kind = inner, inner.model, inner.pooling, inner.kind

    def states_of(self, prepared):
        return self.inner.states_of(prepared)

    def describe(self):
        return self.inner.describe()

    @property
    def fingerprint(self):
        return self.inner.fingerprint

    def encode(self, items, *arguments, **keywords):
        found = self.inner.encode(items, *arguments, **keywords)
        noise = np.random.default_rng(len(items)).uniform(-1e-7, 1e-7, found.vectors.shape).astype(np.float32)
        return replace(found, vectors=found.vectors + noise)
