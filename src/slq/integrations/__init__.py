"""The encoder behind other libraries' interfaces."""

from slq import models  # noqa: F401  (before anything of transformers; see `compat` and `models.module_list`)
