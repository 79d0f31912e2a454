"""The model card of an adapter, and its way to the Hugging Face hub."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from slq.adapters.files import Adapter
from slq.io.files import write_text
from slq.io.hub import upload

CARD_FILE = "README.md"
_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_OPTIONS = ("steps", "epochs", "batch_size", "learning_rate", "pairs", "init", "wise_ft_alpha", "seed")


def model_card(adapter: Adapter, name: str = "this repository") -> str:
    """Write the card of an adapter: what it is, how it is used, how it was learned.

    Args:
        adapter: the adapter; nothing is loaded.
        name: how users will name it: `owner/name` on the hub.

    Returns:
        Markdown with a YAML header, which names the base model only where that is on the hub.
    """
    base, queries = adapter.base_model, adapter.queries
    on_hub = _is_on_hub(base["name"])
    called = base["name"] if on_hub or "/" not in base["name"] else "a model of its author's machine"
    header = ["library_name: slq", *([f"base_model: {base['name']}", "base_model_relation: adapter"] if on_hub else [])]
    header += ["pipeline_tag: feature-extraction", "tags:", *(f"- {tag}" for tag in ("slq", "latent-queries", "retrieval", "multimodal"))]
    learned = {name: adapter.training[name] for name in _OPTIONS if adapter.training.get(name) is not None}
    parts = [
        "\n".join(["---", *header, "---"]),
        "# Latent queries for retrieval",
        f"{queries.num_latents} latent queries of {queries.dim} dimensions, appended to the tokens of a text, an image or both, turn "
        f"{called} into a retriever. The weights of that model stay as they are and are not part of this repository.",
        f'```python\nimport slq\n\nmodel = slq.load("{name}")\nembeddings = model.encode(["a red apple"])\n```',
        _table("Settings", {**queries.config, **{key: base["preprocessing"][key] for key in sorted(base["preprocessing"])}}),
    ]
    if added := adapter.added_by("slq.poolings", queries.pooling):
        parts.insert(3, f"Its pooling, `{queries.pooling}`, comes from {added}: install that distribution beside slq.")
    if learned:
        parts.append(_table("Training", learned))
    if scores := adapter.training.get("final_scores"):
        parts.append(_table("Validation, after the last step", {key: f"{value:.1%}" for key, value in scores.items()}))
    return "\n\n".join(parts) + "\n"


def push_to_hub(adapter: Adapter, repo_id: str, revision: str | None = None, *, private: bool = False) -> str:
    """Upload an adapter with its card to a repository of the hub, which is made if it is not there.

    Args:
        adapter: what to upload; its base model is named, not copied.
        repo_id: `owner/name`.
        revision: a branch, made if it is not there; None for `main`.
        private: whether a new repository is hidden from others.

    Returns:
        The address of the commit.

    Raises:
        OutputError: if the hub refuses, or cannot be reached.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        adapter.save(folder, stays=False)
        write_text(folder / CARD_FILE, model_card(adapter, repo_id))
        return upload(folder, repo_id, revision, message="Adapter of slq", private=private)


def _is_on_hub(name: str) -> bool:
    """Whether a model's name is `owner/name`, and no folder of this machine."""
    return bool(_HUB_NAME.fullmatch(name)) and not Path(name).exists()


def _table(title: str, values: dict[str, Any]) -> str:
    rows = [f"| {name} | `{json.dumps(value)}` |" for name, value in values.items()]
    return "\n".join([f"## {title}", "", "| | |", "|---|---|", *rows])
