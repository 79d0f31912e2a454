"""Checkpoints of a run: written whole, the newest kept, and refused where they belong to another run.

Beside what accelerate saves, `files.json` lists its files with their checksums: a checkpoint is whole if all of them are as listed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from slq import console
from slq.config import TrainConfig
from slq.config.fields import result_settings
from slq.encoders.base import Encoder
from slq.errors import OutputError, ResumeMismatchError
from slq.io.disk import checksum, settle, sync
from slq.io.files import crash_point, map_os_errors, write_json
from slq.models import FrozenModel, attention
from slq.models.identity import flat
from slq.training.batches import Batches
from slq.training.facts import Facts
from slq.types import Pair

RUN_FILE = "run.json"
FILES_FILE = "files.json"
PATTERN = "checkpoint-" + 7 * "[0-9]"
_NAME = re.compile(PATTERN)
_LENGTH = ("epochs", "max_steps")  # may grow: a run can be trained for longer
ORDER_FILE = "order.json"  # of an epoch's pairs, where it follows from weights that later steps have changed
_DATA = {"pairs_sha256": "training pairs", "validation_sha256": "validation pairs", "facts_sha256": "facts"}


def run_record(
    config: TrainConfig,
    model: FrozenModel,
    pairs: Sequence[Pair],
    validation_pairs: Sequence[Pair],
    start: Encoder | None = None,
    facts: Facts | None = None,
) -> dict[str, Any]:
    """What decides the weights of a run, ready for JSON: options, base model, and the content of the pairs.

    Args:
        config: the run's options, with its learning rate.
        model: the base model.
        pairs: training pairs, in the order in which batches are drawn from them.
        validation_pairs: what the run is validated on.
        start: what it begins with; None begins anew.
        facts: what is learned beside the pairs.
    """
    hashes = [_pair_sha256(pair) for pair in pairs]
    return {
        **result_settings(config),
        "base_model": model.identity.to_dict(),
        "start": None if start is None else start.fingerprint,
        "attn_implementation": attention.implementation(model.model),
        "pairs": len(pairs),
        "pairs_sha256": _sha256(sorted(hashes)),
        "pairs_order_sha256": _sha256(hashes),
        "validation_sha256": _sha256(map(_pair_sha256, validation_pairs)),
        "facts_sha256": None if facts is None else facts.sha256,
    }


def check_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Refuse to resume a run that was another one.

    Args:
        folder: of the run that was stopped; without a record there is nothing to compare.
        record: what `run_record` gives of the run that is to go on.

    Raises:
        ResumeMismatchError: naming what differs: an option, the base model, the data, or its order.
    """
    file = folder / RUN_FILE
    if not file.exists():
        return
    before = flat(json.loads(file.read_text(encoding="utf-8")))
    plain = flat(json.loads(json.dumps(record)))
    for name, value in plain.items():
        if name in _LENGTH or before.get(name, None if name == "facts_sha256" else value) == value:
            continue  # an option that the run did not know yet had its default, and there were no facts
        if name in _DATA:
            what = f"the {_DATA[name]} are others than before"
        elif name == "start":
            what = f"it begins with {_begun(value)} and began with {_begun(before[name])}"
        elif name == "pairs_order_sha256":
            what = "the training pairs are in another order than before"
        else:
            what = f"{name} was {before[name]!r} and is now {value!r}"
        raise ResumeMismatchError(f"Cannot resume {folder}: {what}. Resume with the same data and options, or train into another folder.")


