"""Output folders: each lists the files that a command wrote there, and `--overwrite` removes those and nothing else.

The list is `.slq.json`: for every file its size and sha256. A folder that holds anything else, or a file that was changed since, is refused
before anything is touched. New output is written beside the folder and moved in place when it is whole, so that a crash leaves the old one.

A long run (`writes` is given) works in the folder itself, so that it can be watched and resumed. What it replaces is moved aside, and goes
only when the run has something to be resumed from; if it ends before that, the next command that looks at the folder puts the old one back.
Until the run is finished `.slq.json` holds the patterns of the names that it writes.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from slq.errors import OutputError, OutputExistsError
from slq.io.disk import settle, sync
from slq.io.files import crash_point, is_abandoned, is_sibling, map_os_errors, remove, sibling_path, siblings, write_json

MANIFEST = ".slq.json"
FORMAT = 1
_NOBODYS = (".DS_Store", "Thumbs.db")  # what file managers leave in every folder that is looked at


class OutputFolder:
    """A folder that one command writes. As a context manager it is finished at the end, and what was written is removed on an error.

    Attributes:
        target: the folder that the user named.
        path: where to write: the same, or until it is finished a folder beside it.
    """

    def __init__(self, target: Path, path: Path, command: str, writes: Sequence[str], replaces: Path | None = None):
        self.target, self.path, self.command, self.writes, self.replaces = target, path, command, tuple(writes), replaces

    @staticmethod
    def check(
        path: Path, command: str, *, overwrite: bool = False, keep: Iterable[str | os.PathLike[str] | None] = (), resume: bool = False
    ) -> None:
        """Refuse a folder that cannot be written, before the work and not after it.

        Args:
            path: the output folder.
            command: which command is to write it.
            overwrite: whether what an earlier run of the command wrote there is to be replaced.
            keep: what the command reads, as far as it lies on this machine; None is nothing.
            resume: whether a run of the command is to be continued there.

        Raises:
            OutputExistsError: if the folder holds something and `overwrite` is not given, anything that slq did not write there, or what
                another command wrote.
            OutputError: if the folder holds what is read, or cannot be replaced.
        """
        check_reads(path, keep)
        with map_os_errors(path):
            _restore(path.resolve())
            if not _holds_something(path):
                return
            if resume:
                _check_resumable(path, command)
                return
            if not overwrite:
                raise OutputExistsError(f"{path} exists already: choose another folder, or pass --overwrite to replace it.")
            if reason := _reason_to_keep(path) or _written_by_another(path, command):
                raise OutputExistsError(f"{path} {reason}: move what you want to keep, remove the rest, or choose another folder.")
            if os.path.ismount(path):
                raise OutputError(f"{path} is where a disk is mounted, and cannot be replaced: name a folder in it.")

    @classmethod
    def create(cls, path: Path, command: str, *, overwrite: bool = False, writes: Sequence[str] = ()) -> Self:
        """Begin an output folder.

        Args:
            path: the output folder.
            command: which command writes it, for the list.
            overwrite: whether what an earlier command wrote there is to be replaced.
            writes: patterns of the names that a long run writes (`checkpoint-*`); empty for output that is only useful when whole.

        Raises:
            OutputExistsError: see `check`.
            OutputError: if the folder cannot be made.
        """
        cls.check(path, command, overwrite=overwrite)
        target = path.resolve()
        with map_os_errors(path):
            if not target.parent.exists():
                target.parent.mkdir(parents=True)
            for other in filter(is_abandoned, siblings(target, "partial")):
                remove(other)
            replaces = None
            if writes and _holds_something(target):
                replaces = sibling_path(target, "replaced")
                target.rename(replaces)
                crash_point("folder.moved")
            in_place = bool(writes) or os.path.ismount(target)
            folder = cls(target, target if in_place else sibling_path(target), command, writes or ("*",), replaces)
            folder.path.mkdir(exist_ok=in_place)
        folder._write_manifest(complete=False, files={})
        return folder

    @classmethod
    def resume(cls, path: Path, command: str, writes: Sequence[str]) -> Self:
        """Continue in the folder of a run that was stopped.

        Args:
            path: the output folder of that run.
            command: which command writes it.
            writes: patterns of the names that the run writes.

        Raises:
            OutputExistsError: if no run of slq made the folder.
        """
        manifest = _check_resumable(path, command)
        folder = cls(path.resolve(), path.resolve(), command, writes)
        for _, file in _walk(folder.path):
            if is_abandoned(file):
                remove(file)
        folder._write_manifest(complete=False, files=manifest["files"])
        return folder

    def keep(self) -> None:
        """Let go of the folder that a long run replaces: the new one can be resumed. Nothing happens the second time."""
        if self.replaces is not None:
            old, self.replaces = self.replaces, None
            self._write_manifest(complete=False, files={})
            crash_point("folder.kept")
            _remove_listed(old, self.target)

    def finish(self) -> None:
        """List what was written and move it in place.

        Raises:
            OutputError: if the list cannot be written.
        """
        with map_os_errors(self.target):
            files = {name: _describe(file) for name, file in _walk(self.path) if name != MANIFEST and _fits(name, self.writes)}
        if self.path == self.target:
            self.keep()
            self._write_manifest(complete=True, files=files)
        else:
            self._write_manifest(complete=True, files=files)
            with map_os_errors(self.target):
                settle(self.path)
            self._move_in_place()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.finish()
        elif self.path != self.target:
            remove(self.path)
        elif self.replaces is not None:
            _put_back(self.replaces, self.target)

    def _move_in_place(self) -> None:
        target, written = self.target, self.path
        crash_point("folder.written")
        with map_os_errors(target):
            old = None
            if _holds_something(target):
                if reason := _reason_to_keep(target):
                    spare = target.with_name(f"{target.name}.new-{os.getpid()}")
                    written.rename(spare)
                    raise OutputExistsError(f"{target} {reason}, since this run began: the new output is in {spare}.")
                old = sibling_path(target, "replaced")
                target.rename(old)
                crash_point("folder.moved")
            written.rename(target)
            crash_point("folder.published")
            sync(target.parent)
        self.path = target
        if old is not None:
            _remove_listed(old, target)

    def _write_manifest(self, complete: bool, files: dict[str, Any]) -> None:
        content: dict[str, Any] = {"format": FORMAT, "command": self.command, "complete": complete, "files": dict(sorted(files.items()))}
        if not complete:
            content["writes"] = list(self.writes)
        if self.replaces is not None:
            content["replaces"] = self.replaces.name
        write_json(self.path / MANIFEST, content)


def check_reads(output: Path, reads: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse an output that is, or holds, what the same command reads.

    Args:
        output: a file or a folder.
        reads: paths, or names of models, which need not be paths; None is nothing.

    Raises:
        OutputError: naming what is read.
    """
    for read in reads:
        if read is not None and os.path.exists(read) and Path(read).resolve().is_relative_to(output.resolve()):
            how = "is" if os.path.samefile(read, output) else "holds"
            raise OutputError(f"{output} {how} {read}, which is read: choose another output.")


