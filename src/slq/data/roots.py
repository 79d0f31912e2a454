"""Where the images are that a data file names, and that it names none elsewhere."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from PIL import Image

from slq.data.images import IMAGE_SUFFIXES
from slq.errors import ImageError, shorten
from slq.io.files import map_os_errors, write_atomic
from slq.io.outputs import MANIFEST
from slq.types.images import as_image


def cache_folder() -> Path:
    """The user's cache folder of images that come inside a data file."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "slq" / "images"


@dataclass(frozen=True)
class ImageRoot:
    """Where relative paths start, and what no image may lie outside of.

    Whoever wrote a data file may have written any path into it; without a bound its reader would open, and write into results, whatever the
    reader's user can read.

    Attributes:
        folder: where relative paths start.
        bound: no image lies outside of it, not by `..`, an absolute path or a link; None: wherever the file says.
    """

    folder: Path
    bound: Path | None

    @classmethod
    def of(cls, data: Path, image_root: str | os.PathLike[str] | None = None, allow_outside: bool = False) -> ImageRoot:
        """The root of a data file. What slq wrote as one output, such as the sets of sample data, is one: they share images.

        Args:
            data: the file, or a folder.
            image_root: where its relative paths start, if that is not its own folder; the bound too.
            allow_outside: whether there is no bound.

        Raises:
            ImageError: if image_root is no folder.
        """
        if image_root is not None and not os.path.isdir(image_root):
            raise ImageError(f"the folder of images {shorten(image_root)} does not exist; correct --image-root")
        folder = Path(image_root) if image_root is not None else data if os.path.isdir(data) else data.parent
        return cls(folder, None if allow_outside else folder if image_root is not None else _whole_output(folder))

    def find(self, value: object) -> Path:
        """The file of an image that a cell holds; the image itself is not opened.

        Args:
            value: what the cell holds, in any form that `slq.types.images.as_image` takes, or a list of one. An image whose content stands
                in it becomes a file in the user's cache folder, so that no more images than those of one batch are in memory; equal ones
                share a file.

        Raises:
            ImageError: if it holds no image, or several, no such file exists, or it lies outside of the bound.
            OutputError: if the cache folder cannot be written.
        """
        if isinstance(value, (list, tuple)) and value and all(isinstance(each, (str, bytes, Mapping)) for each in value):
            if len(value) > 1:
                raise ImageError(f"an item has {len(value)} images, and one is encoded an item; join them into one, or give each an item")
            value = value[0]
        image = as_image(value)
        if isinstance(image, Path):
            return self.check(self.folder / image)
        if isinstance(image, Image.Image):
            stream = io.BytesIO()
            image.save(stream, "PNG")
            image = stream.getvalue()
        name = value.get("path") if isinstance(value, Mapping) else None
        return unpacked(image, name if isinstance(name, str) else "")

    def check(self, path: Path) -> Path:
        """The path of an image, if it is a file within the bound.

        Args:
            path: the image's.

        Raises:
            ImageError: if it is not.
        """
        if not self.holds(path):
            bound = shorten(self.bound, 100)
            raise ImageError(
                f"the image file {shorten(path)} is outside of {bound}; name its folder with --image-root, or allow it with --allow-outside"
            )
        if not os.path.isfile(path):
            raise ImageError(f"the image file {shorten(path)} does not exist; add it or correct the path")
        return path

    def holds(self, path: Path) -> bool:
        """Whether a path lies within the bound, once links are followed.

        Args:
            path: any.
        """
        try:
            return self._resolved_bound is None or path.resolve().is_relative_to(self._resolved_bound)
        except (OSError, ValueError, RuntimeError):  # a name longer than the file system allows, a NUL, links in a circle
            return True  # there is no such file

    @cached_property
    def _resolved_bound(self) -> Path | None:
        return None if self.bound is None else self.bound.resolve()


def _whole_output(folder: Path) -> Path:
    """The folder of the output of slq that a folder is part of; itself otherwise."""
    whole = folder.resolve()
    return next((each for each in (whole, *whole.parents) if os.path.isfile(each / MANIFEST)), folder)


def unpacked(content: bytes, name: str = "") -> Path:
    """A file with the content of an image, encoded as it was, in the user's cache folder.

    Args:
        content: of the image's file.
        name: that it has where it came from, whose suffix is kept.

    Raises:
        OutputError: if it cannot be written.
    """
    suffix = Path(name[-20:]).suffix.lower()
    key = hashlib.sha256(content).hexdigest()
    path = cache_folder() / key[:2] / f"{key}{suffix if suffix in IMAGE_SUFFIXES else '.image'}"
    if not (path.is_file() and path.read_bytes() == content):
        with map_os_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, lambda partial: partial.write_bytes(content))
    return path
