"""Every error this package raises on purpose, as one tree.

    SlqError (1, 500)
    ├── InputError (1, 400)   something handed in is wrong (also a ValueError)
    │   ├── ImageError        an image is missing, broken, too large or not an image
    │   ├── TextError         a text is empty or cannot be used
    │   ├── DataError         a data file is missing, or a line or column of it is wrong
    │   ├── ConfigError (2, 400)  an option or a key of a config file is wrong
    │   └── BadItemsError     some items of a batch are wrong; lists each with its place and reason
    ├── AdapterError (1, 422) an adapter cannot be read
    │   └── FingerprintMismatchError (1, 409)  an adapter or saved embeddings belong to another model, template or shape
    ├── ModelError (1, 422)   a model cannot be loaded or lacks what is needed
    ├── TrainingError (1, 500)  a training run cannot go on
    │   ├── NonFiniteLossError    the loss or its gradient is no finite number any more
    │   └── ResumeMismatchError   a run is resumed with other data, another order of it, or other options
    ├── OutputError (1, 507)  a result cannot be written
    │   ├── OutputExistsError (1, 409)  the output folder holds something already
    │   └── DiskFullError     there is no room left
    ├── StoreError (1, 503)   a store cannot be opened or used
    │   ├── StoreCorruptError its files are damaged
    │   └── StoreLockedError  another process writes to it
    ├── PluginError (1, 500)  an installed extension cannot be used; names its distribution, group and name
    └── MissingExtraError (1, 501)  an optional dependency is not installed; names the command that installs it

In brackets: the exit code of the command line and the status of an HTTP answer; classes without take those of the class above.
A message is one or two sentences: what is wrong, where, and what to do. It holds at most 300 characters of what a user handed in; see
`shorten`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

MOST_SHOWN = 200  # characters of one thing that a user handed in, such as a text, an id or a path
LONGEST_MESSAGE, REST_OF_MESSAGE = 700, 300  # a message beyond the first can only be a user's data, and is cut to the second


def shorten(text: object, most: int = MOST_SHOWN) -> str:
    """A text as a message shows it: without its middle where it is long.

    Args:
        text: what a user handed in, or its `repr`; anything but a str is shown as its `str`.
        most: characters of the result, at most.

    Example:
        >>> shorten("a cat " * 1000, most=20)
        'a cat a  ...  a cat '
    """
    whole = text if isinstance(text, str) else str(text)
    if len(whole) <= most:
        return whole
    begin = (most - 4) // 2
    return f"{whole[:begin]} ... {whole[len(whole) - (most - begin - 5) :]}"


class SlqError(Exception):
    """Base of all errors of this package; the CLI prints its message without a traceback."""

    exit_code: ClassVar[int] = 1  # of the command line
    http_status: ClassVar[int] = 500  # of a server's answer
    longest_message: ClassVar[int] = LONGEST_MESSAGE

    def __init__(self, message: str = "", *more: object):
        whole = str(message)
        super().__init__(shorten(whole, REST_OF_MESSAGE) if len(whole) > self.longest_message else message, *more)


class InputError(SlqError, ValueError):
    """Something handed in is wrong."""

    http_status = 400


class ImageError(InputError):
    """An image is missing, broken, too large or not an image."""


class TextError(InputError):
    """A text is empty or cannot be used."""


class DataError(InputError):
    """A data file is missing, or a line or column of it is wrong."""


class ConfigError(InputError):
    """An option or a key of a config file is wrong."""

    exit_code = 2


@dataclass(frozen=True)
class Failure:
    """One item that could not be used: its place in the batch or its id, and why."""

    item: str
    reason: str

    def __str__(self) -> str:
        return f"{shorten(self.item)}: {shorten(self.reason, LONGEST_MESSAGE)}"


class BadItemsError(InputError):
    """Some items of a batch are wrong; `failures` lists each with its place and reason."""

    longest_message = 5 * LONGEST_MESSAGE

    def __init__(self, failures: Sequence[Failure]):
        self.failures = tuple(failures)
        shown = "; ".join(shorten(str(failure), MOST_SHOWN + 100) for failure in self.failures[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        super().__init__(f"{len(self.failures)} item(s) cannot be embedded: {shown}{more}")


class AdapterError(SlqError):
    """An adapter cannot be read."""

    http_status = 422


class FingerprintMismatchError(AdapterError):
    """An adapter or saved embeddings belong to another model, template or shape."""

    http_status = 409


class ModelError(SlqError):
    """A model cannot be loaded or lacks what is needed."""

    http_status = 422


class TrainingError(SlqError):
    """A training run cannot go on."""


class NonFiniteLossError(TrainingError):
    """The loss or its gradient is no finite number any more."""


class ResumeMismatchError(TrainingError):
    """A run is to be resumed with other data, another order of it, or other options."""


class OutputError(SlqError):
    """A result cannot be written."""

    http_status = 507


class OutputExistsError(OutputError):
    """The output folder holds something already."""

    http_status = 409


class DiskFullError(OutputError):
    """There is no room left on the disk."""


class StoreError(SlqError):
    """A store cannot be opened or used."""

    http_status = 503


class StoreCorruptError(StoreError):
    """A store's files are damaged."""


class StoreLockedError(StoreError):
    """Another process writes to the store."""


class PluginError(SlqError):
    """An installed extension cannot be used; the message names its distribution, group and name."""


class MissingExtraError(SlqError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""

    http_status = 501
