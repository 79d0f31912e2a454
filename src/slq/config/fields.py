"""Options as fields of dataclasses: one field is a flag, a key of a config file, a keyword in Python and a line of the reference page."""

from __future__ import annotations

import hashlib
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from slq.errors import ConfigError
from slq.registry import entry_points, how_to_get, nearest

C = TypeVar("C")
_KEY = "slq"  # under which a dataclass field's metadata holds the Option


@dataclass(frozen=True)
class NamedOptions:
    """Something found by name with options of its own, written `NAME` or `NAME:key=value,key=value`.

    Example:
        >>> NamedOptions.parse("orthogonality:weight=0.01")
        NamedOptions(name='orthogonality', options={'weight': 0.01})
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> NamedOptions:
        """Read the written form; numbers, `true` and `false` become values, everything else stays text.

        Args:
            text: `NAME` or `NAME:key=value,key=value`.

        Raises:
            ConfigError: if a part is no `key=value`.
        """
        name, colon, rest = text.partition(":")
        options: dict[str, Any] = {}
        for part in rest.split(",") if colon else ():
            key, equals, value = part.partition("=")
            if not (equals and key.strip().isidentifier() and value.strip()):
                raise ConfigError(f"{text!r} is not NAME:key=value,key=value: {part!r} has no key, no = or no value.")
            options[key.strip()] = _parse_value(value.strip())
        if not name.strip():
            raise ConfigError(f"{text!r} has no name: write NAME or NAME:key=value.")
        return cls(name.strip(), options)

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> NamedOptions:
        """The form of a config file: a table with a `name` and the options beside it.

        Args:
            table: what a file holds.

        Raises:
            ConfigError: if it has no name.
        """
        if not isinstance(table.get("name"), str):
            raise ConfigError(f'{dict(table)} has no name: write {{ name = "..." }} with the options beside it.')
        return cls(table["name"], {key: value for key, value in table.items() if key != "name"})

    def to_dict(self) -> dict[str, Any]:
        """The form of a config file; `from_dict` reads it."""
        return {"name": self.name, **self.options}

    def __str__(self) -> str:
        parts = ",".join(f"{key}={str(value).lower() if isinstance(value, bool) else value}" for key, value in self.options.items())
        return f"{self.name}:{parts}" if parts else self.name


@dataclass(frozen=True)
class Option:
    """What is known about a field apart from its type: how it is shown, and which values it may have.

    Attributes:
        help: one or two sentences for `--help` and the reference page.
        choices: the names that are allowed; empty where any value of the type is.
        plugin_group: entry points of this group are choices too, such as `slq.losses`.
        minimum: the smallest number that is allowed.
        above: numbers must be larger than this.
        maximum: the largest number that is allowed.
        below: numbers must be smaller than this.
        panel: the heading that it stands under in `--help`.
        flags: in place of `--field-name`, the long name first: `("--model", "-m")`.
        default_text: what None stands for, as one reads it.
        environment: a variable that gives the value where neither a flag nor a file does.
        affects_result: whether it changes any number of the result; only those that do are recorded with it, and compared on resuming.
        recorded: whether it stands in the `config.toml` that repeats a run.
        explicit: whether a config file that merely lies in the working folder may not set it.
        positional: whether it is given by its place on the command line, without a flag.
        required: on the command line; in Python the call that uses it says so.
        model_reference: whether it names a model, by a folder or a name on the hub.
        name: of the field; `options_of` fills it in, like the two below.
        type: of the field: bool, int, float, str, Path, NamedOptions, or a tuple of one of them, or None beside it.
        default: of the field.
    """

    help: str
    choices: tuple[str, ...] = ()
    plugin_group: str | None = None
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None
    panel: str = "Options"
    flags: tuple[str, ...] = ()
    default_text: str | None = None
    environment: str | None = None
    affects_result: bool = True
    recorded: bool = True
    explicit: bool = False
    positional: bool = False
    required: bool = False
    model_reference: bool = False
    name: str = ""
    type: Any = None
    default: Any = None

    @property
    def flag(self) -> str:
        """The flag's long name."""
        return self.flags[0] if self.flags else "--" + self.name.replace("_", "-")

    @property
    def known_choices(self) -> tuple[str, ...]:
        """The allowed names, with those that plugins add; imports no plugin."""
        added = {entry.name for entry in entry_points(self.plugin_group)} if self.plugin_group else set()
        return (*self.choices, *sorted(added - set(self.choices)))

    @property
    def bounds(self) -> str:
        """The allowed range as a phrase, such as `at least 1`; empty if there is none."""
        named = (("at least", self.minimum), ("above", self.above), ("at most", self.maximum), ("below", self.below))
        return ", ".join(f"{word} {bound:g}" for word, bound in named if bound is not None)

    def allows(self, number: float) -> bool:
        """Whether a number lies in the range; NaN never does.

        Args:
            number: what was given.
        """
        return (
            number == number
            and (self.minimum is None or number >= self.minimum)
            and (self.above is None or number > self.above)
            and (self.maximum is None or number <= self.maximum)
            and (self.below is None or number < self.below)
        )


def option(default: Any, *, help: str, **about: Any) -> Any:
    """A dataclass field that is an option.

    Args:
        default: its default; a tuple where it may be given several times, None where `default_text` says what holds instead.
        help: one or two sentences for `--help` and the reference page.
        **about: the other attributes of `Option`, such as `choices`, `minimum` and `panel`.

    Example:
        >>> @dataclass(frozen=True)
        ... class Example:
        ...     epochs: int = option(5, help="Passes over the pairs.", minimum=1)
        >>> validate(Example(epochs=0))
        Traceback (most recent call last):
        ...
        slq.errors.ConfigError: epochs must be at least 1, not 0.
    """
    return field(default=default, metadata={"help": help, _KEY: Option(help, **about)})


