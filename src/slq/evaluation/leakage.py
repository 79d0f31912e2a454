"""Leakage: which images and texts of a test set stand in a training set too.

An image is found by its id (names that COCO, Flickr, NLVR2 and Amazon give their images), by its content, and as a near-duplicate: 256 bits
of a perceptual hash, for copies that were saved again, scaled or brightened. Texts are compared without regard to case, punctuation and
white space; a shared text is weaker than a shared image, since different images may well be described in the same words.

Shapes: P images.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from slq import console
from slq.config.evaluate import MAX_HAMMING_DISTANCE
from slq.config.tables import MAX_SKIPPED
from slq.data import PairFile, RetrievalSet, open_image, read_retrieval_data
from slq.data.karpathy import HELD_OUT_SPLITS
from slq.errors import Failure, InputError
from slq.types import Item, content_hash

if TYPE_CHECKING:
    from PIL.Image import Image

HASH_SIZE = 16  # rows and columns of the hash, so 256 bits; with 8, images of one background and different small things fall together
COLOUR_GAP = 48  # of 255: the hash sees no colour, nor how bright a plain image is
CELLS = 4  # rows and columns of the mean colours
BLOCK = 2**20  # hashes compared at once
PREFETCHED = 64  # images handed to the threads at once

# Names by which an image is known wherever it goes; a running number such as 0001 says nothing.
_KNOWN_NAMES = {
    "coco": re.compile(r"(?:COCO_(?:train|val|test)20\d\d_)?(\d{12})"),
    "photo": re.compile(r"([1-9]\d{6,})"),  # Flickr, Visual Genome
    "nlvr2": re.compile(r"((?:train|dev|test1|test2)-\d+-\d+-img\d)"),
    "amazon": re.compile(r"(B0[0-9A-Z]{8})"),
    "hash": re.compile(r"([0-9a-f]{16,})"),  # Open Images, and files named by their content
}


@dataclass(frozen=True)
class Match:
    """Something of the test set that stands in the training set too.

    Attributes:
        test: its place in the test set.
        train: the first or closest place in the training set.
        distance: bits in which their hashes differ.
    """

    test: str
    train: str
    distance: int = 0


@dataclass(frozen=True)
class Leakage:
    """How much of a test set stands in a training set.

    Attributes:
        train_images: how many different images the training set has.
        test_images: how many the test set has.
        train_texts: how many different texts the training set has.
        test_texts: how many the test set has.
        by_id: images with the same well-known name. As the other lists, it names each item of the test set once.
        by_content: images of the same content.
        by_near_duplicate: images of nearly the same content.
        texts: texts that are in both.
        skipped: images of either set that cannot be read, of which only the names were compared.
        unread: rows of the test set that cannot be read, which were not compared at all.
        max_hamming_distance: bits in which near-duplicates may differ.
    """

    train_images: int
    test_images: int
    train_texts: int
    test_texts: int
    by_id: tuple[Match, ...]
    by_content: tuple[Match, ...]
    by_near_duplicate: tuple[Match, ...]
    texts: tuple[Match, ...]
    skipped: tuple[Failure, ...]
    max_hamming_distance: int
    unread: tuple[Failure, ...] = ()

    @property
    def images(self) -> tuple[Match, ...]:
        """Each image of the test set that stands in the training set, once, however it was found."""
        found = {match.test: match for match in (*self.by_near_duplicate, *self.by_id, *self.by_content)}
        return tuple(found.values())

    def summary(self) -> str:
        """One sentence with the number and the first few of the images that both sets hold."""
        named = ", ".join(f"{match.test} (in training: {match.train})" for match in self.images[:3])
        more = f" and {len(self.images) - 3} more" if len(self.images) > 3 else ""
        fraction = f"{len(self.images)} of {self.test_images} images of the test set stand in the training set"
        return f"{fraction}: {named}{more}" if self.images else fraction

    def to_json(self) -> dict[str, Any]:
        """Everything, ready for a results file."""
        return {"images": len(self.images), **asdict(self)}


@dataclass(frozen=True)
class _Images:
    """The different images of a set; what was read of those that can be: hashes (P, 4) uint64, colours (P, 48) int16."""

    named: dict[str, str]  # id -> place
    places: list[str]
    contents: list[str]
    hashes: np.ndarray
    colours: np.ndarray
    skipped: list[Failure]


def compare_files(
    pairs: PairFile,
    test: Path,
    split: str = "test",
    max_hamming_distance: int = MAX_HAMMING_DISTANCE,
    max_skipped: float = MAX_SKIPPED,
    **reading: Any,
) -> Leakage:
    """Read a test set and compare it with training pairs; what cannot be read is listed.

    Args:
        pairs: the training set.
        test: pairs, or a folder in BEIR layout; of Karpathy splits val and test are read.
        split: of a BEIR folder.
        max_hamming_distance: see `find_leakage`.
        max_skipped: the fraction of the test set's rows, and of all images, that may be unusable.
        **reading: how the test set is read, see `read_pairs`.

    Raises:
        DataError: if more is.
    """
    tested = read_retrieval_data(test, split, HELD_OUT_SPLITS, **reading)
    console.list_failures(tested.failures)
    console.check_skipped(tested.failures, tested.num_rows, max_skipped)
    count = count_images(pairs, tested)
    with console.progress_bar("comparing images", count) as advance:
        found = find_leakage(pairs, tested, max_hamming_distance, advance)
    console.list_failures(found.skipped)
    console.check_skipped(found.skipped, count, max_skipped)
    return replace(found, unread=tested.failures)


def find_leakage(
    train: PairFile | RetrievalSet,
    test: PairFile | RetrievalSet,
    max_hamming_distance: int = MAX_HAMMING_DISTANCE,
    progress: Callable[[int], None] = lambda count: None,
) -> Leakage:
    """Compare a test set with a training set.

    Args:
        train: pairs, or a retrieval set.
        test: likewise.
        max_hamming_distance: bits of 256 in which the hashes of near-duplicates may differ; 0 finds only equal hashes.
        progress: called with the number of images just read; `count_images` says how many there are.

    Returns:
        What of the test set stands in the training set.

    Raises:
        InputError: if the distance is not of 0 to 64: beyond, different images fall together.
    """
    if not 0 <= max_hamming_distance <= HASH_SIZE**2 // 4:
        raise InputError(f"The Hamming distance must be between 0 and {HASH_SIZE**2 // 4} bits, not {max_hamming_distance}.")
    train_images, test_images = _images(train), _images(test)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        known, tested = (_read(images, pool, progress) for images in (train_images, test_images))
    place_of_content = dict(zip(reversed(known.contents), reversed(known.places), strict=True))  # the first place wins
    by_content = {
        place: Match(place, place_of_content[content])
        for place, content in zip(tested.places, tested.contents, strict=True)
        if content in place_of_content
    }
    train_texts, test_texts = _texts(train), _texts(test)
    return Leakage(
        len(train_images),
        len(test_images),
        len(train_texts),
        len(test_texts),
        tuple(Match(place, known.named[id_]) for id_, place in tested.named.items() if id_ in known.named),
        tuple(by_content.values()),
        tuple(match for match in _near_duplicates(tested, known, max_hamming_distance) if match.test not in by_content),
        tuple(Match(place, train_texts[text]) for text, place in test_texts.items() if text in train_texts),
        (*known.skipped, *tested.skipped),
        max_hamming_distance,
    )


def count_images(*sets: PairFile | RetrievalSet) -> int:
    """How many images `find_leakage` will read.

    Args:
        *sets: training and test set.
    """
    return sum(len(_images(one)) for one in sets)


def _placed(one: PairFile | RetrievalSet) -> Iterator[tuple[str, Item]]:
    """Every item, with the place where it stands."""
    if isinstance(one, RetrievalSet):
        yield from one.corpus.items()
        yield from one.queries.items()
        return
    for number, pair in enumerate(one.pairs):
        for item in (pair.query, *pair.positives, *pair.negatives):
            yield pair.source or f"pair {number}", item


def _images(one: PairFile | RetrievalSet) -> dict[Path | str, tuple[str, Path | Image]]:
    """Each image once: by its path, or by its content if it is open, with its place."""
    found: dict[Path | str, tuple[str, Path | Image]] = {}
    for place, item in _placed(one):
        if isinstance(item.image, Path):
            found.setdefault(item.image, (str(item.image), item.image))
        elif item.image is not None:
            found.setdefault(content_hash(Item(image=item.image)) or place, (place, item.image))
    return found


def _texts(one: PairFile | RetrievalSet) -> dict[str, str]:
    """Each text as it is compared, with its first place."""
    found: dict[str, str] = {}
    for place, item in _placed(one):
        if item.text and (text := normalised(item.text)):
            found.setdefault(text, place)
    return found


def normalised(text: str) -> str:
    """A text as it is compared: no case, no punctuation, single spaces.

    Args:
        text: as it stands in the data.

    >>> normalised("A dog,  running.") == normalised("a dog running")
    True
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(letter if unicodedata.category(letter)[0] not in "PZC" else " " for letter in folded).split())


