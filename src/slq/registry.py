"""Things found by name: those of this package, and those that other installed distributions add by an entry point.

A registry is one entry-point group. A distribution adds to it in its own `pyproject.toml`:

    [project.entry-points."slq.losses"]
    my_loss = "my_package.losses:MyLoss"

Names are listed without importing anything; a value is imported when it is first asked for. `SLQ_LOAD_PLUGINS` chooses among the
distributions: unset, all of them; empty, none; else a list separated by commas.
"""

from __future__ import annotations

import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module, metadata
from threading import RLock
from typing import Any, Generic, Literal, TypeVar

from slq.errors import InputError, PluginError, SlqError

T = TypeVar("T")
V = TypeVar("V")
LOAD_PLUGINS = "SLQ_LOAD_PLUGINS"
OWN_DISTRIBUTION = "slq"
ADVICE = f"Update or remove that distribution, or leave it out with {LOAD_PLUGINS}."
LONGEST_REASON = 300  # characters of what a plugin's own code says


@dataclass(frozen=True)
class Plugin:
    """One name of a registry: where it comes from, and the error if it cannot be used."""

    name: str
    distribution: str
    version: str
    group: str
    value: str
    error: str | None = None

    def __str__(self) -> str:
        return f"Plugin {self.name!r} of {self.group}, from {self.distribution} {self.version} ({self.value}),"


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that offers the known name most like a wrong one; empty if none is near.

    Args:
        name: what was given.
        known: what could have been given.
    """
    found = difflib.get_close_matches(name, list(known), n=1)
    return f" Did you mean {found[0]!r}?" if found else ""


def entry_points(group: str) -> list[metadata.EntryPoint]:
    """The entry points of a group that `SLQ_LOAD_PLUGINS` lets in, those of this package left out.

    Args:
        group: such as `slq.losses`.
    """
    return [entry for entry in _installed().select(group=group) if _is_let_in(entry)]


def _installed() -> Any:
    """The entry points of every distribution, read again when a folder of the search path has changed."""
    found = []
    for folder in sys.path:
        with suppress(OSError):
            found.append((folder, os.stat(folder or ".").st_mtime_ns))
    return _entry_points_below(tuple(found))


@lru_cache(maxsize=1)
def _entry_points_below(_path: tuple[tuple[str, int], ...]) -> Any:  # EntryPoints, in Python 3.11 with another class
    """All of them at once: it takes as long to read those of one group, and a command asks for several."""
    return metadata.entry_points()


def all_left_out(groups: Iterable[str]) -> list[str]:
    """Names and versions of the distributions that add to any of these groups, and that `SLQ_LOAD_PLUGINS` leaves out.

    Args:
        groups: such as `slq.losses`.
    """
    entries = [entry for group in groups for entry in _installed().select(group=group)]
    owners = [_distribution(entry) for entry in entries if not _is_let_in(entry)]
    return sorted({" ".join(owner) for owner in owners if _normalised(owner[0]) != OWN_DISTRIBUTION})


def plugin_of(group: str, name: str) -> Plugin | None:
    """The plugin that adds a name to a group; None where this package does, or nobody. Imports nothing.

    Args:
        group: such as `slq.losses`.
        name: one of its names.
    """
    return next((_plugin(entry, group) for entry in entry_points(group) if entry.name == name), None)


def left_out(group: str, name: str) -> str:
    """A sentence that says which distribution adds a name, where `SLQ_LOAD_PLUGINS` leaves that one out; else empty.

    Args:
        group: such as `slq.losses`.
        name: what was given.
    """
    for entry in _installed().select(group=group, name=name):
        if not _is_let_in(entry):
            variable = f"{LOAD_PLUGINS}={os.environ.get(LOAD_PLUGINS)!r}"
            return f"{' '.join(_distribution(entry))} adds it, but {variable} leaves that out: name it there, or unset the variable."
    return ""


def how_to_get(group: str, name: str, known: Iterable[str], recorded: str = "") -> str:
    """Sentences on what to do about a name that a group lacks, to be put behind what was wrong.

    Args:
        group: such as `slq.losses`.
        name: what was given.
        known: the names that there are.
        recorded: the distribution that a file names as the one that added it; empty where no file does.
    """
    if where := left_out(group, name):
        return f" {where}"
    if recorded:
        return f" It came from {recorded}: install that distribution."
    near = nearest(name, known)
    return f"{near} {'Else install' if near else 'Install'} the distribution that adds it to {group}."


def unknown_name(group: str, name: str, known: Iterable[str], recorded: str = "") -> str:
    """The message about a name that a group lacks: what there is, and how to get it; see `how_to_get`.

    Args:
        group: such as `slq.losses`.
        name: what was given.
        known: the names that there are.
        recorded: the distribution that a file names as the one that added it; empty where no file does.
    """
    known = sorted(known)
    there_is = f"choose one of {', '.join(known)}" if known else "it has none"
    return f"Unknown name {name[:LONGEST_REASON]!r} in {group}: {there_is}.{how_to_get(group, name, known, recorded)}"


class Registry(Generic[T]):
    """Values of one kind by name.

    Args:
        group: the entry-point group, such as `slq.losses`.
        protocol: a class whose public methods every value must have; a value without them is refused by name.
        builtins: values of this package that are imported when asked for, as `module:attribute`.
        of: `class` where objects are made of a value, `object` where it is used as it is; None where either will do.
        check: what else is wrong with a plugin's value of a name, in words that go on from the plugin ("has no title"); empty if nothing.

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

    def __init__(
        self,
        group: str,
        protocol: type | None = None,
        *,
        builtins: Mapping[str, str] | None = None,
        of: Literal["class", "object"] | None = None,
        check: Callable[[str, Any], str] = lambda name, value: "",
    ):
        self.group = group
        self._protocol, self._of, self._check = protocol, of, check
        self._builtins = dict(builtins or {})
        self._registered: dict[str, T] = {}
        self._loaded: dict[tuple[str, str], T] = {}
        self._found: tuple[Any, dict[str, list[metadata.EntryPoint]]] | None = None
        self._lock = RLock()

    def register(self, name: str) -> Callable[[V], V]:
        """Decorate a value of this package to be found under a name.

        Args:
            name: what a user writes.

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

        Args:
            name: one of `names()`.

        Raises:
            InputError: if there is no such name; says what there is, and how to get another.
            PluginError: if what the name stands for cannot be imported, is not what the group asks for, or comes from two distributions.
        """
        with self._lock:
            entries = self._plugins().get(name, [])
            own = name in self._builtins or name in self._registered
            if not entries and not own:
                raise InputError(unknown_name(self.group, name, self.names()))
            if len(entries) + own > 1:
                raise PluginError(self._taken_twice(name, entries, own))
            if name in self._registered:
                return self._registered[name]
            value = entries[0].value if entries else self._builtins[name]
            if (name, value) not in self._loaded:
                self._loaded[name, value] = self._load(name, value, entries[0] if entries else None)
            return self._loaded[name, value]

    @contextmanager
    def naming_plugin(self, value: object) -> Iterator[None]:
        """Name the plugin in what its own code raises; errors of this package, and those of its own values, pass as they are.

        Args:
            value: what `get` gave, or an object of the class that it gave.

        Raises:
            PluginError: with what was raised as its cause.
        """
        try:
            yield
        except SlqError:
            raise
        except Exception as error:
            plugin = self.origin(value)
            if plugin is None:
                raise
            raise PluginError(f"{plugin} raised {_reason(error)}. {ADVICE} --verbose shows the traceback.") from error

    def origin(self, value: object) -> Plugin | None:
        """The plugin that a value comes from; None for those of this package.

        Args:
            value: what `get` gave, or an object of the class that it gave.
        """
        for (name, _), loaded in tuple(self._loaded.items()):  # which another thread may add to
            if loaded is value or loaded is type(value):
                return next((_plugin(entry, self.group) for entry in self._plugins().get(name, [])), None)
        return None

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
        who = _plugin(entry, self.group)
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as error:  # a module that ends the program when it is imported must not end ours
            raise PluginError(f"{who} cannot be imported: {_reason(error)}. {ADVICE}") from error
        try:
            fault = self._fault(name, loaded)
        except Exception as error:  # of a property, such as a benchmark's info
            raise PluginError(f"{who} cannot be used: it raised {_reason(error)}. {ADVICE}") from error
        if fault:
            raise PluginError(f"{who} {fault}. {ADVICE}")
        return loaded

    def _fault(self, name: str, value: Any) -> str:
        """What is wrong with a plugin's value, in words that go on from the plugin; empty if nothing."""
        if self._of == "object" and isinstance(value, type):
            return f"is a class, and {self.group} asks for an object: make one in that module, and name it in the entry point"
        if lacking := [member for member in _members(self._protocol) if not hasattr(value, member)]:
            return f"lacks {', '.join(lacking)}"
        if self._of == "class" and not isinstance(value, type):
            return f"is an object of {type(value).__name__}, and {self.group} asks for a class: name the class itself in the entry point"
        return self._check(name, value)

    def _taken_twice(self, name: str, entries: list[metadata.EntryPoint], own: bool) -> str:
        owners = [*([OWN_DISTRIBUTION] if own else []), *[_distribution(entry)[0] for entry in entries]]
        return f"{name!r} of {self.group} is taken by {' and by '.join(owners)}: leave one of them out with {LOAD_PLUGINS}, or remove it."


