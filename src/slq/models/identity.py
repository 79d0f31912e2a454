"""What decides a model's embeddings, stated so that it can be compared: weights, configuration, processor, tokenizer, chat template.

Weights are told apart by every byte of their files. Hashing them takes seconds a gigabyte, so the digest of a large file is remembered
beside its path, size, modification time and inode; files of the hub's cache are named by their hash, and are not read at all. A file that
is changed in place and given its old modification time back is the one change that goes unseen.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from slq.errors import FingerprintMismatchError, OutputError
from slq.io.files import write_json

UNKNOWN = "unknown"  # the revision of weights that have none
# The day that a chat template is told when it asks, so that an item has the same tokens on every day; Llama's templates fall back to it.
TEMPLATE_DAY = datetime(2024, 7, 26)
REMEMBERED_BYTES = 16 << 20  # size from which a file's digest is remembered
SETTLED_SECONDS = 2.0  # a file that changed just now may change again within one tick of the file system's clock
# What says how a configuration was written, and nothing about what it describes.
_NOT_SETTINGS = {"_name_or_path", "_commit_hash", "transformers_version", "torch_dtype", "dtype", "auto_map", "architectures"}
_NOT_PROCESSING = {"image_processor_type", "feature_extractor_type", "processor_class", "_processor_class", "auto_map", "device"}
_OF_PROCESSOR = ("image_seq_length", "image_seq_len", "patch_size", "vision_feature_select_strategy", "num_additional_image_tokens")
_QUANTIZED = ("8bit", "4bit")  # dtypes that change embeddings by more than rounding
_DIRECTIVES = ("-d", "-m", *"aAbBdHIjmMpSyYxXcFT")  # of strftime
_BLOB = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelIdentity:
    """What an adapter is bound to: equal identities give equal embeddings.

    Attributes:
        name: hub id, folder, or `miniature`.
        revision: commit on the hub; `unknown` for what has none.
        weights_sha256: over every byte of the weights' files; None for weights that came from no file.
        config_sha256: over the model's configuration, without what only says how it was written; None as for the weights.
        code_sha256: over the Python files that came with the weights, where the model or its processor runs them.
        processor: what decides an image's tensors: mean, standard deviation, size, the library that resizes, and so on.
        tokenizer_sha256: over vocabulary, merges, added tokens, normaliser and pre-tokeniser.
        chat_template_sha256: over the template's source, so that one which prints the date is the same every day.
        template_tokens: the tokens that the template asks for by name, such as `bos_token`.
        preprocessing: the settings that were chosen, and under `image_kwargs` what follows from them for the family.
        dim: hidden size.
        dtype: of the weights in memory, which only changes rounding; or `8bit` or `4bit`, which changes embeddings.
        earlier: `revision` and `template` as adapters of formats 2 and 3 state them; not saved.
    """

    name: str
    revision: str
    weights_sha256: str | None
    config_sha256: str | None
    code_sha256: str | None
    processor: dict[str, Any]
    tokenizer_sha256: str
    chat_template_sha256: str
    template_tokens: dict[str, str]
    preprocessing: dict[str, Any]
    dim: int
    dtype: str
    earlier: Mapping[str, str] = field(default_factory=dict, compare=False, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """All but `earlier`, as an adapter saves it."""
        return {name: value for name, value in asdict(self).items() if name != "earlier"}

    def content(self) -> dict[str, Any]:
        """What decides embeddings: name and revision only where weights have no hash, and the dtype only where it is a quantisation."""
        left_out = set() if self.dtype in _QUANTIZED else {"dtype"}
        if self.weights_sha256 is not None:
            left_out |= {"name", "revision"}
        return {name: value for name, value in self.to_dict().items() if name not in left_out}


def identify(
    model: Any, processor: Any, name: str, revision: str, preprocessing: Mapping[str, Any], folder: Path | None = None
) -> ModelIdentity:
    """The identity of a model that is loaded.

    Args:
        model: transformers' model.
        processor: its processor.
        name: hub id, folder, or `miniature`.
        revision: commit on the hub, or `unknown`.
        preprocessing: the settings, and under `image_kwargs` what follows from them for the family.
        folder: where the model's files are; None for weights that came from none.
    """
    earlier = {} if asks_for_the_date(processor) else {"template": earlier_template(processor)}
    if folder is not None and revision == UNKNOWN:
        earlier["revision"] = earlier_revision(folder)
    return ModelIdentity(
        name=name,
        revision=revision,
        weights_sha256=None if folder is None else weights_sha256(folder),
        config_sha256=None if folder is None else config_sha256(folder),
        code_sha256=None if folder is None else code_sha256(folder, model, processor),
        processor=processor_settings(processor),
        tokenizer_sha256=tokenizer_sha256(processor.tokenizer),
        chat_template_sha256=template_sha256(processor),
        template_tokens=template_tokens(processor),
        preprocessing=dict(preprocessing),
        dim=model.get_input_embeddings().weight.shape[1],
        dtype=str(model.dtype).removeprefix("torch."),
        earlier=earlier,
    )


def check_identity(learned_on: Mapping[str, Any], at_hand: ModelIdentity) -> None:
    """Refuse a model that is not the one something was learned on.

    Args:
        learned_on: what `ModelIdentity.to_dict` gave, now or in an earlier version of slq. Only what it states is compared.
        at_hand: the model that is to be used.

    Raises:
        FingerprintMismatchError: naming what differs. The dtype may differ, and so may name and revision where the weights are known.
    """
    stated, found = flat(learned_on), flat(at_hand.to_dict())
    ignored = {"dtype"}
    if "weights_sha256" not in learned_on:  # formats 2 and 3
        stated = {key.replace("preprocessing pictures ", "preprocessing image_kwargs "): value for key, value in stated.items()}
        found |= at_hand.earlier
        if "template" not in at_hand.earlier:
            ignored.add("template")
        if learned_on["revision"] != UNKNOWN:
            ignored.add("name")
    elif learned_on["weights_sha256"] is not None:
        ignored |= {"name", "revision"}
    for key, wanted in stated.items():
        if key not in ignored and found.get(key) != wanted:
            raise FingerprintMismatchError(
                f"This adapter was learned on the model {learned_on['name']!r} with {key} {wanted!r}, but the model at hand "
                f"is {at_hand.name!r} with {key} {found.get(key)!r}: load the one it was learned on, or train a new adapter."
            )


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings inside settings as one level, `preprocessing max_pixels`, so that a difference can be named.

    Args:
        settings: by name.
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= {f"{key} {inner}": each for inner, each in flat(value).items()} if isinstance(value, Mapping) else {key: value}
    return found


# --- weights and configuration ----------------------------------------------------------------------------------------------


def weights_sha256(folder: Path) -> str | None:
    """A hash over every byte of the weights in a folder, whatever their files are called; None where there are none.

    Args:
        folder: of a model.
    """
    digests = sorted(file_sha256(path) for path in weight_files(folder))
    return hashlib.sha256("\n".join(digests).encode()).hexdigest() if digests else None


def weight_files(folder: Path) -> list[Path]:
    """The files that transformers reads a folder's weights from: safetensors before .bin, and of several the shards that an index lists.

    Args:
        folder: of a model.
    """
    for stem, suffix in (("model", "safetensors"), ("pytorch_model", "bin")):
        index = folder / f"{stem}.{suffix}.index.json"
        if (whole := folder / f"{stem}.{suffix}").is_file():
            return [whole]
        if index.is_file():
            return [folder / name for name in sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def config_sha256(folder: Path) -> str | None:
    """A hash over a folder's `config.json`, without what only says how it was written; None where there is none.

    Args:
        folder: of a model.
    """
    path = folder / "config.json"
    return _sha256_of(_settings(json.loads(path.read_text(encoding="utf-8")))) if path.is_file() else None


def code_sha256(folder: Path, *parts: Any) -> str | None:
    """A hash over a folder's Python files where a model runs them; None where all that runs is transformers' own or ours.

    Args:
        folder: with the weights.
        *parts: the model and its processor.
    """
    parts = (*parts, *(getattr(part, name, None) for part in parts for name in ("config", "tokenizer", "image_processor")))
    if not any(type(part).__module__.startswith("transformers_modules") for part in parts):
        return None
    return _sha256_of({path.relative_to(folder).as_posix(): file_sha256(path) for path in folder.rglob("*.py")})


def _settings(config: Any) -> Any:
    if isinstance(config, Mapping):
        return {name: _settings(value) for name, value in config.items() if name not in _NOT_SETTINGS}
    return config


def file_sha256(path: Path) -> str:
    """SHA-256 of a file: by its name in the hub's cache, from memory for a large one that has not changed, and else by reading it.

    Args:
        path: of a file that is there.
    """
    file = path.resolve()
    if file.parent.name == "blobs" and _BLOB.fullmatch(file.name):  # the hub names what it stores apart from git by its hash
        return file.name
    state = file.stat()
    known = [state.st_size, state.st_mtime_ns, state.st_ino]
    if state.st_size >= REMEMBERED_BYTES and (remembered := _remembered().get(str(file))) and remembered[:-1] == known:
        return remembered[-1]
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if state.st_size >= REMEMBERED_BYTES and time.time() - state.st_mtime > SETTLED_SECONDS:
        with suppress(OSError, OutputError):  # it is only hashed again next time
            digests_file().parent.mkdir(parents=True, exist_ok=True)
            write_json(digests_file(), {**_read_digests(), str(file): [*known, digest]})
    return digest


def digests_file() -> Path:
    """Where digests of large files are remembered, in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slq" / "digests.json"