def check_output_file(file: Path, reads: Iterable[str | os.PathLike[str] | None] = (), *, overwrite: bool = False) -> None:
    """Refuse a file that cannot be written, before the work and not after it. What is no regular file, such as /dev/stdout, is.

    Args:
        file: the output file.
        reads: what the command reads; see `check_reads`.
        overwrite: whether a file that is there is to be replaced.

    Raises:
        OutputExistsError: if there is a file, and `overwrite` is not given.
        OutputError: if it is a folder, or what is read.
    """
    reads = list(reads)
    check_reads(file, reads)
    for folder in (read for read in reads if read is not None and os.path.isdir(read)):
        if file.is_file() and file.resolve().is_relative_to(Path(folder).resolve()):
            raise OutputError(f"{file} lies in {folder}, which is read: choose another output.")
    if file.is_dir():
        raise OutputError(f"{file} is a folder, and a file is to be written: name a file in it.")
    if file.is_file() and not overwrite:
        raise OutputExistsError(f"{file} exists already: choose another file, or pass --overwrite to replace it.")
    if not file.parent.is_dir():
        raise OutputError(f"{file} cannot be written: there is no folder {file.parent}; make it first.")


def _holds_something(path: Path) -> bool:
    return any(path.iterdir()) if path.is_dir() else os.path.lexists(path)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    """Whether a name below the folder, or a folder on its way, fits a pattern."""
    parts = name.split("/")
    return any(fnmatchcase("/".join(parts[: end + 1]), pattern) for pattern in patterns for end in range(len(parts)))


