"""Which pairs can be trained on: every item is opened once beforehand, so that a bad one cannot stop a run half-way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from slq.errors import Failure, InputError
from slq.models import FrozenModel
from slq.types import Item, Pair

Shape = tuple[int, int, str]  # width and height in pixels, and mode of an image as the processor gets it


@dataclass(frozen=True)
class Skipped:
    """One item that cannot be trained on.

    Attributes:
        id: which item of which pair.
        reason: why, in a sentence.
        source: where the pair was read; empty if it was read nowhere.
    """

    id: str
    reason: str
    source: str

    @property
    def failure(self) -> Failure:
        """The same, as messages list it."""
        return Failure(self.source or self.id, self.reason)


def screen_pairs(
    pairs: Sequence[Pair], model: FrozenModel, progress: Callable[[int], None] = lambda count: None
) -> tuple[list[Pair], list[Skipped]]:
    """Leave out the items that cannot be encoded.

    A bad positive or negative goes alone, as long as a positive is left; a bad query takes its pair along.

    Args:
        pairs: all pairs.
        model: what is to read them.
        progress: called with 1 after each pair.

    Returns:
        The pairs without their bad items, and each bad item once.
    """
    reasons: dict[str, str] = {}
    of_shape: dict[Shape, str] = {}
    skipped: list[Skipped] = []
    screened: list[Pair] = []

    def is_good(item: Item, called: str, pair: Pair) -> bool:
        key = _key(item)
        if key not in reasons:
            reasons[key] = _fault(item, model, of_shape)
            if reasons[key]:
                skipped.append(Skipped(called, reasons[key], pair.source))
        return not reasons[key]

    for number, pair in enumerate(pairs):
        kinds = {"positive": pair.positives, "negative": pair.negatives}
        good = {
            kind: tuple(item for place, item in enumerate(items) if is_good(item, f"pair {number}, {kind} {place}", pair))
            for kind, items in kinds.items()
        }
        if is_good(pair.query, f"pair {number}, query", pair) and good["positive"]:
            screened.append(replace(pair, positives=good["positive"], negatives=good["negative"]))
        progress(1)
    return screened, skipped


def _key(item: Item) -> str:
    """The item's content, or what stands for it where that cannot be read."""
    try:
        return item.content_hash
    except Exception:  # whatever is wrong with it is told when it is opened
        return repr((item.text, item.image))


def _fault(item: Item, model: FrozenModel, of_shape: dict[Shape, str]) -> str:
    """Why an item cannot be encoded; empty if it can.

    What a processor refuses of an image goes by its shape: it is asked once for each, and its answer noted in `of_shape`. It is asked
    about the image alone, so that no other image is left out for a text.
    """
    try:
        message = model.message(item)
    except InputError as error:
        return str(error)
    shapes = [(*part["image"].size, part["image"].mode) for part in message["content"] if part["type"] == "image"]
    for shape in shapes:
        if shape not in of_shape:
            of_shape[shape] = ""
            try:
                model.prepare([replace(item, text=None)])
            except InputError as error:
                of_shape[shape] = str(error)
    return next(filter(None, map(of_shape.__getitem__, shapes)), "")