def options_of(config: type) -> Mapping[str, Option]:
    """The options of a config class by the names of their fields, in the order in which they are declared.

    Args:
        config: a dataclass whose fields are all made by `option`.
    """
    hashable: Any = config  # mypy takes classes for unhashable where their instances are
    return _options_of(hashable)


@cache
def _options_of(config: Any) -> Mapping[str, Option]:
    hints = get_type_hints(config)
    found = {}
    for each in fields(config):
        told: Option = each.metadata[_KEY]
        default = each.default if each.default is not MISSING else None
        found[each.name] = Option(**{**vars(told), "name": each.name, "type": hints[each.name], "default": default})
    return types.MappingProxyType(found)


def validate(config: Any) -> None:
    """Check every field of a config, after turning lists into tuples and names of files into paths.

    Args:
        config: an object of such a dataclass, from its `__post_init__`.

    Raises:
        ConfigError: naming the field, its value, and what is allowed.
    """
    for name, each in options_of(type(config)).items():
        object.__setattr__(config, name, checked(each, getattr(config, name)))


def checked(option: Option, value: Any, called: str | None = None) -> Any:
    """A value as the field's type has it, if it is allowed.

    Args:
        option: the field.
        value: a list may stand for a tuple, text for a path, a whole number for a float.
        called: what messages call the field, such as its flag; by default its name.

    Raises:
        ConfigError: if it is of another type, not one of the choices, or out of range.
    """
    called = called or option.name
    allowed = get_args(option.type) if _is_union(option.type) else (option.type,)
    if value is None and type(None) in allowed:
        return None
    wanted = next(each for each in allowed if each is not type(None))
    if get_origin(wanted) is not tuple:
        return _checked_one(option, value, wanted, called)
    parts = value if isinstance(value, Sequence) and not isinstance(value, str) else (value,)
    return tuple(_checked_one(option, part, get_args(wanted)[0], called) for part in parts)


def from_values(config: type[C], given: Mapping[str, Any]) -> C:
    """A config from keywords, among them the name of a `preset` where the class has some; what else is given comes before the preset.

    Args:
        config: the class.
        given: values by the names of fields.

    Raises:
        ConfigError: for a keyword that is no field, with the nearest one, or a value that is not allowed.
    """
    presets: Mapping[str, Mapping[str, Any]] = getattr(config, "presets", {})
    check_names(given, [*options_of(config), *(["preset"] if presets else [])], config.__name__)
    name = given.get("preset", "default")
    if presets and name not in presets:
        raise ConfigError(f"preset must be one of {', '.join(presets)}, not {name!r}.{nearest(str(name), presets)}")
    own = {key: value for key, value in given.items() if key != "preset"}
    return config(**{**presets.get(name, {}), **own})


def result_settings(config: Any) -> dict[str, Any]:
    """The options that decide a result, as JSON holds them.

    Args:
        config: an object of a config class.
    """
    return {name: to_json(getattr(config, name)) for name, each in options_of(type(config)).items() if each.affects_result}


def result_hash(config: Any) -> str:
    """SHA-256 of the options that decide a result, in hexadecimal.

    Args:
        config: an object of a config class.
    """
    return hashlib.sha256(json.dumps(result_settings(config), sort_keys=True).encode()).hexdigest()


def to_json(value: Any) -> Any:
    """A value of a config as JSON and TOML hold it.

    Args:
        value: of a field.
    """
    if isinstance(value, NamedOptions):
        return value.to_dict()
    if isinstance(value, Path):
        return str(value)
    return [to_json(each) for each in value] if isinstance(value, tuple) else value


def check_names(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    """Refuse a key that is not known.

    Args:
        given: values by key.
        known: the keys that there are.
        where: what the keys are of, for the message.

    Raises:
        ConfigError: naming the key and the nearest known one.
    """
    for name in given:
        if name not in known:
            near = nearest(name, known) or f" Known: {', '.join(known)}."
            raise ConfigError(f"{where}: unknown key {name!r}.{near}")


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _checked_one(option: Option, value: Any, wanted: Any, called: str) -> Any:
    value = _converted(value, wanted)
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
        raise ConfigError(f"{called} must be {words.get(wanted, 'NAME:key=value')}, not {value!r}.")
    if wanted in (int, float) and not option.allows(value):
        raise ConfigError(f"{called} must be {option.bounds or 'a number'}, not {value}.")
    name = value.name if isinstance(value, NamedOptions) else value
    if (option.choices or option.plugin_group) and name not in (known := option.known_choices):
        advice = how_to_get(option.plugin_group, str(name), known) if option.plugin_group else nearest(str(name), known)
        raise ConfigError(f"{called} must be one of {', '.join(known)}, not {name!r}.{advice}")
    return value


def _converted(value: Any, wanted: Any) -> Any:
    """What may stand for a value of the wanted type, as that type; anything else as it is."""
    if wanted is Path and isinstance(value, str):
        return Path(value)
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if wanted is NamedOptions and isinstance(value, str):
        return NamedOptions.parse(value)
    if wanted is NamedOptions and isinstance(value, Mapping):
        return NamedOptions.from_dict(value)
    return value


def _parse_value(text: str) -> Any:
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
