"""Things found by name: those of this package, and those that other installed distributions add by an entry point.

A registry is one entry-point group. A distribution adds to it in its own `pyproject.toml`:

    [project.entry-points."slq.losses"]
    my_loss = "my_package.losses:MyLoss"

Names are listed without importing anything; a value is imported when it is first asked for. `SLQ_LOAD_PLUGINS` chooses among the
distributions: unset, all of them; empty, none; else a list separated by commas.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from threading import RLock
from typing import Any, Generic, TypeVar

from slq.errors import InputError, PluginError

T = TypeVar("T")
V = TypeVar("V")
LOAD_PLUGINS = "SLQ_LOAD_PLUGINS"
OWN_DISTRIBUTION = "slq"


@dataclass(frozen=True)
class Plugin:
    """One name of a registry: where it comes from, and the error if it cannot be used."""

    name: str
    distribution: str
    version: str
    group: str
    value: str
    error: str | None = None


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name most like a wrong one; empty if none is near."""
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """The entry points of a group that `SLQ_LOAD_PLUGINS` lets in, those of this package left out."""
    chosen = os.environ.get(LOAD_PLUGINS)
    if chosen == "":
        return []
    allowed = None if chosen is None else {_normalised(name) for name in chosen.split(",") if name.strip()}
    found = []
    for entry in metadata.entry_points(group=group):
        distribution = _normalised(_distribution(entry)[0])
        if distribution != OWN_DISTRIBUTION and (allowed is None or distribution in allowed):
            found.append(entry)
    return found


class Registry(Generic[T]):
    """Values of one kind by name.

    Args:
        group: the entry-point group, such as `slq.losses`.
        protocol: a class whose public methods every value must have; a value without them is refused by name.
        builtins: values of this package that are imported when asked for, as `module:attribute`.

    Example:
        >>> colours = Registry("example.colours", builtins={"tau": "math:tau"})
        >>> @colours.register("red")
        ... def red():
        ...     return "#f00"
        >>> colours.names()
        ('red', 'tau')
        >>> round(colours.get("tau"), 2)
        6.28
    """

    def __init__(self, group: str, protocol: type | None = None, *, builtins: Mapping[str, str] | None = None):
        self.group = group
        self._protocol = protocol
        self._builtins = dict(builtins or {})
        self._registered: dict[str, T] = {}
        self._loaded: dict[tuple[str, str], T] = {}
        self._found: tuple[Any, dict[str, list[metadata.EntryPoint]]] | None = None
        self._lock = RLock()

    def register(self, name: str) -> Callable[[V], V]:
        """Decorate a value of this package to be found under a name.

        Raises:
            PluginError: if the name is taken by another value of this package.
        """

        def add(value: V) -> V:
            with self._lock:
                taken = self._registered.get(name, value) is not value
                if taken or (name in self._builtins and self._builtins[name] != _path_of(value)):
                    raise PluginError(f"{name!r} of {self.group} is taken twice in {OWN_DISTRIBUTION}: choose another name for {value!r}.")
                self._registered[name] = value  # type: ignore[assignment]
            return value

        return add

    def names(self) -> tuple[str, ...]:
        """Every name in alphabetical order; imports nothing."""
        return tuple(sorted({*self._builtins, *self._registered, *self._plugins()}))

    def __contains__(self, name: object) -> bool:
        return name in self._builtins or name in self._registered or name in self._plugins()

    def get(self, name: str) -> T:
        """The value of a name.

        Raises:
            InputError: if there is no such name; offers the nearest one.
            PluginError: if what the name stands for cannot be imported, lacks a method, or comes from two distributions.
        """
        with self._lock:
            entries = self._plugins().get(name, [])
            own = name in self._builtins or name in self._registered
            if not entries and not own:
                known = self.names()
                raise InputError(f"Unknown name {name!r} in {self.group}: choose one of {', '.join(known)}.{nearest(name, known)}")
            if len(entries) + own > 1:
                raise PluginError(self._taken_twice(name, entries, own))
            if name in self._registered:
                return self._registered[name]
            value = entries[0].value if entries else self._builtins[name]
            if (name, value) not in self._loaded:
                self._loaded[name, value] = self._load(name, value, entries[0] if entries else None)
            return self._loaded[name, value]

    def plugins(self) -> tuple[Plugin, ...]:
        """What other distributions add, each with the error if it cannot be used; imports all of them."""
        return tuple(self._describe(entry) for _, entries in sorted(self._plugins().items()) for entry in entries)

    def entries(self) -> tuple[Plugin, ...]:
        """What other distributions add; imports nothing."""
        return tuple(_plugin(entry, self.group) for _, entries in sorted(self._plugins().items()) for entry in entries)

    def _describe(self, entry: metadata.EntryPoint) -> Plugin:
        error = None
        try:
            self.get(entry.name)
        except PluginError as problem:
            error = str(problem)
        return replace(_plugin(entry, self.group), error=error)

    def _plugins(self) -> dict[str, list[metadata.EntryPoint]]:
        """Entry points by name, looked up again when the search path or the choice of distributions has changed."""
        state = (os.environ.get(LOAD_PLUGINS), tuple(sys.path))
        with self._lock:
            if self._found is None or self._found[0] != state:
                found: dict[str, list[metadata.EntryPoint]] = {}
                for entry in entry_points(self.group):
                    found.setdefault(entry.name, []).append(entry)
                self._found = (state, found)
            return self._found[1]

    def _load(self, name: str, value: str, entry: metadata.EntryPoint | None) -> T:
        """Import one value; whatever a plugin's own code raises becomes a PluginError that names it."""
        if entry is None:
            module, _, attribute = value.partition(":")
            return getattr(import_module(module), attribute)
        who = f"Plugin {name!r} of {self.group}, from {' '.join(_distribution(entry))} ({value})"
        advice = f"Update or remove that distribution, or leave it out with {LOAD_PLUGINS}."
        try:
            loaded = entry.load()
        except Exception as error:
            raise PluginError(f"{who}, cannot be imported: {type(error).__name__}: {error}. {advice}") from error
        if lacking := [method for method in _methods(self._protocol) if not hasattr(loaded, method)]:
            raise PluginError(f"{who}, lacks {', '.join(lacking)}. {advice}")
        return loaded

    def _taken_twice(self, name: str, entries: list[metadata.EntryPoint], own: bool) -> str:
        owners = [*([OWN_DISTRIBUTION] if own else []), *[_distribution(entry)[0] for entry in entries]]
        return f"{name!r} of {self.group} is taken by {' and by '.join(owners)}: leave one of them out with {LOAD_PLUGINS}, or remove it."


def _methods(protocol: type | None) -> list[str]:
    """The methods that a protocol asks for."""
    members = {} if protocol is None else vars(protocol)
    return [name for name, member in members.items() if callable(member) and (not name.startswith("_") or name == "__call__")]


def _path_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"


def _plugin(entry: metadata.EntryPoint, group: str) -> Plugin:
    return Plugin(entry.name, *_distribution(entry), group, entry.value)


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point is of."""
    return ("unknown", "unknown") if entry.dist is None else (entry.dist.name, entry.dist.version)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
