"""How a run starts: by its method, at what was learned before or anew, and what other distributions add to it."""

from __future__ import annotations

import math
from dataclasses import replace

from slq.config import TrainConfig
from slq.config.fields import options_of
from slq.encoders.base import Encoder
from slq.encoders.finetuned import FineTunedModel
from slq.encoders.latent import LatentEncoder
from slq.errors import ConfigError, InputError, PluginError
from slq.models import FrozenModel
from slq.registry import ADVICE, plugin_of
from slq.training.methods import Trainable, methods


def create_trainable(model: FrozenModel, config: TrainConfig) -> Trainable:
    """What a run starts from, by the method that it names.

    Args:
        model: the base model.
        config: the run's options.

    Raises:
        InputError: if no method has this name.
        PluginError: if the method of another distribution cannot be used, raises an error, or creates something else.
    """
    method = methods.get(config.method)
    with methods.naming_plugin(method):
        trainable = method.create(model, config)
    if not isinstance(trainable, Trainable):
        who = methods.origin(method) or f"Method {config.method!r}"
        raise PluginError(f"{who} must create a slq.training.methods.Trainable, not {type(trainable).__name__}. {ADVICE}")
    return trainable


def learning_rate(model: FrozenModel, config: TrainConfig) -> float:
    """The learning rate of a run: the one that was chosen, or the method's own.

    Args:
        model: the base model.
        config: the run's options.

    Raises:
        InputError: if no method has the name that is chosen.
        PluginError: if the method of another distribution cannot be used, raises an error, or gives no such rate.
    """
    if config.learning_rate:
        return config.learning_rate
    method = methods.get(config.method)
    with methods.naming_plugin(method):
        rate = method.learning_rate(model, config)
    if (plugin := methods.origin(method)) and not (isinstance(rate, float) and 0 < rate < math.inf):
        raise PluginError(f"{plugin} must give a learning rate above 0, not {rate!r:.100}. {ADVICE}")
    return rate


def plugins_of(config: TrainConfig) -> list[dict[str, str]]:
    """What other distributions add to a run, ready for JSON: group, name, distribution and version of each.

    Args:
        config: the run's options.
    """
    found = []
    for field, about in options_of(type(config)).items():
        chosen = getattr(config, field) if about.plugin_group else ()
        for each in (chosen,) if isinstance(chosen, str) else chosen:
            plugin = plugin_of(about.plugin_group or "", getattr(each, "name", each))
            if plugin:
                found.append({name: getattr(plugin, name) for name in ("group", "name", "distribution", "version")})
    return found


def going_on_from(learned: Encoder, name: str, config: TrainConfig) -> TrainConfig:
    """The options of a run that begins with what was learned before: those that shaped it are its own.

    Args:
        learned: an adapter's encoder, or a fine-tuned model.
        name: what the user calls it.
        config: the options of the run.

    Raises:
        ConfigError: for an option that says otherwise.
        InputError: for what cannot be trained further.
    """
    if isinstance(learned, LatentEncoder):
        queries = learned.queries
        own = {"method": "latents", "num_latents": queries.num_latents, **queries.config}
        own["add_generation_prompt"] = own.pop("generation_prompt")
        if queries.lora is not None:
            own |= {"latent_lora_rank": queries.lora.rank, "latent_lora_alpha": queries.lora.alpha}
            own["latent_lora_targets"] = tuple(learned.training.get("latent_lora_targets", config.latent_lora_targets))
            if config.wise_ft_alpha < 1:
                raise ConfigError(f"wise_ft_alpha goes back to matrices that add nothing, and {name} has some already: leave it out.")
        own["init"] = learned.training.get("init", config.init)  # by which the learning rate is chosen where none is given
    elif isinstance(learned, FineTunedModel):
        own = {"method": learned.method, **{key: learned.training[key] for key in ("lora_rank", "lora_alpha", "train_vision_encoder")}}
    else:
        raise InputError(f"{name} ({learned.kind}) cannot be trained further: name an adapter, or a base model.")
    for key, value in own.items():
        given = getattr(config, key)
        if given not in (value, options_of(TrainConfig)[key].default):
            raise ConfigError(f"{key} is {given!r}, but {name} was learned with {value!r}: leave the option out to go on from it.")
    return replace(config, **own)
