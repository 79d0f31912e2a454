"""The images of a benchmark by id, wherever its copy keeps them: beside the annotations, in tables, in an archive.

An image inside a table or an archive becomes a file once, in the user's cache folder: an `Item` then holds a path, so that no more
than the images of one batch are in memory, and processes that read ahead open them themselves.

A missing image is a Failure. As a candidate it is left out and never found. As (a part of) a query it stays, with the path where it
should be: it cannot be embedded, and the query counts as missed.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from slq.benchmarks.files import cached_file
from slq.data.roots import ImageRoot
from slq.errors import DataError, Failure, ImageError, shorten
from slq.types import Item
from slq.types.images import MAX_FILE_BYTES, as_image

NO_IMAGE = "no image"  # a file that is nowhere


@dataclass
class Images:
    """Paths of images by id; of a missing one, the path where it should be, and why it is missing."""

    paths: dict[str, Path] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)

    def __contains__(self, image_id: str) -> bool:
        return image_id in self.paths

    def item(self, image_id: str, text: str | None = None) -> Item:
        """The image, with a text if one is given; for a query also if it is missing.

        Args:
            image_id: of an image that was looked for.
            text: of the query, if it has one.
        """
        return Item(text, self.paths[image_id])

    def found(self, image_ids: Iterable[str] | None = None) -> list[str]:
        """The ids of those that are there, of all or of the given.

        Args:
            image_ids: which; None for all.
        """
        return [id_ for id_ in (self.paths if image_ids is None else image_ids) if id_ not in self.faults]

    def failures(self, image_ids: Iterable[str] | None = None) -> tuple[Failure, ...]:
        """Those that are missing, of all or of the given.

        Args:
            image_ids: which; None for all.
        """
        wanted = self.paths if image_ids is None else dict.fromkeys(image_ids)
        return tuple(Failure(id_, self.faults[id_]) for id_ in wanted if id_ in self.faults)

    def check(self, advice: str) -> Images:
        """Itself, unless there are images and every one is missing.

        Args:
            advice: what to do then.

        Raises:
            DataError: if every image is missing.
        """
        if self.paths and len(self.faults) == len(self.paths):
            first = next(iter(self.faults.values()))
            raise DataError(f"none of the {len(self.paths)} images is there: {first.split(';')[0]}; {advice}")
        return self


class ImageFolders:
    """Finds the image that an annotation names, in the folders that copies of a benchmark keep images in, or in its archive."""

    def __init__(self, data: Path, below: Sequence[str], archive: str | None = None):
        self.folders = [data / name for name in below]
        self._archive = _Archive(data / archive) if archive and (data / archive).is_file() else None

    def locate(self, wanted: Mapping[str, Sequence[str]]) -> Images:
        """Images by id, each under the first of its possible names that is there.

        Args:
            wanted: image ids, each with its possible names.
        """
        images = Images()
        for id_, names in wanted.items():
            try:
                images.paths[id_] = self._find([within(name) for name in names])
            except ImageError as error:
                images.paths[id_] = self.folders[0] / NO_IMAGE
                images.faults[id_] = str(error)
        return images

    def _find(self, names: Sequence[str]) -> Path:
        for folder in self.folders:
            for name in names:
                if os.path.isfile(folder / name):
                    self.folders.remove(folder)
                    self.folders.insert(0, folder)  # the next one is probably there too
                    return folder / name
        if self._archive and (path := self._archive.find(names)):
            return path
        places = " or ".join(shorten(folder, 100) for folder in self.folders)
        raise ImageError(f"the image {shorten(' or '.join(names))} is not in {places}; add it")


class _Archive:
    """A zip file of images; those that are asked for are unpacked."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._zip, state = zipfile.ZipFile(path), path.stat()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a readable zip file ({error}); fetch it again") from None
        self._identity = (str(path.resolve()), state.st_size, state.st_mtime_ns)
        self._members = {PurePosixPath(info.filename).as_posix(): info for info in self._zip.infolist() if not info.is_dir()}

    def find(self, names: Sequence[str]) -> Path | None:
        for name in names:
            for member in (name, f"images/{name}"):
                if info := self._members.get(PurePosixPath(member).as_posix()):
                    return self._unpack(info)
        return None

    def _unpack(self, info: zipfile.ZipInfo) -> Path:
        if info.file_size > MAX_FILE_BYTES:
            raise ImageError(f"the image {shorten(info.filename)} has {info.file_size:,} bytes, more than the {MAX_FILE_BYTES:,} allowed")
        # What stands in the archive's directory, so that an image is unpacked once; and the archive itself, since a checksum of 32 bits can
        # be forged, and one archive is not to give another one's images.
        parts = [*self._identity, info.filename, info.file_size, info.CRC]
        key = hashlib.sha256(repr(parts).encode("utf-8", "surrogateescape")).hexdigest()
        return cached_file("unpacked", key, Path(info.filename[-20:]).suffix.lower(), lambda: self._read(info))

    def _read(self, info: zipfile.ZipInfo) -> bytes:
        try:
            return self._zip.read(info)
        except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, EOFError) as error:
            raise ImageError(f"the image {shorten(info.filename)} of {shorten(self.path)} cannot be read ({shorten(error)})") from None


