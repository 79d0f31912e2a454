"""The encoder behind other libraries' interfaces."""

from slq import compat  # noqa: F401  (before anything of transformers)
