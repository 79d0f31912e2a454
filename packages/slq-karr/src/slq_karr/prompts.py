"""What the model is asked: text files that one can change, each with the places that are filled in.

A folder of one's own may hold any of them; the others are the package's. `$caption` and the like mark the places, `$$` is a dollar sign.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from string import Template

from slq.errors import InputError
from slq_karr.categories import CATEGORIES

PLACES: dict[str, tuple[str, ...]] = {
    "caption": (),
    "categories": (),
    "targets": ("caption", "categories"),
    "rewrite": ("caption", "target", "names", "category", "description"),
    "true_of_image": ("caption", "query", "target"),
    "answerable": ("query", "category", "description"),
}


@dataclass(frozen=True)
class Prompts:
    """The texts by name."""

    texts: Mapping[str, str]

    @cached_property
    def hashes(self) -> dict[str, str]:
        """sha256 of each text, its first 16 digits."""
        return {name: hashlib.sha256(text.encode()).hexdigest()[:16] for name, text in self.texts.items()}

    @cached_property
    def descriptions(self) -> dict[str, str]:
        """What each category means, from `categories.txt`."""
        lines = [line.partition(":") for line in self.texts["categories"].splitlines() if line.strip()]
        return {name.strip(): text.strip() for name, _, text in lines}

    def fill(self, name: str, **values: str) -> str:
        """The text with its places filled in; every value is put on one line."""
        return Template(self.texts[name]).substitute({place: " ".join(value.split()) for place, value in values.items()})

    def targets(self, caption: str) -> str:
        """The question for the things of an image; the categories keep their lines."""
        listed = self.texts["categories"].strip()
        return Template(self.texts["targets"]).substitute(caption=" ".join(caption.split()), categories=listed)


def load_prompts(folder: Path | None = None) -> Prompts:
    """The package's prompts, those of a folder in their place.

    Args:
        folder: holds any of the files `<name>.txt`; None for the package's alone.

    Returns:
        The texts by name.

    Raises:
        InputError: if the folder or a file cannot be read, or a text lacks a place that is filled in.
    """
    package = files("slq_karr").joinpath("prompts")
    texts = {name: package.joinpath(f"{name}.txt").read_text(encoding="utf-8") for name in PLACES}
    if folder is not None:
        if not folder.is_dir():
            raise InputError(f"There is no folder of prompts {folder}: give one that holds any of {', '.join(PLACES)} as .txt.")
        for file in sorted(folder.glob("*.txt")):
            if file.stem not in PLACES:
                raise InputError(f"{file} is not a prompt: there are {', '.join(f'{name}.txt' for name in PLACES)}.")
            texts[file.stem] = _read(file)
    prompts = Prompts(texts)
    if set(prompts.descriptions) != set(CATEGORIES):
        raise InputError(f"categories.txt must hold a line `category: what it means` for each of {', '.join(CATEGORIES)}, and no others.")
    return prompts


def _read(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prompt {file} cannot be read ({error}): save it as UTF-8.") from None
    template = Template(text)
    places = PLACES[file.stem]
    if not text.strip() or not template.is_valid() or set(template.get_identifiers()) != set(places):
        wanted = ", ".join(f"${place}" for place in places) or "no place"
        raise InputError(f"The prompt {file} must be a text that fills in {wanted}; write $$ for a dollar sign.")
    return text
