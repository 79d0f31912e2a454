"""The images of a set: numbered, linked into its folder, with their captions and where they came from.

SET/images/0001.png ...     hard links where the file system allows, else copies
SET/images.jsonl            one line an image: image, source, captions (none of a bare folder), sha256; then what was left out, and why
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from slq.data import IMAGE_SUFFIXES, find_images, open_image, read_pairs
from slq.errors import DataError, Failure, ImageError
from slq.io.files import map_os_errors, write_jsonl
from slq_karr.candidates import read_own_rows

IMAGES = "images.jsonl"


@dataclass(frozen=True)
class GalleryImage:
    """One image of the gallery. image: its path in the set. source: its name where it came from."""

    image: str
    source: str
    captions: tuple[str, ...]
    sha256: str


@dataclass(frozen=True)
class Source:
    """Images with their captions, as they were found; the captions of a bare folder are empty."""

    images: tuple[tuple[Path, str, tuple[str, ...]], ...]
    failures: tuple[Failure, ...]

    @property
    def fingerprint(self) -> str:
        """Hash of names and captions: another one means other images."""
        listed = [(name, captions) for _, name, captions in self.images]
        return hashlib.sha256(json.dumps(listed).encode("utf-8", "backslashreplace")).hexdigest()[:16]


def find_source(source: Path, allow_outside: bool = False) -> Source:
    """The images of a captions file (of a Karpathy file the test split), of a folder with captions, or of a bare folder.

    Args:
        source: the file or folder.
        allow_outside: whether images may lie outside of its folder.

    Returns:
        The images with their captions, and those that cannot be read.

    Raises:
        DataError: if there are none, or the file holds something else than captions of images.
    """
    if source.is_dir() and _is_bare(source):
        images = find_images(source)
        if not images:
            raise DataError(f"{source} holds no images ({', '.join(sorted(IMAGE_SUFFIXES))}): give a folder or a captions file")
        return Source(tuple((path, path.relative_to(source).as_posix(), ()) for path in images), ())
    read = read_pairs(source, splits=("test",), allow_outside=allow_outside)
    found = []
    for pair in read.pairs:
        image = pair.query.image
        if not isinstance(image, Path) or pair.query.text is not None or any(item.image is not None for item in pair.positives):
            raise DataError(f"{pair.source}: not an image with captions; use a file with the columns 'image' and 'caption'")
        name = image.relative_to(read.folder) if image.is_relative_to(read.folder) else image
        found.append((image, name.as_posix(), tuple(item.text or "" for item in pair.positives)))
    return Source(tuple(found), read.failures)


def gather(source: Source, out: Path) -> tuple[list[GalleryImage], list[Failure]]:
    """Bring the images into the set's folder; what an earlier run brought is taken as it is.

    Args:
        source: the images.
        out: folder of the set.

    Returns:
        The gallery, and the images that cannot be opened or have the bytes of another.

    Raises:
        DataError: if no image is left.
    """
    if (out / IMAGES).is_file():
        return read_gallery(out)
    gallery: list[GalleryImage] = []
    failures, seen = list(source.failures), dict[str, str]()
    with map_os_errors(out):
        (out / "images").mkdir(parents=True, exist_ok=True)
    for path, name, captions in source.images:
        try:
            open_image(path)
        except ImageError as error:
            failures.append(Failure(name, str(error)))
            continue
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        if sha256 in seen:
            failures.append(Failure(name, f"the same image as {seen[sha256]}"))
            continue
        seen[sha256] = name
        image = f"images/{len(gallery) + 1:04d}{path.suffix.lower()}"
        link_or_copy(path, out / image)
        gallery.append(GalleryImage(image, name, captions, sha256))
    if not gallery:
        raise DataError(f"none of the {len(failures)} images can be used; the first is {failures[0]}")
    skipped = [{"source": each.item, "skipped": each.reason} for each in failures]
    write_jsonl(out / IMAGES, [*(asdict(shown) for shown in gallery), *skipped])
    return gallery, failures


def read_gallery(out: Path) -> tuple[list[GalleryImage], list[Failure]]:
    """The images of a set.

    Args:
        out: folder of the set.

    Returns:
        The gallery, and the images of its source that were skipped.

    Raises:
        DataError: if a line is broken.
    """
    found, failures = [], []
    try:
        for row in read_own_rows(out / IMAGES):
            if "skipped" in row:
                failures.append(Failure(row["source"], row["skipped"]))
            else:
                found.append(GalleryImage(row["image"], row["source"], tuple(row["captions"]), row["sha256"]))
    except (KeyError, TypeError):
        raise DataError(f"{out / IMAGES} holds a line that is not an image of a set; build the set in a new folder") from None
    return found, failures


def _is_bare(folder: Path) -> bool:
    """Whether no caption stands beside any image."""
    return not any(folder.glob("captions.*")) and not any(path.with_suffix(".txt").is_file() for path in find_images(folder))


def link_or_copy(path: Path, target: Path) -> None:
    """The same file under another name: a hard link where the file system has them.

    Args:
        path: the file.
        target: the new name; a file of that name is replaced.
    """
    with map_os_errors(target):
        target.unlink(missing_ok=True)
        with suppress(OSError):  # another file system, or one without links
            os.link(path.resolve(), target)
            return
        shutil.copyfile(path, target)
