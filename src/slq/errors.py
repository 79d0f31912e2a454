"""Every error this package raises on purpose, as one tree.

    SlqError
    ├── InputError            something handed in is wrong (also a ValueError)
    │   ├── ImageError        an image is missing, broken, too large or not an image
    │   ├── TextError         a text is empty or cannot be used
    │   ├── DataError         a data file is missing, or a line or column of it is wrong
    │   ├── ConfigError       an option or a key of a config file is wrong
    │   └── BadItemsError     some items of a batch are wrong; lists each with its place and reason
    ├── AdapterError          an adapter cannot be read
    │   └── FingerprintMismatchError  an adapter or saved embeddings belong to another model, template or shape
    ├── ModelError            a model cannot be loaded or lacks what is needed
    ├── OutputError           a result cannot be written
    │   ├── OutputExistsError the output folder holds something already
    │   └── DiskFullError     there is no room left
    ├── StoreError            a store cannot be opened or used
    │   ├── StoreCorruptError its files are damaged
    │   └── StoreLockedError  another process writes to it
    ├── PluginError           an installed extension cannot be used; names its distribution, group and name
    └── MissingExtraError     an optional dependency is not installed; names the command that installs it

A message is one or two sentences: what is wrong, where, and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class SlqError(Exception):
    """Base of all errors of this package; the CLI prints its message without a traceback."""


class InputError(SlqError, ValueError):
    """Something handed in is wrong."""


class ImageError(InputError):
    """An image is missing, broken, too large or not an image."""


class TextError(InputError):
    """A text is empty or cannot be used."""


class DataError(InputError):
    """A data file is missing, or a line or column of it is wrong."""


class ConfigError(InputError):
    """An option or a key of a config file is wrong."""


@dataclass(frozen=True)
class Failure:
    """One item that could not be used: its place in the batch or its id, and why."""

    item: str
    reason: str

    def __str__(self) -> str:
        return f"{self.item}: {self.reason}"


class BadItemsError(InputError):
    """Some items of a batch are wrong; `failures` lists each with its place and reason."""

    def __init__(self, failures: Sequence[Failure]):
        self.failures = tuple(failures)
        shown = "; ".join(str(failure) for failure in self.failures[:5])
        more = f"; and {len(self.failures) - 5} more" if len(self.failures) > 5 else ""
        super().__init__(f"{len(self.failures)} item(s) cannot be embedded: {shown}{more}")


class AdapterError(SlqError):
    """An adapter cannot be read."""


class FingerprintMismatchError(AdapterError):
    """An adapter or saved embeddings belong to another model, template or shape."""


class ModelError(SlqError):
    """A model cannot be loaded or lacks what is needed."""


class OutputError(SlqError):
    """A result cannot be written."""


class OutputExistsError(OutputError):
    """The output folder holds something already."""


class DiskFullError(OutputError):
    """There is no room left on the disk."""


class StoreError(SlqError):
    """A store cannot be opened or used."""


class StoreCorruptError(StoreError):
    """A store's files are damaged."""


class StoreLockedError(StoreError):
    """Another process writes to the store."""


class PluginError(SlqError):
    """An installed extension cannot be used; the message names its distribution, group and name."""


class MissingExtraError(SlqError, ImportError):
    """An optional dependency is not installed; the message names the command that installs it."""
