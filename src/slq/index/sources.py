"""Sources of a collection: folders of images, single images and tables; where they are, and what each holds now."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from slq.data.images import IMAGE_SUFFIXES
from slq.data.items import ItemRow, each_row, repeats
from slq.data.lines import is_utf8
from slq.data.tables import TABLE_SUFFIXES
from slq.data.walk import Stamp, Walk, is_passed_over
from slq.errors import DataError, InputError, SlqError, shorten
from slq.index.filters import as_scalars
from slq.index.ids import label_of, printable
from slq.index.journal import Journal, Source
from slq.index.scan import Found, Scan
from slq.types import Item

FOLDER, IMAGE, TABLE = "folder", "image", "table"
NO_IMAGE = Stamp(0, 0, 0)  # of a table's row without one: it changes with the table alone


@dataclass(frozen=True)
class Places:
    """Paths as a collection stores them: from its own folder where they lie below what holds that, so that all of it can be moved together.

    Attributes:
        folder: of the collection, links followed.
    """

    folder: bytes

    @classmethod
    def of(cls, folder: Path) -> Places:
        """Those of a collection.

        Args:
            folder: of the collection.
        """
        return cls(os.path.realpath(os.fsencode(folder)))

    def stored(self, path: bytes) -> bytes:
        """A path as the collection stores it.

        Args:
            path: a whole path.
        """
        above = os.path.join(os.path.dirname(self.folder), b"")
        return os.path.relpath(path, self.folder) if path.startswith(above) and path == os.path.normpath(path) else path

    def located(self, stored: bytes) -> bytes:
        """The whole path of what `stored` gave.

        Args:
            stored: what it gave.
        """
        return os.path.normpath(os.path.join(self.folder, stored)) if not os.path.isabs(stored) else stored


@dataclass
class Look:
    """What one look at a source found.

    Attributes:
        source: which one.
        skipped: files and folders that were passed over, by what they are.
        unreadable: folders whose list the system refuses, by their names in the source, with the reason.
        stamp: of a table that was read through.
        is_missing: whether there is no such path, which only `may_be_empty` allows.
    """

    source: Source
    skipped: Counter[str] = field(default_factory=Counter)
    unreadable: Mapping[bytes, str] = field(default_factory=dict)
    stamp: Stamp | None = None
    is_missing: bool = False

    def is_known(self, name: bytes) -> bool:
        """Whether it was seen what there is of this name.

        Args:
            name: of an input.
        """
        return not any((name + b"/").startswith(folder + b"/") for folder in self.unreadable)


def whole_path(path: Path) -> bytes:
    """A path from the root, the links that lead to its folder followed.

    Args:
        path: as a user wrote it.
    """
    absolute = os.path.abspath(os.fsencode(path))
    return os.path.normpath(os.path.join(os.path.realpath(os.path.dirname(absolute)), os.path.basename(absolute)))


def add_source(journal: Journal, places: Places, path: Path, options: Mapping[str, Any]) -> tuple[Source, bool]:
    """Remember what a user named.

    Args:
        journal: of the collection.
        places: likewise.
        path: a folder, an image, or a table.
        options: how it is read, as far as it is said: arguments of `each_row`, and `follow_links`; what was said before holds else.

    Returns:
        The source, and whether it is the path's own: not where the path lies in a folder that is a source already.

    Raises:
        DataError: if it is none of the three.
    """
    kind, whole, known = kind_of(path), whole_path(path), journal.sources()
    same = next((each for each in known if each.path == places.stored(whole)), None)
    if same is not None:
        return journal.save_source(replace(same, kind=kind, options={**same.options, **options}, stamp=None)), True
    if (within := next((each for each in known if holds(places, each, whole)), None)) and kind != TABLE:
        return within, False
    label = label_of(whole, {each.label for each in known})
    return journal.save_source(Source(0, places.stored(whole), kind, label, options)), True


def named_source(sources: Sequence[Source], places: Places, path: Path) -> Source:
    """The source that a user means.

    Args:
        sources: of the collection.
        places: likewise.
        path: as it was named when it became one, or another way to it; it need not be there any more.

    Raises:
        InputError: if it is none.
    """
    stored = places.stored(whole_path(path))
    found = next((source for source in sources if source.path == stored), None)
    if found is None:
        known = ", ".join(printable(places.located(source.path)) for source in sources)
        raise InputError(f"{shorten(path)} is no source of the collection; it has {shorten(known)}.")
    return found


def kind_of(path: Path) -> str:
    """What a path is: `folder`, `image` or `table`.

    Args:
        path: as a user wrote it.

    Raises:
        DataError: if it is none of the three.
    """
    if os.path.isdir(path):
        return FOLDER
    if not os.path.exists(path):
        raise DataError(f"{shorten(path)} does not exist; give a folder of images, an image, or a table")
    for kind, suffixes in ((IMAGE, IMAGE_SUFFIXES), (TABLE, TABLE_SUFFIXES)):
        if path.suffix.lower() in suffixes:
            return kind
    raise DataError(
        f"{shorten(path)} is neither a folder nor an image nor a table; give a folder of images, an image, or one of "
        f"{', '.join(TABLE_SUFFIXES)}"
    )


def holds(places: Places, source: Source, path: bytes) -> bool:
    """Whether a folder is a source that a walk through finds a path in.

    Args:
        places: of the collection.
        source: which one.
        path: a whole path.
    """
    above = os.path.join(places.located(source.path), b"")
    names = path[len(above) :].split(b"/")
    return source.kind == FOLDER and path.startswith(above) and not any(map(is_passed_over, names)) and not os.path.islink(path)


def look_at(source: Source, scan: Scan, places: Places, may_be_empty: bool) -> Look:
    """Find out what a source holds now.

    Args:
        source: which one.
        scan: where it is noted.
        places: of the collection.
        may_be_empty: whether a source that is missing or empty is one without inputs; else it is an error.

    Returns:
        What was found beside the inputs.

    Raises:
        DataError: if it is missing, empty, or cannot be read as a whole; nothing is noted then.
    """
    path = places.located(source.path)
    if may_be_empty and not os.path.lexists(path):
        scan.complete(source)
        return Look(source, is_missing=True)
    try:
        look, count = _LOOKS[source.kind](source, scan, places, path, may_be_empty)
        if not count and not (may_be_empty and not look.unreadable):
            raise DataError(f"{shorten(os.fsdecode(path))} holds no {'row' if source.kind == TABLE else 'image'} that can be read")
    except SlqError:
        scan.discard(source)
        raise
    scan.complete(source, look.unreadable)
    return look


def item_of(source: Source, found: Found, places: Places) -> tuple[Item, bytes | None, dict[str, Any]]:
    """An input as it is encoded.

    Args:
        source: its source.
        found: what there is.
        places: of the collection.

    Returns:
        The item, the path of its image as the collection stores it, and its metadata.
    """
    if source.kind == TABLE:
        said = json.loads(found.payload or "{}")
        stored, text, metadata = found.image, said.get("text"), said.get("metadata", {})
    else:
        stored, text, metadata = b"/".join(filter(None, (source.path, found.name))), None, {}
    return Item(text, None if stored is None else Path(os.fsdecode(places.located(stored)))), stored, metadata


def _look_at_folder(source: Source, scan: Scan, places: Places, path: bytes, may_be_empty: bool) -> tuple[Look, int]:
    walk = Walk(path, follow_links=source.options.get("follow_links", False), leave_out=places.folder)
    count = scan.add(source, (Found(each.name, stamp=each.stamp) for each in walk))
    away = set() if may_be_empty else {each for each in source.mounts - walk.mounts if _is_empty(os.path.join(path, each))}
    if source.mounts != (mounts := frozenset(walk.mounts | away)):
        source = scan.journal.save_source(replace(source, mounts=mounts))
    return Look(source, walk.skipped, {**walk.unreadable, **dict.fromkeys(away, "its disk is not mounted")}), count


def _is_empty(folder: bytes) -> bool:
    """Whether there is nothing at a path, as where a disk was mounted."""
    try:
        return not os.listdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def _look_at_image(source: Source, scan: Scan, places: Places, path: bytes, may_be_empty: bool) -> tuple[Look, int]:
    if not os.path.isfile(path):
        raise DataError(f"the image {shorten(os.fsdecode(path))} does not exist")
    return Look(source), scan.add(source, [Found(b"", stamp=stamp_of(path))])


def _look_at_table(source: Source, scan: Scan, places: Places, path: bytes, may_be_empty: bool) -> tuple[Look, int]:
    stamp = stamp_of(path)
    if stamp is not None and stamp == source.stamp and _images_are_as_before(source, scan.journal, places):
        return Look(source, stamp=stamp), scan.keep(source)
    file = Path(os.fsdecode(path))
    rows = each_row(file, **{name: value for name, value in source.options.items() if name != "follow_links"})
    return Look(source, stamp=stamp), scan.add(source, (_found(row, file, places) for row in rows))


def _images_are_as_before(source: Source, journal: Journal, places: Places) -> bool:
    """Whether nothing that a table's rows name has changed, and none of them is to be read again."""
    return all(
        line.reason is None and line.stamp is not None and (line.image is None or stamp_of(places.located(line.image)) == line.stamp)
        for line in journal.inputs(source)
    )


