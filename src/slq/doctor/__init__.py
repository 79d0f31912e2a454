"""The doctor: does a model, with latent queries over it, keep what embedding, training and chatting rest on?

Each check comes to the same numbers in two ways (fast path and slow twin, one batch and another, saved and loaded) and holds what they
differ by against what rounding explains. The items are built in, so a finding can be repeated anywhere.
"""

from slq.doctor.report import Examination, Row, examine
from slq.doctor.subject import SEED, with_fresh_queries

__all__ = ["SEED", "Examination", "Row", "examine", "with_fresh_queries"]
