"""The public names of the package, pinned, so that a change is deliberate; the commands are pinned by tests/cli/test_surface.py."""

from __future__ import annotations

PUBLIC_NAMES = [
    "Embeddings",
    "Failure",
    "Item",
    "LatentEncoder",
    "Pair",
    "TrainConfig",
    "evaluate",
    "load",
    "load_model",
    "open_collection",
    "read_items",
    "read_pairs",
    "train",
]


def test_public_names():
    import slq

    assert sorted(slq.__all__) == PUBLIC_NAMES
    for name in PUBLIC_NAMES:
        assert getattr(slq, name) is not None
