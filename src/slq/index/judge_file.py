"""How hits of a collection are judged: the question, and from which score on a hit is kept, in the collection's judge.json.

Written by `slq collection calibrate`, and bound to the model that the rows are of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from slq.errors import DataError, InputError, OutputExistsError, SlqError, StoreCorruptError, shorten
from slq.index.logfile import checksum_of
from slq.io.files import load_json, map_os_errors, write_json

KIND, FORMAT = "slq judge", 1
TYPED, REWRITTEN = "typed", "rewritten"  # kinds of queries
MOST_BYTES = 2**20


@dataclass(frozen=True)
class JudgeSettings:
    """What judge.json holds.

    Attributes:
        fingerprint: of the encoder that all of it was measured with.
        rewritten: whether it is about queries that the model rewrites, and not as they are typed.
        question: what the model is asked about a hit.
        can_judge: whether its yes tells what matches, by an interval above an AUC of 0.7.
        helps: whether judged scores cover more queries than the similarity alone, beyond chance.
        weight: of the similarity in a judged score.
        threshold: the judged score from which a hit is kept; None if none reaches the wanted precision.
        similarity_threshold: the same of the similarity alone.
        measured: what both give, for whoever reads the file.
    """

    fingerprint: str
    rewritten: bool
    question: str
    can_judge: bool
    helps: bool
    weight: float
    threshold: float | None
    similarity_threshold: float | None
    measured: Mapping[str, Any]

    @property
    def judges(self) -> bool:
        """Whether hits are cut by judged scores, and not by the similarity alone."""
        return self.can_judge and self.helps


def read_judge(file: Path, fingerprint: str, rewritten: bool = False) -> JudgeSettings:
    """Read judge.json.

    Args:
        file: its path.
        fingerprint: of the encoder that the rows are of.
        rewritten: whether the settings for queries that the model rewrites are wanted first; else, or without them, those for queries
            as they are typed.

    Raises:
        InputError: if it is not there, or was measured with another encoder or on rewritten queries alone.
        StoreCorruptError: if it is damaged.
    """
    again = f"slq collection calibrate {file.parent} PAIRS"
    settings = _read(file, again)
    found = settings.get(REWRITTEN if rewritten else TYPED) or settings.get(TYPED)
    if found is None:
        raise InputError(f"{file} was measured on rewritten queries alone: search with --rewrite, or {again}.")
    if found.fingerprint != fingerprint:
        raise InputError(f"{file} was measured with another model ({found.fingerprint}, not {fingerprint}): {again}.")
    return found


def write_judge(file: Path, settings: JudgeSettings) -> None:
    """Write judge.json, whole or not at all, in place of an earlier one of ours; settings for the other kind of query stay.

    Args:
        file: its path.
        settings: what it holds.

    Raises:
        OutputExistsError: if a file of that name is there that slq did not write.
        OutputError: if it cannot be written.
    """
    with _alone(file.parent):  # two may measure both kinds at once
        check_own(file)
        others: dict[str, JudgeSettings] = {}
        with suppress(SlqError):
            others = {name: each for name, each in _read(file, "").items() if each.fingerprint == settings.fingerprint}
        kept = {**others, REWRITTEN if settings.rewritten else TYPED: settings}
        content = {"kind": KIND, "format": FORMAT, "settings": {name: asdict(each) for name, each in kept.items()}}
        write_json(file, {**content, "checksum": checksum_of(content)})


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """While nobody else who asks so writes to a file in this folder; whoever does waits."""
    import fcntl

    with map_os_errors(folder):
        lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)


def check_own(file: Path) -> None:
    """Refuse a file that is there and that slq did not write.

    Args:
        file: its path.

    Raises:
        OutputExistsError: if it is.
    """
    if os.path.lexists(file) and not is_judge_file(file):
        raise OutputExistsError(f"{file} is there, and slq did not write it: move it away.")


def is_judge_file(file: Path) -> bool:
    """Whether slq wrote a file, damaged or not in the values that it holds.

    Args:
        file: its path.
    """
    try:
        return not file.is_symlink() and load_json(file, MOST_BYTES).get("kind") == KIND
    except (OSError, ValueError, AttributeError):
        return False


def _read(file: Path, again: str) -> dict[str, JudgeSettings]:
    try:
        content = load_json(file, MOST_BYTES)
        if content.pop("checksum") != checksum_of(content) or content.pop("kind") != KIND or content.pop("format") != FORMAT:
            raise ValueError("its checksum, kind or format is wrong")
        return {name: JudgeSettings(**each) for name, each in content["settings"].items()}
    except FileNotFoundError:
        raise InputError(f"Nobody has measured yet what the model's yes is worth in {shorten(file.parent)}: {again}.") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror}): check its permissions.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreCorruptError(f"{file} is damaged ({shorten(error)}): remove it, then {again}.") from error
