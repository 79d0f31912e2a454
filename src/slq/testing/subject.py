"""The plugin that a contract is tried on: every fault of it is an AssertionError that names it, what is asked, and what it did."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

LONGEST = 300  # characters of what a plugin says or gives


class Subject:
    """A plugin under its contract.

    Args:
        kind: what it is, such as `loss`.
        plugin: the class, function or object that is registered.
        name: what to call it; by default where it is, `module:name`.
    """

    def __init__(self, kind: str, plugin: object, name: str | None = None):
        self.name = f"The {kind} {name or path_of(plugin)}"

    def must(self, asked: str, holds: object, did: str) -> None:
        """Ask for something.

        Args:
            asked: what the contract asks, as it goes on from `must`.
            holds: whether it is so.
            did: what the plugin is or did instead, as it goes on from `it`.

        Raises:
            AssertionError: if it is not so.
        """
        if not holds:
            raise AssertionError(f"{self.name} must {asked}; it {did}.")

    def is_free_of(self, fault: str) -> None:
        """Ask for what a registry asks.

        Args:
            fault: what it found, as it goes on from the plugin; empty if nothing.

        Raises:
            AssertionError: if it found something.
        """
        if fault:
            raise AssertionError(f"{self.name} {fault}.")

    @contextmanager
    def trying(self, asked: str) -> Iterator[None]:
        """Run the plugin's own code.

        Args:
            asked: what it is to do there, as it goes on from `must`.

        Raises:
            AssertionError: if it raises anything, with that as its cause.
        """
        try:
            yield
        except AssertionError as error:
            if str(error).startswith(self.name):
                raise
            raise AssertionError(f"{self.name} must {asked}; it raised {said(error)}.") from error
        except Exception as error:
            raise AssertionError(f"{self.name} must {asked}; it raised {said(error)}.") from error

    def made(self, make: Callable[[], Any], *members: str) -> Any:
        """What a class, or a function that makes one, gives without arguments.

        Args:
            make: the class or function.
            *members: methods that the object must have.

        Raises:
            AssertionError: if it cannot be made, or lacks a method.
        """
        is_maker = isinstance(make, (type, partial)) or inspect.isroutine(make)
        self.must("be given as its class, or a function that makes one", is_maker, f"is an object of {type(make).__name__}")
        with self.trying("be made without arguments"):
            made = make()
        self.has(made, *members)
        return made

    def has(self, made: object, *members: str) -> None:
        """Ask for methods and attributes.

        Args:
            made: the object.
            *members: their names.

        Raises:
            AssertionError: if one is not there.
        """
        lacking = ", ".join(name for name in members if not hasattr(made, name))
        self.must(f"have {', '.join(members)}", not lacking, f"lacks {lacking}")


def path_of(plugin: object) -> str:
    """Where a plugin is, `module:name`; of an object where its class is.

    Args:
        plugin: a class, function or object.
    """
    if isinstance(plugin, partial):
        return path_of(plugin.func)
    named = plugin if hasattr(plugin, "__qualname__") else type(plugin)
    return f"{named.__module__}:{getattr(named, '__qualname__', named)}"


def shown(value: object) -> str:
    """A value as messages show it: of a tensor shape and type, else its beginning.

    Args:
        value: what a plugin gave.
    """
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"a {type(value).__name__} of shape {tuple(value.shape)} and type {str(value.dtype).removeprefix('torch.')}"
    return f"{value!r:.{LONGEST}} ({type(value).__name__})"


def said(error: BaseException) -> str:
    """An error and the first line that it says.

    Args:
        error: what was raised.
    """
    first = str(error).strip().split("\n")[0].rstrip(".")
    return (f"{type(error).__name__}: {first}" if first else type(error).__name__)[:LONGEST]