def image_id(name: str) -> str | None:
    """The id that an image's name says, if it is one by which the image is known elsewhere.

    Args:
        name: a path, or the name of a file.

    >>> image_id("val2014/COCO_val2014_000000391895.jpg") == image_id("000000391895.png")
    True
    >>> image_id("images/0001.png") is None
    True
    """
    stem = Path(name).stem
    for source, known in _KNOWN_NAMES.items():
        if match := known.fullmatch(stem):
            return f"{source} {match[1]}"
    return None


def _read(images: dict[Path | str, tuple[str, Path | Image]], pool: ThreadPoolExecutor, progress: Callable[[int], None]) -> _Images:
    named: dict[str, str] = {}
    places, contents, hashes, colours, skipped = [], [], [], [], []
    for place, _ in images.values():
        if id_ := image_id(place):
            named.setdefault(id_, place)
    listed = list(images.values())
    for (place, _), described in zip(listed, _descriptions([image for _, image in listed], pool), strict=True):
        progress(1)
        if isinstance(described, str):
            skipped.append(Failure(place, described))
            continue
        places.append(place)
        contents.append(described[0])
        hashes.append(described[1])
        colours.append(described[2])
    words, cells = HASH_SIZE**2 // 64, 3 * CELLS**2
    return _Images(
        named,
        places,
        contents,
        np.array(hashes, dtype=np.uint64).reshape(-1, words),
        np.array(colours, dtype=np.int16).reshape(-1, cells),
        skipped,
    )


