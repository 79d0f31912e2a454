"""What each method leaves of the model: its own answers to questions, before and after adapting (the right half of the paper's second table).

Latent queries play no part when the model answers, so nothing can change: that is proven by the hash of its weights. LoRA's matrices stand beside
the weights and can be taken away again; with them in place, or merged into the weights, the model answers differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from slq.backbone import FrozenBackbone
from slq.methods import TunedBackbone
from slq.paper.study import Study, Trained, say, spread
from slq.paper.tuning import METHODS, chosen
from slq.retention import retention
from slq.runtime import parameter_hash
