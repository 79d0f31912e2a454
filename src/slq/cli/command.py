"""A command is a function of configs; its flags are their fields.

    @command("leakage")
    def leakage(config: LeakageConfig) -> int | None: ...

The parser only records what was given. `slq.config` then puts it above files, environment and defaults, and checks it.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field, is_dataclass, make_dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, ClassVar, get_args, get_origin, get_type_hints

from cyclopts import App, Group, Parameter

from slq.cli.help import HelpFormatter
from slq.config import CommonConfig, NamedOptions, Sources, from_values
from slq.config.fields import Option, options_of
from slq.config.index import STANDARD_INPUT
from slq.console import settings, sign_of_life

METAVARS = {int: "N", float: "X", str: "TEXT", Path: "PATH", NamedOptions: "NAME[:key=value,...]"}
WRONG_USE, INTERRUPTED = 2, 130  # exit codes
LONGEST_CHOICES = 26  # as wide as the column of names; longer lists stand in the help text


class Flags:
    """What was given on one command line; None where nothing was."""

    called: ClassVar[str]
    function: ClassVar[Callable[..., int | None]]
    configs: ClassVar[Mapping[str, type]]

    def run(self) -> int:
        """Call the command with its configs; returns the exit code.

        Raises:
            ConfigError: if an option is wrong, wherever it comes from.
        """
        given = {name: value for name, value in vars(self).items() if value is not None}
        common = from_values(CommonConfig, {name: given.pop(name) for name in options_of(CommonConfig) if name in given})
        settings.quiet, settings.verbose, settings.json = common.quiet, common.verbose, common.json
        sources = Sources.read(common.config)
        configs = {name: sources.resolve(config, given) for name, config in self.configs.items()}
        with sign_of_life(self.called):
            return type(self).function(**configs) or 0


def command(name: str, program: str = "slq") -> Callable[[Callable[..., int | None]], App]:
    """Make an app of a function whose parameters are configs.

    Args:
        name: the command's words, such as `cache info`; empty where a program is one command.
        program: what is typed before them.
    """

    def make(function: Callable[..., int | None]) -> App:
        configs = {name: hint for name, hint in get_type_hints(function).items() if isinstance(hint, type) and is_dataclass(hint)}
        flags = _flags_class(f"{program} {name}".strip(), function, configs)
        options = [option for config in configs.values() for option in options_of(config).values()]
        # A switch that is off can be switched off where a config file has it on; its help needs no second name for that.
        off = frozenset(f"--no-{each.flag[2:]}" for each in options if each.type is bool and not each.default)
        return App(
            name=(name or program).split()[-1],
            default_command=flags,
            help=(function.__doc__ or "").partition("\n\n")[0],
            help_flags=("--help", "-h"),
            version_flags=(),
            help_format="plaintext",
            help_formatter=HelpFormatter(f"{program} {name}".strip(), function.__doc__ or "", _arguments(configs), off),
        )

    return make


def command_line() -> str:
    """What was typed, for records and messages."""
    return shlex.join(["slq", *sys.argv[1:]])


def words_of(given: Sequence[str]) -> list[str]:
    """A command line as the parser is given it, which takes a `-` alone for an option: by the name of the file that it stands for.

    Args:
        given: as it was typed.
    """
    return [STANDARD_INPUT if word == "-" else word for word in given]


def group(name: str, summary: str, *commands: App) -> App:
    """An app of several commands, such as `cache` for `slq cache info | clear`.

    Args:
        name: what is typed after `slq`.
        summary: one sentence for the help.
        *commands: the apps.
    """
    app = App(name=name, help=summary, version_flags=(), help_formatter=HelpFormatter(f"slq {name}", summary, "COMMAND"))
    for each in commands:
        app.command(each)
    return app


def _flags_class(called: str, function: Callable[..., int | None], configs: Mapping[str, type]) -> type[Flags]:
    """A dataclass with a field for each flag: its constructor is the signature that the parser reads."""
    found = [option for config in configs.values() for option in (*options_of(config).values(), *_preset(config))]
    found = [*(each for each in found if each.positional), *(each for each in found if not each.positional)]
    found += options_of(CommonConfig).values()
    panels = {panel: Group(panel, sort_key=rank) for rank, panel in enumerate(dict.fromkeys(each.panel for each in found))}
    fields = [(each.name, _annotation(each, panels[each.panel]), field(default=None, kw_only=not each.positional)) for each in found]
    # cyclopts takes classes of the standard library for single values, and make_dataclass would put this one in `types`.
    namespace = {
        "called": called,
        "function": staticmethod(function),
        "configs": configs,
        "__module__": __name__,
        "__doc__": function.__doc__,
    }
    return make_dataclass(f"{function.__name__}_flags", fields, bases=(Flags,), namespace=namespace)


def _preset(config: type) -> list[Option]:
    presets = getattr(config, "presets", {})
    help = (
        "A set of options to start from: `latent-lora` finds most (matrices where the latent queries stand; batches of near pairs, the "
        "nearest of which weigh most), `latent-lora-small` nearly as much with a quarter of the parameters, `paper` is the SLQ paper's."
    )
    return [Option(help, choices=tuple(presets), panel="Adapter", name="preset", type=str, default="default")] if presets else []


def _annotation(option: Option, panel: Group) -> Any:
    """The type that the parser reads a flag with, and how the flag is shown."""
    kind = _kind(option)
    repeated = _is_repeated(option)
    read = str if kind is NamedOptions else kind
    switch = kind is bool
    # Names that plugins may add are left to the config, which says where a missing one would come from.
    choices = option.choices if kind is str and not option.plugin_group else ()
    parameter = Parameter(
        name=option.flags or None if not option.positional else None,
        help=describe(option),
        group=panel,
        choices=choices or None,
        metavar=None if switch else metavar(option),
        negative=None if switch and option.recorded else (),
        show_default=False,
        show_choices=False,
    )
    return Annotated[(tuple[read, ...] if repeated else read) | None, parameter]  # type: ignore[valid-type]


def describe(option: Option) -> str:
    """The help of an option with its range, its choices where the name does not show them, and its default.

    Args:
        option: as `options_of` gives it.
    """
    told = [option.bounds] if option.bounds else []
    if (choices := option.known_choices) and _kind(option) is str and metavar(option) != "|".join(choices):
        told.append(f"one of {', '.join(choices)}")
    if (default := default_text(option)) and not option.required:
        told.append(f"default: {default}")
    if option.environment:
        told.append(f"variable: {option.environment}")
    return f"{option.help} [{'; '.join(told)}]" if told else option.help


def default_text(option: Option) -> str:
    """The default as one reads it; empty where there is nothing to say.

    Args:
        option: as `options_of` gives it.
    """
    if option.default is None:
        return option.default_text or ""
    if isinstance(option.default, bool):
        return "on" if option.default else ""
    return ", ".join(map(str, option.default)) if isinstance(option.default, tuple) else str(option.default)


def metavar(option: Option) -> str:
    """What stands for the value: its choices where there is room, else a word for its type.

    Args:
        option: as `options_of` gives it.
    """
    choices = "|".join(option.known_choices)
    if choices and len(choices) <= LONGEST_CHOICES and _kind(option) is str:
        return choices
    return "NAME" if choices and _kind(option) is str else METAVARS.get(_kind(option), "TEXT")


def _kind(option: Option) -> type:
    """The type of one value, without `| None` and `tuple[..., ...]`."""
    kinds = [each for each in (get_args(option.type) if isinstance(option.type, UnionType) else (option.type,)) if each is not type(None)]
    return get_args(kinds[0])[0] if get_origin(kinds[0]) is tuple else kinds[0]


def _is_repeated(option: Option) -> bool:
    return get_origin(option.type) is tuple


def _arguments(configs: Mapping[str, type]) -> str:
    """The arguments by position, and flags that must be given, as the usage line shows them."""
    shown, flags = [], []
    for each in (each for config in configs.values() for each in options_of(config).values()):
        word = each.name.upper() + ("..." if _is_repeated(each) else "")
        if each.positional:
            shown.append(word if each.required else f"[{word}]")
        elif each.required:
            flags.append(f"{min(each.flags or (each.flag,), key=len)} {metavar(each)}")
    return " ".join(shown + flags)
