"""Files written whole or not at all, and errors of the operating system told in one sentence."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import socket
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from slq.errors import DiskFullError, OutputError
from slq.io.disk import new_file, settle, sync, sync_descriptor

STALE_SECONDS = 24 * 3600  # a partial file that nobody has touched for so long has no writer any more, on whichever machine it was
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LONGEST_STEM = 40  # characters, so that the whole name stays below what file systems allow
_SIBLING = re.compile(
    r"(?P<stem>\..*)\.(?P<machine>[0-9a-f]{8})\.(?P<process>\d+)\.(?P<thread>\d+)\.(?P<ending>partial|replaced)", re.DOTALL
)
_passed: Counter[str] = Counter()


def crash_point(name: str) -> None:
    """Kill this process, as a power cut would, if the environment variable SLQ_CRASH_AT names this point; for tests of recovery.

    Args:
        name: a point between two steps of a write. `SLQ_CRASH_AT=name:3` kills at the third time that it is passed.
    """
    wanted, _, time_passed = os.environ.get("SLQ_CRASH_AT", "").partition(":")
    if wanted != name:
        return
    _passed[name] += 1
    if _passed[name] == int(time_passed or 1):
        os.kill(os.getpid(), signal.SIGKILL)


def sibling_path(path: Path, ending: str = "partial") -> Path:
    """A hidden name beside `path` that no other process or thread uses: `.name.<machine>.<process>.<thread>.partial`.

    Args:
        path: what is to be written.
        ending: `partial` for what is not whole yet, `replaced` for what is about to be removed.
    """
    return path.with_name(f"{_stem(path)}.{_machine()}.{os.getpid()}.{threading.get_ident()}.{ending}")


def siblings(path: Path, ending: str) -> list[Path]:
    """What `sibling_path` named beside `path`, in this process or another.

    Args:
        path: what was to be written.
        ending: `partial` or `replaced`.
    """
    if not path.parent.is_dir():
        return []
    return sorted(
        other
        for other in path.parent.iterdir()
        if (match := _SIBLING.fullmatch(other.name)) and match["stem"] == _stem(path) and match["ending"] == ending
    )


def is_sibling(name: str) -> bool:
    """Whether a file's name is one that `sibling_path` gives.

    Args:
        name: of a file, without its folder.
    """
    return _SIBLING.fullmatch(name) is not None


def is_abandoned(path: Path) -> bool:
    """Whether nobody works any more on what `sibling_path` named.

    Args:
        path: such a name. Its process is gone, or is this one and this thread, which has begun anew; or nobody has touched it for a day.
    """
    match = _SIBLING.fullmatch(path.name)
    if match is None:
        return False
    process, thread = int(match["process"]), int(match["thread"])
    if match["machine"] == _machine() and ((process, thread) == (os.getpid(), threading.get_ident()) or not _is_running(process)):
        return True
    try:
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def _stem(path: Path) -> str:
    """The beginning of a sibling's name, which tells it from those of any other path in the folder."""
    name = path.name
    if len(name) <= _LONGEST_STEM:
        return f".{name}"
    return f".{name[: _LONGEST_STEM - 9]}-{zlib.crc32(os.fsencode(name)):08x}"


def _machine() -> str:
    return f"{zlib.crc32(socket.gethostname().encode()):08x}"


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds, if it is there and can be removed.

    Args:
        path: of a file or folder.
    """
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


@contextmanager
def map_os_errors(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into one sentence about `path`.

    Args:
        path: what is written inside the `with` block.

    Raises:
        DiskFullError: if there is no room left.
        OutputError: if the operating system refuses anything else.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # safetensors says "os error 28" in an error of its own, torch a RuntimeError that only a look at the disk explains.
        if isinstance(error, RuntimeError) and not _is_full(path):
            raise
        if getattr(error, "errno", None) in _FULL or "os error 28" in str(error) or isinstance(error, RuntimeError):
            raise DiskFullError(f"No room left on the disk while writing {path}: free some space and run again.") from error
        raise OutputError(f"Cannot write {path}: {getattr(error, 'strerror', None) or error}.") from error


def _is_full(path: Path) -> bool:
    """Whether the disk that holds `path` has less than a page left."""
    return shutil.disk_usage(next(folder for folder in path.resolve().parents if folder.exists())).free < 2**14


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that readers see the old content or the new, never a part, also after a crash or a power cut.

    Args:
        path: the file. What is no regular file, such as /dev/stdout, is written directly.
        write: called with the path to write to, a name beside `path` that is then moved in place. Whatever permissions it gives, the file
            has those of the user's umask.

    Raises:
        DiskFullError: if there is no room left; the old content stays.
        OutputError: if the file cannot be written; the old content stays.
    """
    with map_os_errors(path):
        if path.exists() and not path.is_file():
            write(path)
            return
        partial = sibling_path(path)
        try:
            mode = new_file(partial)
            write(partial)
            crash_point("file.written")
            partial.chmod(mode)
            sync(partial)
            os.replace(partial, path)
            crash_point("file.replaced")
            sync(path.parent)
        finally:
            with suppress(OSError):
                partial.unlink()


