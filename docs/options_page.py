"""Writes docs/reference/options.md from the fields of `slq.config`: python docs/options_page.py"""

from __future__ import annotations

from pathlib import Path

from slq.cli.app import commands_and_configs
from slq.cli.command import default_text, metavar
from slq.config import CommonConfig, ModelConfig, PreprocessingConfig
from slq.config.fields import Option, options_of
from slq.config.files import section_of

PAGE = Path(__file__).parent / "reference" / "options.md"
SHARED = (CommonConfig, ModelConfig, PreprocessingConfig)
TITLES = {CommonConfig: "Every command", ModelConfig: "Model", PreprocessingConfig: "Preprocessing"}
INTRODUCTION = """# Options

Written by `python docs/options_page.py` from the fields of `slq.config`; change them there.

An option has one name: `num_latents` is the flag `--num-latents`, the key `num_latents` of a config file, and the keyword of
`slq.train(..., num_latents=20)`. What comes first wins: flags, the file of `--config`, `slq.toml` in the working folder, `SLQ_*`
variables, defaults. In a config file the tables are called as in the headings, and paths are relative to the file.
"""


def page() -> str:
    """The whole page."""
    commands = commands_and_configs()
    parts = [INTRODUCTION]
    for config in SHARED:
        users = [name for name, configs in commands.items() if config in configs]
        where = "" if config is CommonConfig else "For " + ", ".join(f"`slq {name}`" for name in users) + ".\n\n"
        parts.append(f"## {TITLES[config]}{_table_name(config)}\n\n{where}{_table(config)}")
    for name, configs in commands.items():
        for config in configs:
            if config not in SHARED:
                parts.append(f"## slq {name}{_table_name(config)}\n\n{_table(config)}")
    return "\n".join(parts)


def _table_name(config: type) -> str:
    return f" `[{section_of(config)}]`" if section_of(config) else ""


def _table(config: type) -> str:
    rows = [f"| {_names(option)} | {_default(option)} | {_help(option)} |" for option in options_of(config).values()]
    return "\n".join(["| option | default | what it does |", "|---|---|---|", *rows, ""])


def _names(option: Option) -> str:
    if option.positional:
        return f"`{option.name.upper()}`"
    value = "" if option.type is bool else " " + metavar(option).replace("|", "\\|")
    return ", ".join(f"`{flag}{value if flag == option.flag else ''}`" for flag in option.flags or (option.flag,))


def _default(option: Option) -> str:
    if option.required:
        return "required"
    return default_text(option) or ("off" if option.type is bool else "")


def _help(option: Option) -> str:
    told = [option.bounds] if option.bounds else []
    if option.environment:
        told.append(f"variable `{option.environment}`")
    if not option.affects_result:
        told.append("does not change results")
    return option.help.replace("|", "\\|") + (f" ({'; '.join(told)})" if told else "")


if __name__ == "__main__":
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page(), encoding="utf-8")
