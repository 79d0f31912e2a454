"""The files of the table's versions: brought to the disk before a version counts, and compared with what the journal says of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slq.errors import StoreError
from slq.index.lance.lines import Commit, FileRecord
from slq.index.lance.manifest import Manifest, manifest_name, read_manifest, version_of
from slq.index.lance.table import TABLE_FOLDER
from slq.index.logfile import checksum as checksum_of_bytes
from slq.io.disk import checksum, sync
from slq.io.files import crash_point, map_os_errors

_HELD = ("data", "_deletions", "_indices")  # folders of what versions are made of
_HINT = "_versions/latest_version_hint.json"


@dataclass(frozen=True)
class Damage:
    """What is wrong with the files of a version; false if nothing is.

    Attributes:
        manifest: what is wrong with its manifest, empty if nothing is; else nothing is known of the rest.
        fragments: numbers of fragments with a damaged file, and what is wrong with it.
        rows: of those fragments.
        index: what is wrong with a file of its index.
    """

    manifest: str
    fragments: Mapping[int, str]
    rows: int
    index: str

    def __bool__(self) -> bool:
        return bool(self.manifest or self.fragments or self.index)

    def __str__(self) -> str:
        return "; ".join(filter(None, (self.manifest, *self.fragments.values(), self.index)))


def settle(
    location: Path, version: int, number: int, rows: int, kind: str, known: Mapping[str, FileRecord]
) -> tuple[Commit, dict[str, FileRecord]]:
    """Bring a version's files to the disk.

    Args:
        location: the store's folder.
        version: of the table.
        number: of the commit that it is to be.
        rows: that it has.
        kind: of the commit.
        known: files that the disk has.

    Returns:
        The commit, and its files that were not known.

    Raises:
        StoreError: if this is not the format that slq knows.
        OutputError: if the disk refuses.
    """
    folder = location / TABLE_FOLDER
    with map_os_errors(location):
        name = manifest_name(version)
        content, manifest = manifest_of(folder, version)
        if sum(fragment.rows for fragment in manifest.fragments) != rows:
            raise StoreError(f"This LanceDB writes {location} in a format that slq cannot check: use the version that slq was tested with.")
        new = [path for path in held_files(folder) if path not in known]
        others = [path for path in (manifest.transaction, name) if path and (folder / path).exists()]
        sync_files(folder, [*new, *others])
        crash_point("lance.synced")
        records = {path: FileRecord((folder / path).stat().st_size, checksum(folder / path)) for path in new}
    return Commit(number, version, rows, kind, len(content), checksum_of_bytes(content)), records


class Files:
    """What is wrong with files, each looked at once.

    Args:
        location: the store's folder.
        known: what they were, by their paths in the table.
        by_checksum: whether they are read, from the disk; else their sizes are compared.
    """

    def __init__(self, location: Path, known: Mapping[str, FileRecord], *, by_checksum: bool = False):
        self.folder, self.known = location / TABLE_FOLDER, known
        self._by_checksum = by_checksum
        self._faults: dict[str, str] = {}

    def fault(self, paths: Iterable[str]) -> str:
        """What is wrong with the first of some files that is damaged; empty if none is.

        Args:
            paths: in the table.
        """
        for path in paths:
            if path not in self._faults:
                self._faults[path] = self._look(path)
            if self._faults[path]:
                return self._faults[path]
        return ""

    def _look(self, path: str) -> str:
        file, record = self.folder / path, self.known.get(path)
        if not file.exists():
            return f"{path} is missing"
        if record is None:
            return f"{path} is not in the journal"
        if (size := file.stat().st_size) != record.size:
            return f"{path} has {size} bytes, not {record.size}"
        if self._by_checksum and checksum(file, from_disk=True) != record.checksum:
            return f"{path} is not what was written"
        return ""


def damage_of(commit: Commit, files: Files) -> Damage:
    """Compare the files of a version with what they were.

    Args:
        commit: that made the version.
        files: of the table.

    Raises:
        StoreError: if the system refuses to read a file, which is no damage of it.
    """
    try:
        return _damage_of(commit, files)
    except OSError as error:
        raise StoreError(f"A file of {files.folder} cannot be read ({error}): check its permissions, and its disk.") from error


def _damage_of(commit: Commit, files: Files) -> Damage:
    name = manifest_name(commit.version)
    try:
        content, manifest = manifest_of(files.folder, commit.version)
        if (len(content), checksum_of_bytes(content)) != (commit.manifest_size, commit.manifest_checksum):
            raise ValueError("it is not what was written")
    except FileNotFoundError:
        return Damage(f"{name} is missing", {}, 0, "")
    except ValueError as error:
        return Damage(f"{name} is damaged ({error})", {}, 0, "")
    faults = {fragment.number: files.fault(fragment.files) for fragment in manifest.fragments}
    rows = sum(fragment.rows for fragment in manifest.fragments if faults[fragment.number])
    index = ""
    for segment in manifest.indices:
        parts = [path for path in files.known if path.startswith(f"{segment}/")]
        index = index or files.fault(parts or [segment])
    return Damage("", {number: fault for number, fault in faults.items() if fault}, rows, index)


def manifest_of(folder: Path, version: int) -> tuple[bytes, Manifest]:
    """The manifest of a version: its bytes, and what it says.

    Args:
        folder: of the table.
        version: its number.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it is damaged.
    """
    content = (folder / manifest_name(version)).read_bytes()
    manifest = read_manifest(content)
    if manifest.version != version:
        raise ValueError(f"it is of the version {manifest.version}")
    return content, manifest


def held_files(folder: Path) -> list[str]:
    """All files that versions of a table are made of, whether a version counts or not.

    Args:
        folder: of the table.
    """
    return [
        file.relative_to(folder).as_posix()
        for held in _HELD
        if (folder / held).exists()
        for file in sorted((folder / held).rglob("*"))
        if file.is_file()
    ]


def holds_rows(folder: Path) -> bool:
    """Whether there is more in the folder of a table than LanceDB makes before the first row.

    Args:
        folder: of the table.
    """
    return any(not path.is_dir() and path.parent.name not in ("_versions", "_transactions") for path in folder.rglob("*"))


def sync_files(folder: Path, files: Sequence[str]) -> None:
    """Return when the disk has files of a table, and the folders that lead to them.

    Args:
        folder: of the table.
        files: their paths in it.
    """
    paths = [folder / file for file in files]
    above = {parent for path in paths for parent in path.parents if parent.is_relative_to(folder)}
    for path in (*paths, *sorted(above, reverse=True)):  # the innermost folders first
        sync(path)


def remove_uncounted(location: Path, head: Commit, known: Mapping[str, FileRecord]) -> bool:
    """Remove what an unfinished write has left: versions behind the newest that counts, and their files.

    Args:
        location: the store's folder.
        head: the newest commit.
        known: files of versions that count.

    Returns:
        Whether there was any.
    """
    folder = location / TABLE_FOLDER
    with map_os_errors(location):
        numbers = [(version_of(file), file) for file in (folder / "_versions").iterdir()]
        unwanted = [file for number, file in numbers if number is not None and number > head.version]
        for file in unwanted:
            file.unlink()
        if unwanted:
            (folder / _HINT).unlink(missing_ok=True)  # it names one of them
            sync(folder / "_versions")
        orphans = [folder / path for path in held_files(folder) if path not in known]
        for file in orphans:
            file.unlink()
    return bool(unwanted or orphans)