def write_folder(path: Path, write: Callable[[Path], object], *, replace: bool = True) -> None:
    """Write a folder so that it is there whole or not at all, also after a crash or a power cut.

    Args:
        path: the folder.
        write: called with an empty folder beside `path` that is then moved in place.
        replace: whether a folder that is there by then is replaced; else it stays, as one that another process wrote alike.

    Raises:
        DiskFullError: if there is no room left.
        OutputError: if the folder cannot be written.
    """
    with map_os_errors(path):
        for other in filter(is_abandoned, (*siblings(path, "partial"), *siblings(path, "replaced"))):
            remove(other)
        partial, old = sibling_path(path), sibling_path(path, "replaced")
        try:
            partial.mkdir()
            write(partial)
            settle(partial)
            if path.exists() and replace:
                path.rename(old)
            if not path.exists():
                partial.rename(path)
            sync(path.parent)
        finally:
            remove(partial)
            remove(old)


def named_from(path: Path, folder: Path) -> str:
    """A path as a result in a folder names it: from there where it lies below what holds the folder, so that both move together.

    Args:
        path: what is named.
        folder: of the result.
    """
    path, folder = path.resolve(), folder.resolve()
    return Path(os.path.relpath(path, folder)).as_posix() if path.is_relative_to(folder.parent) else str(path)


def located(name: str, folder: Path) -> str:
    """What a result in a folder calls a model, as this process can find it: the whole path of what `named_from` named from there.

    Args:
        name: as the result has it, a relative path or any other name.
        folder: of the result.
    """
    return os.path.normpath(folder.resolve() / name) if name.startswith("../") else name


def write_text(path: Path, text: str) -> None:
    """Write a text file as UTF-8 with Unix line ends; see `write_atomic`.

    Args:
        path: the file.
        text: its content; half a surrogate pair, as in file names that are not UTF-8, is written as its JSON escape.
    """
    content = text.encode("utf-8", "backslashreplace")
    write_atomic(path, lambda partial: partial.write_bytes(content))


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, its words as they are read; see `write_atomic`.

    Args:
        path: the file.
        value: what `json.dumps` takes.
    """
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON lines, one for each row; see `write_atomic`.

    Args:
        path: the file.
        rows: one object a line.
    """
    write_text(path, "".join(map(_line, rows)))


def load_json(path: Path, most_bytes: int = 2**28) -> Any:
    """Read a JSON file that slq or somebody else wrote, whatever stands in it.

    Args:
        path: the file.
        most_bytes: that it may have.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is no JSON, is nested too deeply, or is larger.
    """
    if (size := path.stat().st_size) > most_bytes:
        raise ValueError(f"it has {size:,} bytes, more than {most_bytes:,}")
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def append_jsonl(path: Path, *rows: Mapping[str, Any]) -> None:
    """Add JSON lines to the end of a file, which is made if it is not there.

    They are on the disk afterwards. A last line that a crash cut off is ended first, so that it alone is lost. Several processes may
    append at once: a lock keeps one from taking another's line, half in the file, for one that was cut off.

    Args:
        path: the file.
        rows: one object a line.

    Raises:
        DiskFullError: if there is no room left.
        OutputError: if the file cannot be written.
    """
    content = "".join(map(_line, rows)).encode("utf-8", "backslashreplace")
    is_new = not path.exists()
    with map_os_errors(path), path.open("ab+", buffering=0) as file, _locked(file):
        if file.seek(0, os.SEEK_END) and _last_byte(file) != b"\n":
            content = b"\n" + content
        while content:  # a disk that fills up takes a part before it refuses the rest
            content = content[file.write(content) :]
        sync_descriptor(file.fileno())
        if is_new:
            sync(path.parent)


def read_jsonl(path: Path) -> tuple[list[Any], int]:
    """Read what `append_jsonl` wrote.

    Args:
        path: the file.

    Returns:
        The rows, and how many lines are none: those that a crash cut off.
    """
    rows, torn = [], 0
    for line in path.read_bytes().split(b"\n"):
        try:
            rows += [json.loads(line)] if line.strip(b"\0 \r") else []
        except (ValueError, RecursionError):
            torn += 1
    return rows, torn


@contextmanager
def _locked(file: Any) -> Iterator[None]:
    """Hold the file against other processes that append; some network file systems know no locks, and there nobody waits."""
    import fcntl

    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    yield  # closing the file ends the lock, as does the end of its process


def _last_byte(file: Any) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _line(row: Mapping[str, Any]) -> str:
    return json.dumps(row, ensure_ascii=False) + "\n"
