"""Pooling: how the states of one item become its embedding.

Shapes: B batch, N states of an item (latent queries or tokens), G vectors of an embedding, D hidden size.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn import functional

from slq.errors import PluginError
from slq.registry import ADVICE, Registry


@runtime_checkable
class Pooling(Protocol):
    """States of items to embeddings; a class whose objects are made without arguments, found by name in `poolings`.

    A distribution adds one by an entry point of the group `slq.poolings`.
    """

    def __call__(self, states_BND: Tensor) -> Tensor:
        """Pool the states of a batch.

        Args:
            states_BND: (B, N, D), of any float type.

        Returns:
            (B, D) or (B, G, D) float32, each vector of length 1, with the states' gradient.
        """
        ...

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """The shape of one embedding, (D,) or (G, D).

        Args:
            dim: D, the hidden size of the model.
        """
        ...


poolings: Registry[type[Pooling]] = Registry("slq.poolings", Pooling, of="class")


def pool(pooling: Pooling, states_BND: Tensor) -> Tensor:
    """Embeddings of a batch by any pooling.

    Args:
        pooling: an object of one of `poolings`.
        states_BND: (B, N, D).

    Returns:
        (B, D) or (B, G, D) float32.

    Raises:
        PluginError: if the pooling is a plugin's, and raises an error, or gives other embeddings than it says.
    """
    with poolings.naming_plugin(pooling):
        found = pooling(states_BND)
        wanted = (len(states_BND), *pooling.vector_shape(states_BND.shape[-1]))
    if (plugin := poolings.origin(pooling)) and (not isinstance(found, Tensor) or found.shape != wanted or found.dtype != torch.float32):
        what = f"{tuple(found.shape)}, {found.dtype}" if isinstance(found, Tensor) else type(found).__name__
        raise PluginError(f"{plugin} must give float32 embeddings of the shape that its vector_shape says, {wanted}, not {what}. {ADVICE}")
    return found


def create_pooling(name: str) -> Pooling:
    """A pooling by its name.

    Args:
        name: one of `poolings.names()`.

    Raises:
        InputError: for an unknown name.
        PluginError: if it comes from a plugin that cannot be used.
    """
    kind = poolings.get(name)
    with poolings.naming_plugin(kind):
        return kind()


@poolings.register("mean")
@dataclass(frozen=True)
class MeanPooling:
    """The direction of the mean of all states.

    States that are 0, such as those of masked positions, count for nothing: only the direction is kept.

    Example:
        >>> import torch
        >>> MeanPooling()(torch.tensor([[[3.0, 0.0], [0.0, 4.0]]]))
        tensor([[0.6000, 0.8000]])
    """

    def __call__(self, states_BND: Tensor) -> Tensor:
        """(B, N, D) to (B, D); see `Pooling`."""
        return functional.normalize(states_BND.float().mean(dim=1), dim=-1)

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """(D,): one vector an item; see `Pooling.vector_shape`."""
        return (dim,)


@poolings.register("last")
@dataclass(frozen=True)
class LastPooling:
    """The direction of the last state: the last latent query's, or of left-padded tokens the last token's."""

    def __call__(self, states_BND: Tensor) -> Tensor:
        """(B, N, D) to (B, D); see `Pooling`."""
        return functional.normalize(states_BND[:, -1].float(), dim=-1)

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """(D,): one vector an item; see `Pooling.vector_shape`."""
        return (dim,)


@poolings.register("multi_vector")
@dataclass(frozen=True)
class MultiVectorPooling:
    """The directions of the first states as vectors of their own, to be compared by late interaction.

    Args:
        size: how many of them.
    """

    size: int = 1

    def __call__(self, states_BND: Tensor) -> Tensor:
        """(B, N, D) to (B, G, D); see `Pooling`."""
        return functional.normalize(states_BND[:, : self.size].float(), dim=-1)

    def vector_shape(self, dim: int) -> tuple[int, ...]:
        """(G, D): `size` vectors an item; see `Pooling.vector_shape`."""
        return (self.size, dim)
