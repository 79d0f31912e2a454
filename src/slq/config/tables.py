"""How data files are read: which columns, from which folder, and how much of them may be bad."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slq.config.fields import option

READING = "Reading"  # panel of --help
MAX_SKIPPED = 0.5


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """What every command that reads data files takes."""

    image_column: str | None = option(
        None, help="Column of the images.", default_text="as the conventions have it", panel=READING, affects_result=False
    )
    text_column: str | None = option(
        None, help="Column of the texts.", default_text="as the conventions have it", panel=READING, affects_result=False
    )
    image_root: Path | None = option(
        None,
        help="Folder in which relative image paths start, and which they may not leave.",
        default_text="the data file's",
        panel=READING,
        affects_result=False,
    )
    allow_outside: bool = option(
        False,
        help="Let a data file name images outside of that folder, by absolute paths, `..` or links.",
        panel=READING,
        affects_result=False,
        explicit=True,
    )
    max_skipped: float = option(
        MAX_SKIPPED,
        help="Stop if more than this fraction of the items cannot be used; those are listed.",
        minimum=0,
        maximum=1,
        panel=READING,
        affects_result=False,
    )

    @property
    def reading(self) -> dict[str, Any]:
        """The arguments of `read_pairs` and `read_items`."""
        names = ("image_column", "text_column", "image_root", "allow_outside")
        return {name: getattr(self, name) for name in names}
