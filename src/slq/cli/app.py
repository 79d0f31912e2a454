"""The tree of commands, and how a command line ends: its exit code, and one sentence for an error of this package."""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from importlib.metadata import version

from cyclopts import App, CycloptsError, Group

from slq import console
from slq.cli.command import INTERRUPTED, WRONG_USE, Flags, words_of
from slq.cli.help import HelpFormatter
from slq.config import CommonConfig
from slq.errors import ConfigError, SlqError
from slq.io.garbage import seldom_collected
from slq.registry import Registry, how_to_get

HELP = """Turn the multimodal LLM you already run into a retriever, without touching its weights.

A few latent queries (5 vectors, 5-80 KB) are learned on your pairs of images and captions; the model stays bit-identical.

First steps, with the built-in miniature model (no download):

    slq demo                                            everything at once, with a page of results
    slq sample-data data/train --split train            a training set of images and captions
    slq train data/train/captions.jsonl -o my-adapter
    slq index data/train/images -m my-adapter -c my-collection
    slq search "a red cat" -c my-collection

With a real model: add `-m OpenGVLab/InternVL3-1B-hf` to `slq train`; the rest stays as it is."""

# By the groups of `slq --help`, in its order; a command's module is imported when it is called.
COMMANDS = {
    "Adapt": {
        "train": "Learn an adapter on pairs.",
        "mine": "Add hard negatives to pairs.",
        "facts": "Let the model tell facts about its training images.",
        "leakage": "Find what of a test set stands in a training set.",
    },
    "Measure": {
        "eval": "Score retrieval.",
        "benchmarks": "List the benchmarks, or tell everything about one.",
        "compare": "Put results beside each other: two with intervals and p-values, many in a table.",
        "retention": "Ask what the model still answers after adapting.",
        "doctor": "Try a model before building on it.",
    },
    "Use": {
        "index": "Make a collection of images and texts, or bring it up to date.",
        "search": "Search by text, image or both, or by an item that is there.",
        "ask": "Ask the model about an item of a collection.",
        "collection": "Look into a collection, check, optimise, calibrate, report on, export or delete it.",
        "embed": "Encode items: vectors in a folder, or in a file for other tools.",
    },
    "Manage": {
        "model": "Show an adapter, or upload it to the hub.",
        "cache": "Look into cached prefixes, or remove them.",
        "plugins": "List what other distributions add, and whether it can be used.",
    },
    "Try": {
        "sample-data": "Write images and captions to try everything on.",
        "demo": "Run everything at once, with a page of results.",
    },
}
MODULES = {"eval": "evaluate"}  # the others are named as their commands
PATHS = {name: f"slq.cli.{MODULES.get(name, name.replace('-', '_'))}:app" for names in COMMANDS.values() for name in names}
commands = Registry[App](
    "slq.commands",
    builtins=PATHS,
    check=lambda name, app: "" if isinstance(app, App) else f"must be an app, as slq.cli.command makes one, not {type(app).__name__}",
)


def build_app(called: str | None = None) -> App:
    """The whole command line.

    Args:
        called: the first word; a plugin is imported only if it adds this command.

    Raises:
        ConfigError: if there is no such command.
        PluginError: if the plugin that adds the called command cannot be used.
    """
    app = App(
        name="slq",
        help=HELP,
        version=version("slq"),
        help_format="plaintext",
        help_formatter=HelpFormatter("slq", HELP, "COMMAND"),
        group_commands=Group("Options", sort_key=len(COMMANDS) + 1),
    )
    for rank, (title, names) in enumerate(COMMANDS.items()):
        group = Group(title, sort_key=rank)
        for position, (name, summary) in enumerate(names.items()):
            app.command(PATHS[name], name=name, help=summary, group=group, sort_key=position)
    added = Group("Added by plugins", sort_key=len(COMMANDS))
    for plugin in commands.entries():
        if plugin.name == called:
            app.command(commands.get(plugin.name), name=plugin.name)
        elif plugin.name not in app:
            app.command(App(name=plugin.name, help=f"From {plugin.distribution} {plugin.version}.", group=added))
    if called and not called.startswith("-") and called not in app:
        raise ConfigError(f"Unknown command {called[:300]!r}.{how_to_get(commands.group, called, commands.names())} See: slq --help")
    app.register_install_completion_command(help="Install completion for the shell in use.")
    return app


def commands_and_configs() -> dict[str, tuple[type, ...]]:
    """Every command of this package, such as `cache info`, with the configs that it takes; imports all of them."""
    app, found = build_app(), {}
    for name in PATHS:
        for command, each in [(name, app[name]), *((f"{name} {part}", app[name][part]) for part in app[name] if part[0] != "-")]:
            flags = each.default_command
            if isinstance(flags, type) and issubclass(flags, Flags):
                found[command] = (*flags.configs.values(), CommonConfig)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line of `slq` and return its exit code, see `execute`.

    Args:
        arguments: what stands behind `slq`; None for those of this process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with seldom_collected():
        return execute(lambda: build_app(given[0] if given else None), given)


def execute(build: Callable[[], App], given: Sequence[str]) -> int:
    """Run a command line of an app; errors of this package are one sentence on stderr.

    Args:
        build: makes the app; what it raises is shown like the errors of a command.
        given: the command line without the name of the program.

    Returns:
        0 done; 1 failed, or a check found something; 2 wrong use; 130 interrupted.
    """
    with warnings.catch_warnings():
        warnings.showwarning = lambda message, *where: console.warn(str(message))
        return _execute(build, given)


def _execute(build: Callable[[], App], given: Sequence[str]) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a name of a file need not be UTF-8
    try:
        outcome = build()(words_of(given), exit_on_error=False, print_error=False, result_action="return_value")
        code = outcome.run() if isinstance(outcome, Flags) else outcome
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except BrokenPipeError:  # the reader, such as `head`, has enough
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - what is still buffered must have somewhere to go at exit
        return 0
    except KeyboardInterrupt:
        console.note("\nStopped. No result was written; what a --cache-dir or a request log holds is used by the same command.")
        return INTERRUPTED
    except CycloptsError as error:
        command = " ".join(error.command_chain or ())
        console.error(f"{error} See: slq {command + ' ' if command else ''}--help")
        return WRONG_USE
    except SlqError as error:
        if console.settings.verbose:
            traceback.print_exc()
        console.error(str(error))
        return error.exit_code