def newest(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run, if there is one.

    Args:
        folder: of a run.
    """
    return next((path for path in reversed(_checkpoints(folder)) if is_whole(path)), None)


def steps_done(folder: Path) -> int:
    """How many steps the newest whole checkpoint of a run has done; 0 without one.

    Args:
        folder: of a run.
    """
    checkpoint = newest(folder)
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))


def is_whole(checkpoint: Path) -> bool:
    """Whether the disk has every file of a checkpoint as it was written.

    Args:
        checkpoint: its folder.
    """
    try:
        listed = json.loads((checkpoint / FILES_FILE).read_bytes())
        return all(checksum(checkpoint / name, from_disk=True) == found for name, found in listed.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return False


def _checkpoints(folder: Path) -> list[Path]:
    """Those that `save` wrote, in order; a copy that somebody made under another name, such as `checkpoint-best`, is none of them."""
    return sorted(path for path in folder.glob("checkpoint-*") if _NAME.fullmatch(path.name))


def load_newest(accelerator: Accelerator, folder: Path, batches: Batches) -> int:
    """Load the newest whole checkpoint of a run into what the accelerator has prepared, and the order of its epoch into the batches.

    Args:
        accelerator: which has prepared what is loaded.
        folder: of the run.
        batches: of the run.

    Returns:
        The steps it has done, 0 without one.
    """
    checkpoint = newest(folder)
    passed_over = [path.name for path in _checkpoints(folder) if checkpoint is None or path.name > checkpoint.name]
    if passed_over and accelerator.is_main_process:
        instead = f"{checkpoint.name} is taken" if checkpoint else "the run begins anew"
        console.warn(f"{folder}: {', '.join(passed_over)} is not whole, and {instead}.")
    if checkpoint is None:
        return 0
    accelerator.load_state(str(checkpoint))
    if (order := checkpoint / ORDER_FILE).exists():
        batches.arranged = {int(epoch): pairs for epoch, pairs in json.loads(order.read_text(encoding="utf-8")).items()}
    return int(checkpoint.name.removeprefix("checkpoint-"))


def save(accelerator: Accelerator, folder: Path, step: int, batches: Batches) -> None:
    """Save weights, optimiser, schedule, random states and the epoch's order as `checkpoint-<step>`; older ones go once it was read back.

    Every process calls it, since each has random states of its own; the first one does the rest.

    Args:
        accelerator: which has prepared what is saved.
        folder: of the run.
        step: the number of steps done.
        batches: whose order is saved, where it is not the random one.

    Raises:
        DiskFullError: if there is no room for it.
        OutputError: if it cannot be written.
    """
    target = folder / f"checkpoint-{step:07d}"
    partial = target.with_suffix(".partial")
    main = accelerator.is_main_process
    try:
        with map_os_errors(target):
            if main:
                shutil.rmtree(partial, ignore_errors=True)
            accelerator.wait_for_everyone()
            accelerator.save_state(str(partial))
            accelerator.wait_for_everyone()
            if main:
                if batches.arranged:
                    write_json(partial / ORDER_FILE, {str(epoch): pairs for epoch, pairs in batches.arranged.items()})
                _publish(partial, target)
    finally:
        if main:
            shutil.rmtree(partial, ignore_errors=True)  # what is left of one that failed only fills the disk
    if main:
        for older in _checkpoints(folder):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)


def _publish(partial: Path, target: Path) -> None:
    """See what was saved onto the disk, give it its name, and read it back."""
    files = sorted(path for path in partial.rglob("*") if path.is_file())
    write_json(partial / FILES_FILE, {path.relative_to(partial).as_posix(): checksum(path) for path in files})
    settle(partial)
    crash_point("checkpoint.written")
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
    sync(target.parent)
    crash_point("checkpoint.published")
    if not is_whole(target):
        raise OutputError(f"The disk gives {target} back otherwise than it was written: check the disk; the checkpoint before it is kept.")


def _begun(fingerprint: str | None) -> str:
    return "nothing learned" if fingerprint is None else f"an adapter of the fingerprint {fingerprint}"


def _pair_sha256(pair: Pair) -> str:
    parts = [[item.content_hash for item in items] for items in ((pair.query,), pair.positives, pair.negatives)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _sha256(hashes: Any) -> str:
    return hashlib.sha256("".join(hashes).encode()).hexdigest()
