"""Config files: they carry every value, come in their order, and say what is wrong with them."""

from __future__ import annotations

import dataclasses
import os
import types
from pathlib import Path
from typing import Any, get_args, get_origin

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from slq.config import EvalConfig, ModelConfig, NamedOptions, SearchConfig, Sources, TrainConfig, dump_config, read_config
from slq.config.fields import Option, options_of
from slq.config.files import SECTIONS
from slq.errors import ConfigError

NAMED = {"data": Path("pairs.jsonl"), "output": Path("out")}  # what a training must be given
NAMES = st.text("abcxyz_", min_size=1, max_size=8).filter(str.isidentifier)
SCALARS = st.one_of(st.integers(-(2**60), 2**60), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.text(max_size=8))
PATHS = st.lists(st.text("abc ü'\"\\-.", min_size=1, max_size=5).map(lambda part: part + "x"), min_size=1, max_size=3).map(
    lambda parts: Path(*parts)
)


def values_of(option: Option) -> st.SearchStrategy[Any]:
    """Any value that an option allows."""
    kinds = (
        [kind for kind in get_args(option.type) if kind is not type(None)] if isinstance(option.type, types.UnionType) else [option.type]
    )
    if get_origin(kinds[0]) is tuple:
        one = dataclasses.replace(option, type=get_args(kinds[0])[0])
        return st.lists(values_of(one), min_size=1, max_size=3).map(tuple)
    if kinds[0] is NamedOptions:
        return st.builds(
            NamedOptions, st.sampled_from(option.choices), st.dictionaries(NAMES.filter(lambda name: name != "name"), SCALARS, max_size=3)
        )
    if option.choices:
        return st.sampled_from(option.choices)
    low, high = option.minimum or option.above or 0, option.maximum or option.below or 10**6
    numbers = {int: st.integers(int(low), int(high)), float: st.floats(low, high).filter(option.allows)}
    return {**numbers, bool: st.booleans(), str: st.text(max_size=20), Path: PATHS}[kinds[0]]


FREE_OF_RULES = {  # of the many rules of a training most random settings break one, and hardly a random file is a table
    "compare": lambda name: name != "output",
    "train": lambda name: name not in ("method", "multi_vector_sizes", "train_vision_encoder", "validation_split"),
}


def configs(section: str) -> st.SearchStrategy[Any]:
    """Any config of a class that holds together."""

    def build(values: dict[str, Any]) -> Any:
        try:
            return SECTIONS[section](**values)
        except ConfigError:
            return None

    free = FREE_OF_RULES.get(section, lambda name: True)
    options = {name: option for name, option in options_of(SECTIONS[section]).items() if option.recorded and free(name)}
    required = {name: values_of(option) for name, option in options.items() if option.required}
    optional = {name: values_of(option) for name, option in options.items() if not option.required}
    return st.fixed_dictionaries(required, optional=optional).map(build).filter(lambda built: built is not None)


@pytest.mark.slow
@pytest.mark.parametrize("section", SECTIONS)
@settings(max_examples=12, deadline=None)
@given(data=st.data())
def test_every_config_survives_its_file(tmp_path_factory: pytest.TempPathFactory, section: str, data: st.DataObject) -> None:
    config = data.draw(configs(section))
    folder = tmp_path_factory.mktemp("config")
    file = folder / "run.toml"
    file.write_text(dump_config([config], folder, heading="A run"), encoding="utf-8")

    read = Sources.read(file, folder=folder, environment={}).resolve(type(config), {})
    for name, option in options_of(type(config)).items():
        before, after = getattr(config, name), getattr(read, name)
        if Path in (option.type, *get_args(option.type)) and before is not None:
            before, after = [[Path(each).absolute().resolve() for each in (x if isinstance(x, tuple) else (x,))] for x in (before, after)]
        if option.model_reference and before and os.path.exists(before):  # a folder, which the file names by its place
            before, after = Path(before).resolve(), Path(after).resolve()
        assert after == before, name


def test_sources_come_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "slq.toml").write_text('[train]\nepochs = 2\nseed = 2\nnum_latents = 2\n[model]\ndtype = "float16"\n')
    named = tmp_path / "run.toml"
    named.write_text("[train]\nepochs = 3\nseed = 3\n")
    environment = {"SLQ_MODEL": "from-environment", "SLQ_CACHE_DIR": "cache"}
    sources = Sources.read(named, tmp_path, environment)

    train = sources.resolve(TrainConfig, {"epochs": 4, "dtype": "bfloat16", **NAMED})
    assert (train.epochs, train.seed, train.num_latents, train.save_steps) == (4, 3, 2, 100)
    assert train.cache_dir == Path("cache")
    model = sources.resolve(ModelConfig, {"epochs": 4})
    assert (model.model, model.dtype) == ("from-environment", "float16")


