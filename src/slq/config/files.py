"""Config files, and which of several sources gives an option its value.

    flags  >  the file of --config  >  slq.toml in the working folder  >  SLQ_* variables  >  defaults

A file has a table for each kind of options (`[model]`, `[train]`); its keys are the names of fields, and its paths are relative to it.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import tomli_w

from slq.config.collection import IndexConfig
from slq.config.evaluate import CompareConfig, DoctorConfig, EvalConfig, LeakageConfig, MiningConfig, RetentionConfig
from slq.config.facts import FactsConfig
from slq.config.fields import Option, check_names, checked, from_values, options_of, to_json
from slq.config.index import EmbedConfig, SearchConfig
from slq.config.model import ModelConfig, PreprocessingConfig
from slq.config.tools import DemoConfig, SampleDataConfig
from slq.config.train import TrainConfig
from slq.errors import ConfigError

SECTIONS: Mapping[str, type] = {
    "model": ModelConfig,
    "preprocessing": PreprocessingConfig,
    "train": TrainConfig,
    "mine": MiningConfig,
    "facts": FactsConfig,
    "leakage": LeakageConfig,
    "eval": EvalConfig,
    "compare": CompareConfig,
    "retention": RetentionConfig,
    "doctor": DoctorConfig,
    "embed": EmbedConfig,
    "index": IndexConfig,
    "search": SearchConfig,
    "sample_data": SampleDataConfig,
    "demo": DemoConfig,
}
WORKING_FOLDER_FILE = "slq.toml"


@dataclass(frozen=True)
class Sources:
    """Where options may come from besides flags: a file that was named, one in the working folder, and the environment."""

    named: Mapping[str, Mapping[str, Any]]
    found: Mapping[str, Mapping[str, Any]]
    environment: Mapping[str, str]

    @classmethod
    def read(cls, file: Path | None = None, folder: Path = Path(), environment: Mapping[str, str] | None = None) -> Sources:
        """Read the files.

        Args:
            file: what --config names.
            folder: where `slq.toml` is looked for.
            environment: variables; by default those of the process.

        Raises:
            ConfigError: if a file cannot be read or a key of it is wrong; if `slq.toml` sets what only an explicit choice may.
        """
        found = folder / WORKING_FOLDER_FILE
        return cls(
            named={} if file is None else read_config(file),
            found=read_config(found, explicit=False) if found.is_file() else {},
            environment=os.environ if environment is None else environment,
        )

    def resolve(self, config: type, flags: Mapping[str, Any]) -> Any:
        """A config of this class with every option from the source that comes first.

        Args:
            config: one of the classes of `slq.config`.
            flags: what was given on the command line, by the names of fields; may hold fields of other classes.

        Raises:
            ConfigError: if a value is not allowed, or if remote code is trusted for a model that only `slq.toml` names.
        """
        known = {**options_of(config), **({"preset": None} if hasattr(config, "presets") else {})}
        section = section_of(config)
        given = {
            **self._from_environment(config),
            **self.found.get(section, {}),
            **self.named.get(section, {}),
            **{name: value for name, value in flags.items() if name in known},
        }
        for name, each in options_of(config).items():
            if name in flags:
                given[name] = checked(each, given[name], each.flag)
            elif each.required and given.get(name) is None:
                called = name.upper() if each.positional else each.flag
                place = f" or {name} under [{section}] of a config file" if section else ""
                raise ConfigError(f"{called} is missing: give it on the command line{place}.")
        if given.get("trust_remote_code"):
            self._check_trusted(flags)
        return from_values(config, given)

    def _from_environment(self, config: type) -> dict[str, Any]:
        named = {name: each.environment for name, each in options_of(config).items() if each.environment}
        return {name: self.environment[variable] for name, variable in named.items() if self.environment.get(variable)}

    def _check_trusted(self, flags: Mapping[str, Any]) -> None:
        """Whoever trusts remote code says so, and which model it is, on the command line: a file may come from somebody else."""
        files = {**self.found.get("model", {}), **self.named.get("model", {})}
        if "trust_remote_code" not in flags:
            raise ConfigError("trust_remote_code is taken from no config file: give it on the command line, beside --model.")
        if any(name in files and name not in flags for name in ("model", "base_model")):
            raise ConfigError(
                "trust_remote_code holds for a model that you name yourself, and a config file names this one: name it with --model."
            )


def section_of(config: type) -> str:
    """The name of a config class's table in a file.

    Args:
        config: the class.
    """
    return next((name for name, each in SECTIONS.items() if issubclass(config, each)), "")


def read_config(file: Path, explicit: bool = True) -> dict[str, dict[str, Any]]:
    """The tables of a config file, checked, with paths made relative to the working folder.

    Args:
        file: a TOML file.
        explicit: whether somebody named it; a file that merely lies in the working folder may not set everything.

    Raises:
        ConfigError: naming the file, the key, and what is wrong.
    """
    try:
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The config file {file} cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file} is not a TOML file: {error}.") from error
    check_names(tables, list(SECTIONS), str(file))
    return {section: _read_table(file, section, table, explicit) for section, table in tables.items()}


def _read_table(file: Path, section: str, table: Any, explicit: bool) -> dict[str, Any]:
    where = f"{file}, [{section}]"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{file}: {section} must be a table, [{section}], not {table!r}.")
    options = options_of(SECTIONS[section])
    presets = hasattr(SECTIONS[section], "presets")
    check_names(table, [*options, *(["preset"] if presets else [])], where)
    read = {}
    for name, value in table.items():
        if name not in options:
            read[name] = value
            continue
        if options[name].explicit and not explicit and value != options[name].default:
            raise ConfigError(f"{where}: {name} is not taken from a file that merely lies in the working folder: pass it, or use --config.")
        read[name] = _moved(options[name], checked(options[name], value, f"{where}: {name}"), file.parent)
    return read


def dump_config(configs: Sequence[Any], folder: Path, heading: str = "") -> str:
    """The text of a config file that repeats a run.

    Args:
        configs: resolved configs, one of each class.
        folder: where the file will be; its paths are relative to it.
        heading: a comment above, one line.
    """
    tables: dict[str, dict[str, Any]] = {}
    for config in configs:
        values = {name: (each, getattr(config, name)) for name, each in options_of(type(config)).items() if each.recorded}
        tables[section_of(type(config))] = {
            name: to_json(_relative(each, value, folder)) for name, (each, value) in values.items() if value is not None
        }
    return (f"# {heading}\n" if heading else "") + tomli_w.dumps(tables)


def _holds_paths(option: Option) -> bool:
    return Path in (option.type, *get_args(option.type))


def _moved(option: Option, value: Any, folder: Path) -> Any:
    """A value of a file in this folder, its paths as seen from the working folder."""
    if _holds_paths(option) and value is not None:
        return tuple(folder / part for part in value) if isinstance(value, tuple) else folder / value
    if option.model_reference and value and (value.startswith(("./", "../")) or os.path.exists(folder / value)):
        return str(folder / value)
    return value


def _relative(option: Option, value: Any, folder: Path) -> Any:
    """A value for a file in this folder."""
    if _holds_paths(option) and value is not None:
        return tuple(_relative_path(part, folder) for part in value) if isinstance(value, tuple) else _relative_path(value, folder)
    if option.model_reference and value and os.path.exists(value):
        relative = _relative_path(Path(value), folder).as_posix()
        return relative if relative.startswith(("../", "/")) else f"./{relative}"
    return value


def _relative_path(path: Path, folder: Path) -> Path:
    try:
        return Path(os.path.relpath(path, folder))
    except ValueError:  # another drive, on Windows
        return path.absolute()
