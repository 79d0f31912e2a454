"""Checkpoints of a run: written whole, the newest kept, and refused where they belong to another run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from slq.errors import InputError
from slq.io.files import map_os_errors

RUN_FILE = "run.json"


def describe_run(out: Path, description: dict[str, Any], resume: bool) -> None:
    """Write down what decides this run's weights, or check that a resumed run is the same.

    Raises InputError naming the first setting that differs.
    """
    file = out / RUN_FILE
    if resume and file.exists():
        before = json.loads(file.read_text(encoding="utf-8"))
        for name, value in description.items():
            if before.get(name, value) != value:  # a setting that the run did not know yet had its default
                raise InputError(
                    f"Cannot resume {out}: {name} was {before.get(name)!r} and is now {value!r}. Resume with the same settings, "
                    "or train into another folder."
                )
        return
    with map_os_errors(file):
        file.write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")


def newest(out: Path) -> Path | None:
    """The newest complete checkpoint, if there is one."""
    found = sorted(path for path in out.glob("checkpoint-*") if path.suffix != ".partial")
    return found[-1] if found else None


def step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix("checkpoint-"))


def save(accelerator: Accelerator, out: Path, step: int) -> None:
    """Save weights, optimiser, schedule and random states as `checkpoint-<step>`; older ones go once this one is whole.

    Every process calls it, since each has random states of its own; the first one does the rest.
    """
    target = out / f"checkpoint-{step:07d}"
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
                shutil.rmtree(target, ignore_errors=True)
                partial.rename(target)
    finally:
        if main:
            shutil.rmtree(partial, ignore_errors=True)  # what is left of one that failed only fills the disk
    if main:
        for older in out.glob("checkpoint-*"):
            if older != target:
                shutil.rmtree(older, ignore_errors=True)