def _remembered() -> dict[str, list[Any]]:
    """What `_read_digests` gives; nothing where the file cannot be read just now."""
    with suppress(OSError):
        return _read_digests()
    return {}


def _read_digests() -> dict[str, list[Any]]:
    """Size, modification time, inode and digest by path; nothing where there is no such file, or it holds something else."""
    try:
        found = json.loads(digests_file().read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return {path: entry for path, entry in found.items() if isinstance(entry, list) and len(entry) == 4} if isinstance(found, dict) else {}


# --- processor, tokenizer, chat template ------------------------------------------------------------------------------------


def processor_settings(processor: Any) -> dict[str, Any]:
    """What a processor does to images, as plain values; what is not set is left out, so that a later version may know more settings.

    Args:
        processor: transformers' own.
    """
    own = {name: getattr(processor, name, None) for name in _OF_PROCESSOR}
    own["backend"] = getattr(processor.image_processor, "backend", None)  # torchvision and Pillow resize a little differently
    settings = {name: value for name, value in processor.image_processor.to_dict().items() if name not in _NOT_PROCESSING}
    return {name: _plain(value) for name, value in sorted((own | settings).items()) if value is not None}


def tokenizer_sha256(tokenizer: Any) -> str:
    """A hash over all that decides a text's tokens; what is off counts as absent, and how a call pads or cuts does not count.

    Args:
        tokenizer: transformers' own.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        names = [getattr(tokenizer, name, None) for name in getattr(tokenizer, "vocab_files_names", ())]
        files = [file_sha256(Path(name)) for name in names if name and Path(name).is_file()]  # merges and all
        return _sha256_of([type(tokenizer).__name__, tokenizer.get_vocab(), sorted(tokenizer.get_added_vocab()), files])
    whole = json.loads(backend.to_str())
    parts = {name: whole.get(name) for name in ("added_tokens", "normalizer", "pre_tokenizer", "post_processor", "model")}
    parts["split_special_tokens"] = getattr(tokenizer, "split_special_tokens", False)
    if merges := (parts["model"] or {}).get("merges"):
        parts["model"]["merges"] = [each.split(" ", 1) if isinstance(each, str) else each for each in merges]
    return _sha256_of(_without_what_is_off(parts))


def template_source(processor: Any) -> str:
    """The chat template's source; of several by name, the one that is used when none is asked for.

    Args:
        processor: transformers' own.
    """
    template = processor.chat_template
    if isinstance(template, Mapping) and "default" in template:
        template = template["default"]
    return template if isinstance(template, str) else json.dumps(template, sort_keys=True)


def template_tokens(processor: Any) -> dict[str, str]:
    """The special tokens that the chat template prints by their names, which a tokenizer may have changed.

    Args:
        processor: transformers' own.
    """
    source = template_source(processor)
    return {name: str(token) for name, token in sorted(processor.tokenizer.special_tokens_map.items()) if name in source}


def asks_for_the_date(processor: Any) -> bool:
    """Whether a chat template prints the day on which it is rendered.

    Args:
        processor: transformers' own.
    """
    return "strftime_now" in template_source(processor)


def undated_template(processor: Any) -> dict[str, str]:
    """What `apply_chat_template` is told so that a template which prints the date prints `TEMPLATE_DAY`; nothing for one that does not.

    transformers hands no functions on to a template, so the one that tells the date is replaced by a macro in front of the template.

    Args:
        processor: transformers' own.

    Returns:
        Arguments of `apply_chat_template`.
    """
    if not asks_for_the_date(processor):
        return {}
    filled = "".join(f"|replace('%{each}', '{TEMPLATE_DAY.strftime(f'%{each}')}')" for each in _DIRECTIVES)
    # The empty expression keeps a line break that the template may begin with, which jinja drops behind a statement.
    macro = f"{{% macro strftime_now(format) %}}{{{{ format{filled} }}}}{{% endmacro %}}{{{{ '' }}}}"
    return {"chat_template": macro + template_source(processor)}


def template_sha256(processor: Any) -> str:
    """A hash over the chat template's source.

    Args:
        processor: transformers' own.
    """
    return hashlib.sha256(template_source(processor).encode()).hexdigest()


def _without_what_is_off(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_what_is_off(each) for name, each in value.items() if each is not None and each is not False}
    return [_without_what_is_off(each) for each in value] if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    """A value as JSON gives it back: sizes as dictionaries of what is set, tuples as lists."""
    if is_dataclass(value) and not isinstance(value, type):
        value = {name: each for name, each in asdict(value).items() if each is not None}
    return json.loads(json.dumps(value, default=str))


def _sha256_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()


# --- what earlier formats state ---------------------------------------------------------------------------------------------


def earlier_revision(folder: Path) -> str:
    """What formats 2 and 3 state of a folder's weights: a hash of its config and of each weight file's size and ends.

    Args:
        folder: of a model.
    """
    digest = hashlib.sha256((folder / "config.json").read_bytes())
    for weights in sorted(folder.glob("*.safetensors")):
        size = weights.stat().st_size
        digest.update(f"{weights.name} {size}".encode())
        with weights.open("rb") as file:
            digest.update(file.read(1 << 20))
            file.seek(max(0, size - (1 << 20)))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def earlier_template(processor: Any) -> str:
    """What formats 2 and 3 state of a chat template: a hash of what it renders.

    Args:
        processor: transformers' own.
    """
    probe = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "probe"}]}]
    rendered = processor.apply_chat_template(probe, add_generation_prompt=True, tokenize=False)
    return hashlib.sha256(rendered.encode()).hexdigest()[:16]
