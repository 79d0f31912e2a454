"""For every test: the root on the path, as `research` is not installed; one thread, no network, no plugins, an empty cache."""

from __future__ import annotations

import atexit
import os
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import pytest

CACHE = tempfile.TemporaryDirectory(prefix="slq-tests-")
atexit.register(CACHE.cleanup)  # before it warns that nobody did

# Before torch and the hub's library are imported: they read these once. With one thread small models run as fast as with two, and no sum
# waits for a core that is busy elsewhere.
os.environ |= {
    "OMP_NUM_THREADS": os.environ.get("SLQ_TEST_THREADS", "1"),
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "SLQ_LOAD_PLUGINS": "",
    "XDG_CACHE_HOME": CACHE.name,
}

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what is not of slq itself, for `make test-rest`; skip tests and examples of LanceStore where LanceDB is missing."""
    lacks_lancedb = find_spec("lancedb") is None
    for item in items:
        path = item.path.relative_to(config.rootpath)
        if path.parts[0] in ("packages", "research"):
            item.add_marker("beside")
        if lacks_lancedb and ("lance" in path.parts or path.name.startswith("test_lance")):
            item.add_marker(pytest.mark.skip(reason='LanceDB is not installed: pip install "slq[lance]"'))
