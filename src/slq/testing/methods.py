"""The contract of a training method of `slq.methods`: what it starts from, what learns, and that what it saves is loaded again."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slq.config import TrainConfig
from slq.config.fields import result_settings
from slq.encoders import load_encoder
from slq.encoders.base import Encoder
from slq.io.provenance import parameter_hash
from slq.models import FrozenModel
from slq.models.invariance import probe_items
from slq.testing.subject import Subject, shown
from slq.training.methods import Method, Trainable

CLOSE = 1e-5  # of embeddings of length 1, in float32


def check_method(method: Method, model: FrozenModel, config: TrainConfig | None = None) -> None:
    """Hold a training method to what the training loop and the other commands rely on.

    Args:
        method: the object that is registered.
        model: a base model in float32, such as `load_model("miniature")`.
        config: the options of a run; None for the defaults.

    Raises:
        AssertionError: naming the method, the first promise that does not hold, and what it did.
    """
    subject, config = Subject("method", method), config or TrainConfig()
    subject.must("be given as an object", not isinstance(method, type), "is a class")
    subject.has(method, "learning_rate", "create", "load")
    with subject.trying("give a learning rate by learning_rate(model, config)"):
        rate = method.learning_rate(model, config)
    is_rate = isinstance(rate, float) and 0 < rate < math.inf
    subject.must("give a learning rate above 0", is_rate, f"gave {shown(rate)}")
    before = parameter_hash(model.model)
    trainable = _created(subject, method, model, config)
    subject.must("leave the base model as it is", parameter_hash(model.model) == before, "changed its weights when it created")
    start = _encode(subject, trainable.encoder)
    _hold(subject, "start from the same values each time", _encode(subject, _created(subject, method, model, config).encoder), start)
    fingerprint = trainable.encoder.fingerprint
    _step(subject, trainable, rate)
    subject.must("have another fingerprint once it has learned", trainable.encoder.fingerprint != fingerprint, "has the same")
    subject.must("leave the base model as it is", parameter_hash(model.model) == before, "changed its weights by a step")
    _check_saved(subject, method, trainable, model, config)
    with subject.trying("go back to its start by interpolate(0)"):
        trainable.interpolate(0.0)
    _hold(subject, "be at its start again after interpolate(0)", _encode(subject, trainable.encoder), start)


def _created(subject: Subject, method: Method, model: FrozenModel, config: TrainConfig) -> Trainable:
    with subject.trying("create what is trained by create(model, config)"):
        trainable = method.create(model, config)
    subject.must("create a slq.training.methods.Trainable", isinstance(trainable, Trainable), f"gave {shown(trainable)}")
    subject.must("create one with an encoder", isinstance(getattr(trainable, "encoder", None), Encoder), "gave one without")
    parameters = list(trainable.parameters())
    learns = parameters and all(each.requires_grad for each in parameters)
    subject.must(
        "create one whose parameters all learn", learns, f"gave {len(parameters)}, not all of which do" if parameters else "gave none"
    )
    return trainable


def _step(subject: Subject, trainable: Trainable, rate: float) -> None:
    """One step of training on three items that are alike to none."""
    items = probe_items()
    with subject.trying("give states of items by states(items, {})"):
        states_BND = trainable.states(items, {})
    is_states = isinstance(states_BND, Tensor) and states_BND.ndim == 3 and len(states_BND) == len(items) and states_BND.requires_grad
    subject.must(f"give states ({len(items)}, N, D) with gradient", is_states, f"gave {shown(states_BND)}")
    temperature = trainable.temperature
    is_divisor = isinstance(temperature, Tensor) and temperature.ndim == 0 and temperature > 0
    subject.must("have a temperature, a scalar above 0", is_divisor, f"has {shown(temperature)}")
    with subject.trying("learn by a step of AdamW over parameter_groups(learning_rate)"):
        optimizer = torch.optim.AdamW(trainable.parameter_groups(rate))
        embeddings = trainable.encoder.pooling(states_BND).flatten(1)
        ((embeddings @ embeddings.T).sum() / temperature).backward()
        reached = any(each.grad is not None and each.grad.any() for each in trainable.parameters())
        optimizer.step()
    subject.must("pass the gradient of its states on to its parameters", reached, "gave none of them a gradient")


def _check_saved(subject: Subject, method: Method, trainable: Trainable, model: FrozenModel, config: TrainConfig) -> None:
    """What is saved is loaded by the method, and by the commands that take what `slq train` writes."""
    wanted = _encode(subject, trainable.encoder)
    ways: dict[str, Any] = {"its own load(folder, model)": method.load, "slq.encoders.load_encoder(folder, model)": load_encoder}
    with tempfile.TemporaryDirectory() as folder:
        with subject.trying("save what was learned by save(folder, training)"):
            trainable.save(Path(folder), result_settings(config))
        for way, load in ways.items():
            with subject.trying(f"save what is loaded by {way}"):
                loaded = load(Path(folder), model)
            subject.must(f"give an Encoder by {way}", isinstance(loaded, Encoder), f"gave {shown(loaded)}")
            _hold(subject, f"give the same embeddings when loaded by {way}", _encode(subject, loaded), wanted)
            same = loaded.fingerprint == trainable.encoder.fingerprint
            subject.must(f"have the same fingerprint when loaded by {way}", same, "has another")


def _encode(subject: Subject, encoder: Encoder) -> np.ndarray:
    with subject.trying("encode a text, an image, and both"):
        return encoder.encode(probe_items()).vectors


def _hold(subject: Subject, asked: str, found: np.ndarray, wanted: np.ndarray) -> None:
    subject.must(asked, found.shape == wanted.shape, f"gave embeddings {found.shape} instead of {wanted.shape}")
    difference = float(np.abs(found - wanted).max())
    subject.must(asked, difference <= CLOSE, f"gave embeddings that differ by {difference:.1e}")
