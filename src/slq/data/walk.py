"""Image files below a folder, one folder at a time, and what was passed over, counted.

Names are bytes, as the file system has them: they need not be UTF-8.
"""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from slq.data.images import IMAGE_SUFFIXES
from slq.errors import DataError, shorten

HIDDEN, SYSTEM, LINKS, NO_FILES = "hidden", "thumbnails and bins", "links", "devices and pipes"
_SYSTEM_NAMES = frozenset(  # of storage devices, operating systems and file managers, in lower case
    b"@eadir|#recycle|#snapshot|.@__thumb|@recycle|@recently-snapshot|$recycle.bin|recycler|system volume information|lost+found|.trash"
    b"|.trashes|.thumbnails|.spotlight-v100|.fseventsd|thumbs.db|ehthumbs.db|desktop.ini|.ds_store|.appledouble|__macosx".split(b"|")
)
_SUFFIX = re.compile(rb"\.[a-z0-9]{1,10}")
_LARGEST_INODE = 2**63 - 1  # that a database holds; network file systems have larger ones


@dataclass(frozen=True)
class Stamp:
    """What tells that a file has changed, without reading it.

    Attributes:
        size: bytes.
        mtime_ns: time of change.
        inode: number of the file in its file system.
    """

    size: int
    mtime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """The stamp of a file.

        Args:
            status: what `os.stat` says.
        """
        return cls(status.st_size, status.st_mtime_ns, status.st_ino & _LARGEST_INODE)


@dataclass(frozen=True)
class FoundFile:
    """An image file, told by its suffix.

    Attributes:
        name: its path in the folder, its parts joined by `/`.
        stamp: None where the system does not tell, as of a link that leads nowhere.
    """

    name: bytes
    stamp: Stamp | None


class Walk:
    """The image files below a folder. While it is iterated over it holds one name for each folder that is still to be looked at.

    Hidden files and folders are passed over, like thumbnails and bins. A link to a folder is followed only if asked for, and then no folder
    is looked at twice, whatever leads to it; a link to a file only if it leads to one in the folder, unless links are followed.

    Attributes:
        skipped: how many files and folders were passed over, by what they are: `hidden`, `links`, a suffix such as `.mov`, ...
        unreadable: folders whose list the system refuses, by their paths in the folder, with the reason; what is in them is not known.
        mounts: folders in it at which another disk begins.

    Example:
        >>> import tempfile
        >>> folder = os.fsencode(tempfile.mkdtemp())
        >>> for name in (b"cat.jpg", b"notes.txt", b".hidden.jpg"):
        ...     open(os.path.join(folder, name), "w").close()
        >>> walk = Walk(folder)
        >>> [found.name for found in walk], dict(sorted(walk.skipped.items()))
        ([b'cat.jpg'], {'.txt': 1, 'hidden': 1})
    """

    def __init__(self, folder: bytes, *, follow_links: bool = False, leave_out: bytes | None = None):
        """Look at nothing yet.

        Args:
            folder: where to look.
            follow_links: whether links to folders, and to files elsewhere, are followed.
            leave_out: a folder below it that is passed over in silence.
        """
        self.folder, self.follow_links, self.leave_out = folder, follow_links, leave_out
        self.skipped: Counter[str] = Counter()
        self.unreadable: dict[bytes, str] = {}
        self.mounts: set[bytes] = set()
        self._within = os.path.join(os.path.realpath(folder), b"")
        self._visited: set[tuple[int, int]] = set()
        self._folders: list[bytes] = []
        self._links: list[bytes] = []  # a heap; they are followed last and in order, so that a folder always has the same path

    def __iter__(self) -> Iterator[FoundFile]:
        """Go through the folder once.

        Raises:
            DataError: if it is missing, no folder, or cannot be listed.
        """
        self._folders = [b""]
        while self._folders or self._links:
            is_link = not self._folders
            name = heappop(self._links) if is_link else self._folders.pop()
            if not self.follow_links or self._is_new(name):
                yield from self._files_of(name)
            elif is_link:
                self.skipped[LINKS] += 1

    def _is_new(self, name: bytes) -> bool:
        """Whether a folder has not been looked at under another name."""
        try:
            status = os.stat(os.path.join(self.folder, name))
        except OSError:
            return True  # what is wrong with it is told when it is listed
        identity = (status.st_dev, status.st_ino)
        is_new = identity not in self._visited
        self._visited.add(identity)
        return is_new

    def _files_of(self, folder: bytes) -> Iterator[FoundFile]:
        try:
            with os.scandir(os.path.join(self.folder, folder)) as entries:
                for entry in entries:
                    found = self._look_at(entry, folder + b"/" + entry.name if folder else entry.name)
                    if found is not None:
                        yield found
        except OSError as error:
            if not folder:
                shown = shorten(os.fsdecode(self.folder))
                raise DataError(f"the folder {shown} cannot be read ({error.strerror}); check its path and permissions") from None
            self.unreadable[folder] = error.strerror or type(error).__name__

    def _look_at(self, entry: os.DirEntry[bytes], name: bytes) -> FoundFile | None:
        """An image file; None for what is counted, and for a folder, which is remembered."""
        own = entry.name.lower()
        is_link = entry.is_symlink()
        if is_passed_over(own):
            self.skipped[SYSTEM if _is_of_system(own) else HIDDEN] += 1
        elif _is_folder(entry):
            self._remember(entry, name, is_link)
        elif (suffix := os.path.splitext(own)[1]).decode("latin-1") not in IMAGE_SUFFIXES:
            self.skipped[suffix.decode() if _SUFFIX.fullmatch(suffix) else "other"] += 1
        elif is_link and not self.follow_links and not os.path.realpath(entry.path).startswith(self._within):
            self.skipped[LINKS] += 1
        else:
            return self._file(entry, name, is_link)
        return None

    def _remember(self, entry: os.DirEntry[bytes], name: bytes, is_link: bool) -> None:
        """A folder, to be looked at later."""
        if entry.path == self.leave_out:
            return
        if not is_link:
            self._folders.append(name)
            if os.path.ismount(entry.path):
                self.mounts.add(name)
        elif self.follow_links:
            heappush(self._links, name)
        else:
            self.skipped[LINKS] += 1

    def _file(self, entry: os.DirEntry[bytes], name: bytes, is_link: bool) -> FoundFile | None:
        try:
            status = entry.stat()
        except FileNotFoundError:
            return FoundFile(name, None) if is_link else None  # else it has gone since
        except OSError:
            return FoundFile(name, None)
        if not stat.S_ISREG(status.st_mode):
            self.skipped[NO_FILES] += 1
            return None
        return FoundFile(name, Stamp.of(status))


def is_passed_over(name: bytes) -> bool:
    """Whether files and folders of this name are passed over, as hidden ones, thumbnails and bins are.

    Args:
        name: of a file or folder, without the path.
    """
    return name.startswith(b".") or _is_of_system(name.lower())


def _is_of_system(name: bytes) -> bool:
    return name in _SYSTEM_NAMES or name.startswith(b".trash-")


def _is_folder(entry: os.DirEntry[bytes]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False