def _walk(folder: Path) -> list[tuple[str, Path]]:
    """Every file below a folder, links as what they are, with its name in the folder."""
    found = []
    for place, folders, files in os.walk(folder, onerror=_raise):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        found += [Path(place, name) for name in (*files, *links)]
    return sorted((file.relative_to(folder).as_posix(), file) for file in found)


def _raise(error: OSError) -> None:
    raise error


def _describe(file: Path) -> dict[str, Any]:
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return {"size": file.stat().st_size, "sha256": digest}


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    """The list of what slq wrote in a folder; None without one."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if manifest["format"] == FORMAT and isinstance(manifest["files"], dict) and isinstance(manifest["command"], str):
            return manifest
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


def _no_manifest(folder: Path) -> str:
    """Why a folder has no list that can be used."""
    if not folder.is_dir():
        return "is not a folder"
    if not (folder / MANIFEST).exists():
        return f"has no {MANIFEST}, in which slq lists what it wrote (earlier versions did not)"
    return f"has a {MANIFEST} that this version of slq cannot read"


def _check_resumable(path: Path, command: str) -> dict[str, Any]:
    """The list of a folder that a run of this command wrote."""
    manifest = _read_manifest(path)
    if manifest is None or manifest["command"] != command:
        reason = _no_manifest(path) if manifest is None else f"was written by slq {manifest['command']}"
        raise OutputExistsError(f"{path} {reason}: no run of slq {command} can be resumed there; choose another folder.")
    return manifest


def _reason_to_keep(folder: Path) -> str:
    """Why a folder may not be replaced, as the end of a sentence about it; empty if all that it holds was written by slq."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return _no_manifest(folder)
    foreign, changed = _sort_out(folder, manifest)
    for names, what in ((foreign, "slq did not write there"), (changed, "has changed since slq wrote it")):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            return f"holds {names[0]}{more}, which {what}"
    return ""


def _written_by_another(folder: Path, command: str) -> str:
    """That a folder was written by another command, as the end of a sentence about it; empty if it was not."""
    manifest = _read_manifest(folder)
    return f"was written by slq {manifest['command']}" if manifest and manifest["command"] != command else ""


def _sort_out(folder: Path, manifest: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The names in a folder that its list lacks, and those of files that are not as listed."""
    files, writes = manifest["files"], manifest.get("writes", ())
    foreign, changed = [], []
    for name, file in _walk(folder):
        if name == MANIFEST or file.name in _NOBODYS or any(map(is_sibling, name.split("/"))):
            continue
        if not manifest.get("complete") and _fits(name, writes) and not file.is_symlink():
            continue  # a run that was stopped may have written it at any time
        if name not in files or file.is_symlink():
            foreign.append(name)
        elif not _is_as_listed(file, files[name]):
            changed.append(name)
    return foreign, changed


def _is_as_listed(file: Path, listed: dict[str, Any]) -> bool:
    return file.stat().st_size == listed["size"] and _describe(file) == listed


def _remove_listed(folder: Path, target: Path) -> None:
    """Remove a folder that was replaced, but for what its list lacks: that is kept under a name that can be seen."""
    manifest = _read_manifest(folder) or {"files": {}}
    kept = {name for names in _sort_out(folder, manifest) for name in names}
    if not kept:
        remove(folder)
        return
    for name, file in _walk(folder):
        if name not in kept:
            remove(file)
    for place, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):
            os.rmdir(place)  # only what is empty by now
    spare = target.with_name(f"{target.name}.kept-{os.getpid()}")
    folder.rename(spare)
    warnings.warn(f"{target} was changed while it was replaced: what slq did not write is kept in {spare}.", stacklevel=4)


def _restore(target: Path) -> None:
    """Put back, or away, what a crash left of a replacement."""
    for old in filter(is_abandoned, siblings(target, "replaced")):
        if (_read_manifest(target) or {}).get("replaces") == old.name or not _holds_something(target):
            _put_back(old, target)
        else:
            _remove_listed(old, target)


def _put_back(old: Path, target: Path) -> None:
    """An old folder in its place again, in that of a run that ended before it had anything to be resumed from."""
    if target.exists():
        _remove_listed(target, target)
    old.rename(target)
