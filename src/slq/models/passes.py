"""What one pass over the shared model changes, for as long as it lasts; the model's lock is held meanwhile, so no other pass sees it.

Shapes: B batch, T tokens, N latent queries, D hidden size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from slq.errors import ModelError
from slq.models.latent_lora import LatentLora, LoraOfRows

Lora = LatentLora | Sequence[LatentLora | None] | None  # for all items, or one for each


@contextmanager
def read_states(model: Any, hidden_state: str) -> Iterator[None]:
    """Leave out the last layer's MLP for `pre_mlp`: it adds nothing then, and the final norm sees what attention gave.

    Args:
        model: transformers' model.
        hidden_state: `final`, which changes nothing, or `pre_mlp`.

    Raises:
        ModelError: for a last layer without an MLP of that name.
    """
    if hidden_state == "final":
        yield
        return
    last = model.get_decoder().layers[-1]
    if not hasattr(last, "mlp"):
        raise ModelError(f"The last layer of a {model.config.model_type} model has no `mlp` to leave out: read `final` states.")
    handle = last.mlp.register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def latents_in_place_of_filler(embedding: nn.Module, latents: Tensor) -> Iterator[None]:
    """Replace the embeddings of the last N tokens, out of place, so that gradients reach the latents.

    Args:
        embedding: the model's input embeddings.
        latents: (N, D) or (B, N, D).
    """

    def replace_last(_module: Any, _inputs: Any, embedded_BTD: Tensor) -> Tensor:
        own = embedded_BTD[:, : -latents.shape[-2]]
        return torch.cat([own, latents.to(own.dtype).expand(len(own), -1, -1)], dim=1)

    handle = embedding.register_forward_hook(replace_last)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def lora_at_latents(model: Any, lora: Lora, count: int) -> Iterator[None]:
    """Add low-rank updates to linear layers of the decoder at the last N positions, and nowhere else.

    Args:
        model: transformers' model.
        lora: of all items, or a list with one for each item, None for those without.
        count: N.
    """
    decoder = model.get_decoder()
    with ExitStack() as hooks:
        for each, rows in _rows_of(lora):
            for name, layer in each.by_layer.items():
                add = partial(_add_update, LoraOfRows(layer, each.scale, rows), count)
                hooks.callback(decoder.get_submodule(name).register_forward_hook(add).remove)
        yield


def _rows_of(lora: Lora) -> list[tuple[LatentLora, list[int] | None]]:
    """Each set of matrices with the rows of the batch that it is for; None for all."""
    if lora is None or isinstance(lora, LatentLora):
        return [] if lora is None else [(lora, None)]
    distinct = [each for place, each in enumerate(lora) if each is not None and lora.index(each) == place]
    return [(each, [row for row, of_row in enumerate(lora) if of_row is each]) for each in distinct]


def _add_update(update: LoraOfRows, count: int, _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    return update.add(inputs[0], output, count)
