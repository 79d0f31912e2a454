"""The doctor: does a model, with latent queries over it, keep what encoding, training and chatting rest on?

Each check comes to the same values in two ways (two passes and one, one batch and another, saved and loaded) and compares what they differ
by with what rounding explains. The items are built in, so a finding can be repeated anywhere.
"""

from slq.doctor.report import ALL_CHECKS, Report, Row, run_checks
from slq.doctor.subject import SEED, Context, with_fresh_queries

__all__ = ["ALL_CHECKS", "SEED", "Context", "Report", "Row", "run_checks", "with_fresh_queries"]