def _members(protocol: type | None) -> list[str]:
    """The methods and attributes that a protocol asks for."""
    members = {} if protocol is None else vars(protocol)
    methods = [name for name, member in members.items() if callable(member) and (not name.startswith("_") or name == "__call__")]
    return [*inspect.get_annotations(protocol), *methods] if protocol else []


def _reason(error: BaseException) -> str:
    """What an error is and the first line that it says."""
    said = str(error).strip().split("\n")[0].rstrip(".")
    return (f"{type(error).__name__}: {said}" if said else type(error).__name__)[:LONGEST_REASON]


def _path_of(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}:{getattr(value, '__qualname__', '')}"


def _plugin(entry: metadata.EntryPoint, group: str) -> Plugin:
    return Plugin(entry.name, *_distribution(entry), group, entry.value)


def _distribution(entry: metadata.EntryPoint) -> tuple[str, str]:
    """Name and version of the distribution that an entry point is of, as far as its metadata hold them."""
    told: Any = {} if entry.dist is None else entry.dist.metadata
    return told.get("Name") or "unknown", told.get("Version") or "unknown"


def _is_let_in(entry: metadata.EntryPoint) -> bool:
    """Whether an entry point is of another distribution than this one, and of those that the environment chooses."""
    chosen = os.environ.get(LOAD_PLUGINS)
    distribution = _normalised(_distribution(entry)[0])
    allowed = None if chosen is None else {_normalised(name) for name in chosen.split(",") if name.strip()}
    return distribution != OWN_DISTRIBUTION and (allowed is None or distribution in allowed)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()