def _found(row: ItemRow, file: Path, places: Places) -> Found:
    place = row.place.removeprefix(f"{file.name} ")
    name = (place if row.id == row.place else row.id).encode("utf-8", "surrogatepass")
    if_repeated = _refused(place.encode(), repeats(row.id, "a row before it"))
    metadata = as_scalars(row.metadata)
    texts = (text for text in (*metadata, *metadata.values()) if isinstance(text, str))
    if row.item is None or not all(map(is_utf8, texts)):
        reason = row.reason or "a column holds half of a surrogate pair, which UTF-8 cannot write; decode it again from its source"
        return replace(_refused(name, reason), if_repeated=if_repeated)
    image = None if row.item.image is None else places.stored(os.path.abspath(os.fsencode(row.item.image)))
    stamp = NO_IMAGE if image is None else stamp_of(places.located(image))
    payload = json.dumps({"text": row.item.text, "metadata": metadata}, sort_keys=True)
    return Found(name, image, stamp, _hash(f"{payload} {printable(image or b'')}"), payload, if_repeated=if_repeated)


def _refused(name: bytes, reason: str) -> Found:
    """A row that cannot be used."""
    return Found(name, details=_hash(reason), reason=reason)


def stamp_of(path: bytes) -> Stamp | None:
    """The stamp of a file; None if the system does not tell.

    Args:
        path: its whole path.
    """
    try:
        return Stamp.of(os.stat(path))
    except (OSError, ValueError):
        return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


_LOOKS = {FOLDER: _look_at_folder, IMAGE: _look_at_image, TABLE: _look_at_table}
