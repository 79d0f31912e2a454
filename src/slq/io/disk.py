"""What the disk has of files: synced, with the permissions of the user's umask, and read back by checksum."""

from __future__ import annotations

import errno
import os
import stat
import zlib
from pathlib import Path

_BLOCK = 1 << 20  # bytes


def new_file(path: Path) -> int:
    """Make an empty file.

    Args:
        path: of the file.

    Returns:
        The permissions that it has by the user's umask, which what replaces it is to have too.
    """
    path.touch()
    return stat.S_IMODE(path.stat().st_mode)


def settle(folder: Path) -> None:
    """Give all files of a folder the permissions of the user's umask, and return when the disk has everything in it.

    Args:
        folder: with all below it.
    """
    probe = folder / f".permissions-{os.getpid()}"
    mode = new_file(probe)
    probe.unlink()
    for place, _, names in os.walk(folder):
        for name in names:
            file = Path(place, name)
            if not file.is_symlink():
                file.chmod(mode)
                sync(file)
        sync(Path(place))


def sync(path: Path) -> None:
    """Return when the disk has a file's content, or a folder's list of names.

    Args:
        path: of a file or folder.
    """
    if os.name == "nt" and path.is_dir():
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_descriptor(descriptor)
    finally:
        os.close(descriptor)


def sync_descriptor(descriptor: int) -> None:
    """Return when the disk has what was written to an open file.

    Args:
        descriptor: of the file.
    """
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # what devices answer, and some network file systems for folders
            raise


def checksum(path: Path, *, from_disk: bool = False) -> str:
    """CRC-32 of a file's bytes in hexadecimal.

    Args:
        path: the file.
        from_disk: whether to have the system forget what it holds in memory of the file, which is on the disk by now.
    """
    found = 0
    with path.open("rb") as file:
        if from_disk and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := file.read(_BLOCK):
            found = zlib.crc32(block, found)
    return f"{found:08x}"