def test_a_preset_of_a_file_gives_way_to_its_keys(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[train]\npreset = "paper"\ninit = "zeros"\n')
    train = Sources.read(file, tmp_path, {}).resolve(TrainConfig, {"num_latents": 3, **NAMED})
    assert (train.num_latents, train.init, train.add_generation_prompt) == (3, "zeros", True)


def test_paths_of_a_file_are_relative_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "study" / "base").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = Path("../study/run.toml")
    file.write_text(
        f'[model]\nmodel = "base"\nbase_model = "org/hub-name"\n[train]\ndata = "pairs.jsonl"\ntest_sets = ["a", "{tmp_path}/b"]\n'
    )
    sources = Sources.read(file, Path(), {})

    model, train = sources.resolve(ModelConfig, {}), sources.resolve(TrainConfig, {"output": Path("out")})
    assert Path(model.model).resolve() == tmp_path / "study" / "base"
    assert model.base_model == "org/hub-name"
    assert train.data.resolve() == tmp_path / "study" / "pairs.jsonl"
    assert [path.resolve() for path in train.test_sets] == [tmp_path / "study" / "a", tmp_path / "b"]
    assert train.output == Path("out")

    again = Path("out/config.toml")
    again.parent.mkdir()
    again.write_text(dump_config([model, train], again.parent))
    assert str(tmp_path) not in again.read_text(), "a file that is shared tells no absolute path"
    monkeypatch.chdir(tmp_path)
    repeated = Sources.read(Path("elsewhere/out/config.toml"), Path(), {})
    assert Path(repeated.resolve(ModelConfig, {}).model).resolve() == tmp_path / "study" / "base"
    assert repeated.resolve(TrainConfig, {}).data.resolve() == tmp_path / "study" / "pairs.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train]\nepoch = 3", r"run\.toml, \[train\]: unknown key 'epoch'\. Did you mean 'epochs'\?"),
        ("[trian]\nepochs = 3", r"run\.toml: unknown key 'trian'\. Did you mean 'train'\?"),
        ("epochs = 3", r"run\.toml: unknown key 'epochs'\. Known: model, preprocessing, train"),
        ("train = 3", r"run\.toml: train must be a table, \[train\], not 3"),
        ("[train]\nepochs = 0", r"run\.toml, \[train\]: epochs must be at least 1, not 0"),
        ("[train]\nepochs = '3'", r"run\.toml, \[train\]: epochs must be a whole number, not '3'"),
        ("[train]\nloss = [{weight = 1}]", r"\{'weight': 1\} has no name"),
        ("[train\nepochs = 3", r"run\.toml is not a TOML file: .*line 1"),
        ("[eval]\nbaseline = 'last token'", r"baseline must be one of .* Did you mean 'last_token'\?"),
    ],
)
def test_a_wrong_file_says_where_and_what(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no-such-file\.toml cannot be read"):
        read_config(tmp_path / "no-such-file.toml")
    (tmp_path / "latin.toml").write_bytes(b"# \xe9\n")
    with pytest.raises(ConfigError, match=r"latin\.toml cannot be read"):
        read_config(tmp_path / "latin.toml")


def test_a_file_that_merely_lies_there_switches_on_no_remote_code(tmp_path: Path) -> None:
    found = tmp_path / "slq.toml"
    found.write_text("[model]\ntrust_remote_code = true\n")
    with pytest.raises(ConfigError, match=r"slq\.toml, \[model\]: trust_remote_code is not taken from a file that merely lies"):
        Sources.read(None, tmp_path, {})
    with pytest.raises(ConfigError, match="taken from no config file: give it on the command line"):  # though it was named
        Sources.read(tmp_path / "slq.toml", tmp_path / "elsewhere", {}).resolve(ModelConfig, {})

    found.write_text('[model]\nmodel = "some/model"\ntrust_remote_code = false\n')
    for sources in (Sources.read(None, tmp_path, {}), Sources.read(tmp_path / "slq.toml", tmp_path / "elsewhere", {})):
        with pytest.raises(ConfigError, match=r"a config file names this one: name it with --model"):
            sources.resolve(ModelConfig, {"trust_remote_code": True})
    assert sources.resolve(ModelConfig, {"trust_remote_code": True, "model": "some/model"}).trust_remote_code
    assert not sources.resolve(ModelConfig, {}).trust_remote_code


def test_a_written_file_neither_trusts_code_nor_overwrites(tmp_path: Path) -> None:
    text = dump_config([ModelConfig(trust_remote_code=True), TrainConfig(overwrite=True, resume=True)], tmp_path)
    assert "trust_remote_code" not in text and "overwrite" not in text and "resume" not in text


def test_what_must_be_given_is_asked_for_by_name(tmp_path: Path) -> None:
    sources = Sources.read(None, tmp_path, {})
    with pytest.raises(ConfigError, match=r"DATA is missing: give it on the command line or data under \[train\] of a config file"):
        sources.resolve(TrainConfig, {"output": Path("out")})
    with pytest.raises(ConfigError, match="--output is missing: give it on the command line or output under"):
        sources.resolve(TrainConfig, {"data": Path("pairs.jsonl")})


def test_a_wrong_flag_is_called_by_its_name(tmp_path: Path) -> None:
    sources = Sources.read(None, tmp_path, {})
    with pytest.raises(ConfigError, match="--num-latents must be at least 1, not 0"):
        sources.resolve(TrainConfig, {"num_latents": 0, **NAMED})
    with pytest.raises(ConfigError, match="per_query writes ranks to a file: name it with --output"):
        sources.resolve(EvalConfig, {"per_query": True})
    with pytest.raises(ConfigError, match="give TEXT, --image FILE, both, or --like ID"):
        sources.resolve(SearchConfig, {})
