"""Output folders, until their callers write through `slq.io.outputs`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from slq.errors import OutputError, OutputExistsError
from slq.io.files import map_os_errors

MANIFEST = ".slq.json"  # names, or patterns, of the files that a run writes into its folder; --overwrite removes no others


def _holds_something(path: Path) -> bool:
    return path.exists() and (not path.is_dir() or any(path.iterdir()))


def check_free(path: Path, overwrite: bool = False, keep: Path | None = None) -> None:
    """Refuse an output folder that holds something, before the work and not after it.

    Raises OutputExistsError unless `overwrite` is given and every file that is there stands in a manifest of this package, and OutputError
    if the folder holds `keep`, which the run is to read.
    """
    if keep is not None and keep.resolve().is_relative_to(path.resolve()):
        raise OutputError(f"{path} holds {keep}, which is read: choose another output folder.")
    if not _holds_something(path):
        return
    if not overwrite:
        raise OutputExistsError(f"{path} exists already: choose another folder, or pass --overwrite to replace it.")
    if not path.is_dir() or path.is_symlink() or not (path / MANIFEST).is_file():
        raise OutputExistsError(f"{path} holds something that slq did not make: choose another folder, or remove it yourself.")
    if foreign := _foreign(path):
        raise OutputExistsError(
            f"{path} holds {len(foreign)} file(s) that slq did not write, such as {foreign[0]}: move them away, or choose another folder."
        )


def new_folder(path: Path, overwrite: bool = False, own: Sequence[str] = ()) -> Path:
    """An empty output folder with a manifest; `overwrite` removes what an earlier run listed as its own, if nothing else is there.

    own: the files that this run will write, as paths inside the folder or patterns of such. Raises OutputExistsError as `check_free` does.
    """
    check_free(path, overwrite)
    with map_os_errors(path):
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        (path / MANIFEST).write_text(json.dumps({"format": 1, "files": list(own)}, indent=2) + "\n", encoding="utf-8")
    return path


def _foreign(path: Path) -> list[Path]:
    """Files below a folder that no manifest, its own or that of a folder inside, lists."""
    own: dict[Path, list[str]] = {}
    for manifest in path.rglob(MANIFEST):
        try:
            own[manifest.parent] = [MANIFEST, *json.loads(manifest.read_text(encoding="utf-8"))["files"]]
        except (OSError, ValueError, KeyError, TypeError):
            return [manifest]
    foreign = []
    for file in sorted(each for each in path.rglob("*") if each.is_symlink() or not each.is_dir()):
        lists = [(folder, names) for folder, names in own.items() if file.is_relative_to(folder)]
        if not any(fnmatchcase(file.relative_to(folder).as_posix(), name) for folder, names in lists for name in names):
            foreign.append(file)
    return foreign