def _descriptions(images: list[Path | Image], pool: ThreadPoolExecutor) -> Iterator[tuple[str, np.ndarray, np.ndarray] | str]:
    """`describe_image` of each, a few at once: what is waiting when a run is stopped has to be read before it can end."""
    for start in range(0, len(images), PREFETCHED):
        yield from pool.map(describe_image, images[start : start + PREFETCHED])


def describe_image(image: Path | Image) -> tuple[str, np.ndarray, np.ndarray] | str:
    """Hash of the content, perceptual hash (4) and mean colours (48) of an image; the reason if it cannot be read.

    Args:
        image: a path, or an open image.
    """
    import imagehash
    from PIL.Image import Resampling

    try:
        opened = open_image(image)
        content = Item(image=image).content_hash
    except InputError as error:
        return str(error)
    bits = np.packbits(imagehash.phash(opened, HASH_SIZE).hash).view(np.uint64)
    return content, bits, np.asarray(opened.resize((CELLS, CELLS), Resampling.BOX), dtype=np.int16).ravel()


def _near_duplicates(tested: _Images, known: _Images, max_hamming_distance: int) -> Iterator[Match]:
    """For each image of the test set the closest known one that it is a near-duplicate of, if there is one."""
    rows = max(1, BLOCK // max(1, len(known.places)))
    for start in range(0, len(tested.places) if known.places else 0, rows):
        hashes, colours = tested.hashes[start : start + rows], tested.colours[start : start + rows]
        bits = np.zeros((len(hashes), len(known.hashes)), dtype=np.uint16)
        for word in range(hashes.shape[1]):
            bits += np.bitwise_count(hashes[:, word, None] ^ known.hashes[None, :, word])
        near, to = np.nonzero(bits <= max_hamming_distance)
        of_near_colour = np.abs(colours[near] - known.colours[to]).max(axis=1, initial=0) <= COLOUR_GAP
        near, to = near[of_near_colour], to[of_near_colour]
        order = np.lexsort((to, bits[near, to], near))
        closest = order[np.unique(near[order], return_index=True)[1]]
        for row, column in zip(near[closest], to[closest], strict=True):
            yield Match(tested.places[start + row], known.places[column], int(bits[row, column]))