def images_of_cells(cells: Iterable[tuple[str, object]], folder: Path) -> Images:
    """Images by id out of cells of a table: `{"bytes": ..., "path": ...}` as the hub writes them, bytes, or a path below `folder`.

    Args:
        cells: image id and cell.
        folder: of images that a cell names.
    """
    images, root = Images(), ImageRoot(folder, None)  # a copy's folders may be links of its owner; `within` holds what a cell says
    for id_, cell in cells:
        try:
            if cell is None:
                raise ImageError("the row holds no image; add it")
            image = as_image(cell)
            images.paths[id_] = root.find(within(str(image)) if isinstance(image, Path) else cell)
        except ImageError as error:
            images.paths[id_] = folder / NO_IMAGE
            images.faults[id_] = str(error)
    return images


def within(name: str) -> str:
    """A relative path that stays below the folder it starts in.

    Args:
        name: what an annotation says.

    Raises:
        ImageError: if it is absolute, or leaves the folder by `..`.
    """
    plain = os.path.normpath(name)
    if os.path.isabs(plain) or plain.split(os.sep)[0] == "..":
        raise ImageError(f"the image {shorten(name)} is outside of the benchmark's folder; put it there")
    return name


def prompted(item: Item, template: str | None) -> Item:
    r"""The item with a prompt: `{text}` stands for the item's own text. Without a template, the item as it is.

    Args:
        item: what is encoded.
        template: the prompt, or None.

    Example:
        >>> prompted(Item("a cat"), "{text}\nSummary above sentence in one word:").text
        'a cat\nSummary above sentence in one word:'
    """
    return item if template is None else Item(template.replace("{text}", item.text or ""), item.image)


def corpus_of(images: Images, ids: Iterable[str], wording: Callable[[Item], Item] = lambda item: item) -> dict[str, Item]:
    """The images that are there, as a corpus.

    Args:
        images: those that were looked for.
        ids: which of them.
        wording: puts the prompt around an item.
    """
    return {id_: wording(images.item(id_)) for id_ in images.found(ids)}


def part_of(found: Mapping[str, int], whole: Mapping[str, int]) -> str:
    """What must be added to a protocol if the data is not the whole benchmark; empty if it is.

    Args:
        found: what was read, by its name.
        whole: the numbers of the published benchmark.

    >>> part_of({"images": 3, "queries": 7}, {"images": 5000, "queries": 7})
    '; NOT the published data: 3 images in place of 5,000'
    """
    other = [f"{found[name]:,} {name} in place of {count:,}" for name, count in whole.items() if found[name] != count]
    return f"; NOT the published data: {', '.join(other)}" if other else ""
