"""A store and a family of models."""

from slq.models.families import Family
from slq.testing import MemoryStore

PALIGEMMA = Family(verified=False)  # tried each time it is loaded, until its contract test stands


class SessionStore(MemoryStore):
    """Rows that are gone with the process."""
