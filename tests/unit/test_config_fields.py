"""Options as fields: what is allowed, what is converted, what decides a result."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from slq.config import NamedOptions, TrainConfig, from_values
from slq.config.fields import options_of, result_hash, result_settings
from slq.config.files import SECTIONS
from slq.config.tools import BenchmarksConfig, CacheClearConfig, CacheInfoConfig
from slq.errors import ConfigError

CONFIGS = [*SECTIONS.values(), BenchmarksConfig, CacheInfoConfig, CacheClearConfig]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.__name__)
def test_every_field_is_an_option_that_can_be_explained_and_written(config: type) -> None:
    for name, option in options_of(config).items():
        assert option.help.endswith("."), f"{name}: {option.help}"
        assert option.default is None or None not in getattr(option.type, "__args__", ()), f"{name}: None can not be written to a file"
        assert all(flag.startswith("-") for flag in option.flags)
    assert len(options_of(config)) == len(fields(config))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"num_latents": 0}, "num_latents must be at least 1, not 0."),
        ({"epochs": 0}, "epochs must be at least 1, not 0."),
        ({"positives_per_query": 0}, "positives_per_query must be at least 1, not 0."),
        ({"save_steps": 0}, "save_steps must be at least 1, not 0."),
        ({"lora_rank": 0}, "lora_rank must be at least 1, not 0."),
        ({"lora_alpha": 0}, "lora_alpha must be at least 1, not 0."),
        ({"max_steps": 0}, "max_steps must be at least 1, not 0."),
        ({"mini_batch_tokens": 0}, "mini_batch_tokens must be at least 1, not 0."),
        ({"learning_rate": 0}, "learning_rate must be above 0, not 0.0."),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, not nan."),
        ({"batch_size": 1}, "batch_size must be at least 2, not 1."),
        ({"num_workers": -1}, "num_workers must be at least 0, not -1."),
        ({"validation_split": -0.1}, "validation_split must be at least 0, below 1, not -0.1."),
        ({"validation_split": 1}, "validation_split must be at least 0, below 1, not 1.0."),
        ({"wise_ft_alpha": 0}, "wise_ft_alpha must be above 0, at most 1, not 0.0."),
        ({"wise_ft_alpha": 1.1}, "wise_ft_alpha must be above 0, at most 1, not 1.1."),
        ({"matryoshka_dims": (8, 0)}, "matryoshka_dims must be at least 1, not 0."),
        ({"multi_vector_sizes": (6,)}, "multi_vector_sizes must be at most num_latents, 5, not 6."),
        ({"multi_vector_sizes": (0,)}, "multi_vector_sizes must be at least 1, not 0."),
        (
            {"method": "prompt"},
            "method must be one of latents, lora, full, not 'prompt'. Install the distribution that adds it to slq.methods.",
        ),
        ({"init": "ones"}, "init must be one of prompt, normal, zeros, not 'ones'."),
        ({"pooling": "max"}, "pooling must be one of mean, last, not 'max'. Install the distribution that adds it to slq.poolings."),
        ({"hidden_state": "first"}, "hidden_state must be one of final, pre_mlp, not 'first'."),
        ({"cache_level": "kvs"}, "cache_level must be one of kv, vision, none, not 'kvs'. Did you mean 'kv'?"),
        (
            {"loss": "infonce"},
            "loss must be one of info_nce, orthogonality, not 'infonce'. Did you mean 'info_nce'? Else install the distribution that "
            "adds it to slq.losses.",
        ),
        ({"loss": ()}, "loss is empty: name at least one, such as info_nce."),
        ({"validation_split": 0.1, "validation_size": 5}, "validation_split 0.1 and validation_size 5: give one of the two."),
        ({"train_vision_encoder": True}, "train_vision_encoder is for method full: latents leaves the vision encoder as it is."),
        ({"method": "lora", "num_latents": 4}, "num_latents is an option of latent queries, and method lora has none: leave it out."),
        ({"epochs": "5"}, "epochs must be a whole number, not '5'."),
        ({"epochs": True}, "epochs must be a whole number, not True."),
        ({"epochs": None}, "epochs must be a whole number, not None."),
        ({"prefix_caching": 1}, "prefix_caching must be true or false, not 1."),
    ],
)
def test_what_is_not_allowed_is_named_with_its_value_and_bounds(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**setting)  # type: ignore[arg-type]
    assert str(caught.value) == message


@pytest.mark.parametrize("loss", ["orthogonality:weight=0.01", "orthogonality"])
def test_fine_tuning_refuses_the_loss_of_latent_queries(loss: str) -> None:
    with pytest.raises(ConfigError, match="loss orthogonality is for latent queries, and method full has none"):
        TrainConfig(method="full", loss=(NamedOptions("info_nce"), NamedOptions.parse(loss)))


def test_close_types_are_converted() -> None:
    config = TrainConfig(
        cache_dir="cache",  # type: ignore[arg-type]
        matryoshka_dims=[64, 32],  # type: ignore[arg-type]
        learning_rate=1,
        loss=["info_nce", {"name": "orthogonality", "weight": 0.5}],  # type: ignore[arg-type]
    )
    assert config.cache_dir == Path("cache")
    assert config.matryoshka_dims == (64, 32)
    assert isinstance(config.learning_rate, float)
    assert config.loss == (NamedOptions("info_nce"), NamedOptions("orthogonality", {"weight": 0.5}))


def test_a_preset_gives_way_to_what_is_given() -> None:
    paper = from_values(TrainConfig, {"preset": "paper", "init": "zeros"})
    assert (paper.num_latents, paper.init, paper.add_generation_prompt) == (20, "zeros", True)
    assert from_values(TrainConfig, {"preset": "paper", "num_latents": 5}).num_latents == 5
    with pytest.raises(ConfigError, match=r"preset must be one of default, .*paper, not 'papers'\. Did you mean 'paper'\?"):
        from_values(TrainConfig, {"preset": "papers"})
    with pytest.raises(ConfigError, match=r"TrainConfig: unknown key 'num_latnets'\. Did you mean 'num_latents'\?"):
        from_values(TrainConfig, {"num_latnets": 3})


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("info_nce", {}),
        ("x:a=1,b=0.5,c=true,d=word", {"a": 1, "b": 0.5, "c": True, "d": "word"}),
        ("x:a=-1e-3", {"a": -0.001}),
    ],
)
def test_named_options_are_read_and_written(text: str, options: dict[str, object]) -> None:
    read = NamedOptions.parse(text)
    assert read.options == options
    assert NamedOptions.parse(str(read)) == read
    assert NamedOptions.from_dict(read.to_dict()) == read


@pytest.mark.parametrize("text", ["", ":a=1", "x:", "x:a", "x:=1", "x:a=", "x:a b=1", "x:a=1,"])
def test_named_options_refuse_other_forms(text: str) -> None:
    with pytest.raises(ConfigError, match="NAME"):
        NamedOptions.parse(text)


def test_the_hash_follows_what_decides_the_result_alone() -> None:
    plain = result_hash(TrainConfig())
    same = TrainConfig(output="out", save_steps=5, num_workers=2, cache_dir="cache", cache_device_gb=1, report_to="tensorboard", data="x")  # type: ignore[arg-type]
    assert result_hash(same) == plain
    for changed in (
        {"seed": 1},
        {"kv_cache_dtype": "int8"},
        {"cache_memory_gb": 1},
        {"loss": "info_nce:weight=2"},
        {"prefix_caching": False},
    ):
        assert result_hash(TrainConfig(**changed)) != plain, changed  # type: ignore[arg-type]
    free = set(options_of(TrainConfig)) - set(result_settings(TrainConfig()))
    assert free == {
        *("image_column", "text_column", "image_root", "allow_outside", "max_skipped"),
        *("data", "facts", "test_sets", "output", "overwrite", "resume", "save_steps", "report_to"),
        *("num_workers", "cache_dir", "cache_disk_gb", "cache_device_gb"),
    }
