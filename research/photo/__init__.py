"""A small multimodal LLM of real weights, made from packages and captioned photographs: `python -m research.photo build`."""

from slq import compat  # noqa: F401  (before anything of transformers)
