"""What a model's files may make this machine do: run Python code, or load weights of another repository."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from slq.errors import ModelError, shorten

# Every file whose `auto_map` may name a class to import.
_CONFIGS = (
    "config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "tokenizer_config.json",
    "generation_config.json",
)
_PEFT = "adapter_config.json"
_COMMIT = re.compile(r"[0-9a-f]{40}")


def check_repository(path: str, name: str, revision: str | None, trust_remote_code: bool) -> None:
    """Refuse, before anything of it is loaded, a model that stands for another one, or runs code of more than its own pinned files.

    Args:
        path: the model's folder, or its hub id.
        name: what the user called it.
        revision: of a hub id.
        trust_remote_code: whether the user trusts the code that comes with it.

    Raises:
        ModelError: for a PEFT adapter, in whose place transformers loads the model that its file names; and where code is trusted, for a
            hub id without the commit that was read, or code that is taken from another repository.
    """
    if (peft := _json_of(path, _PEFT, revision)) is not None:
        base = shorten(repr(peft.get("base_model_name_or_path")), 100)
        raise ModelError(f"{name!r} is an adapter of PEFT over {base}: merge it into that model, and give the folder of the result.")
    if not trust_remote_code:
        return
    if not os.path.isdir(path) and not _COMMIT.fullmatch(revision or ""):
        raise ModelError(
            f"trust_remote_code runs the Python files of {name!r}, which change with its branches: name the commit that you read with "
            "--revision, all 40 digits of it."
        )
    for file in _CONFIGS:
        for repository in _repositories(_json_of(path, file, revision)):
            if repository != name:
                other = shorten(repository, 100)
                raise ModelError(
                    f"{file} of {name!r} takes Python code from {other!r}, and trust_remote_code holds for the one model that you name: "
                    "copy both into a folder that you have read."
                )


def _repositories(config: dict[str, Any] | None) -> list[str]:
    """The repositories that a configuration names for its classes, `owner/name--module.Class`, at any depth."""
    waiting, found = [config], []
    while waiting:
        value: Any = waiting.pop()
        if isinstance(value, dict):
            for key, each in value.items():
                if key == "auto_map":
                    classes = each.values() if isinstance(each, dict) else [each]
                    listed = [one for every in classes for one in (every if isinstance(every, list) else [every])]
                    found += [one.split("--")[0] for one in listed if isinstance(one, str) and "--" in one]
                else:
                    waiting.append(each)
        elif isinstance(value, list):
            waiting += value
    return found


def _json_of(path: str, file: str, revision: str | None) -> dict[str, Any] | None:
    """What a file of the model holds; None where there is none.

    Raises:
        ModelError: if it is no JSON object.
    """
    found = cached_file(
        path, file, revision=revision, _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if found is None:
        return None
    try:
        content = json.loads(Path(found).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file} of {path!r} cannot be read ({shorten(error)}): fetch it again.") from error
    if not isinstance(content, dict):
        raise ModelError(f"{file} of {path!r} holds no JSON object: fetch it again.")
    return content
