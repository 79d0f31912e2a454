"""What a loss is given, what it is, and how the loss of a run is composed from the names that were chosen.

Shapes: B queries, C candidates, N vectors of an item before pooling, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Protocol, get_type_hints, runtime_checkable

from torch import Tensor

from slq.config.fields import NamedOptions, Option, check_names, checked
from slq.errors import PluginError
from slq.registry import Registry


@dataclass(frozen=True)
class LossBatch:
    """One batch as a loss sees it: states, embeddings, and who is whose positive.

    Attributes:
        queries_BND: (B, N, D) states of the queries before pooling, of any length.
        candidates_CND: (C, N, D) states of the candidates; positives first, then hard negatives.
        queries_BD: (B, D) pooled embeddings of length 1, float32.
        candidates_CD: (C, D) pooled embeddings of length 1, float32.
        positives_BC: (B, C) bool; every query has a positive, a hard negative is positive for none.
        temperature: scalar above 0, learned: the divisor of cosines.
    """

    queries_BND: Tensor
    candidates_CND: Tensor
    queries_BD: Tensor
    candidates_CD: Tensor
    positives_BC: Tensor
    temperature: Tensor


@runtime_checkable
class Loss(Protocol):
    """What training minimises; a dataclass whose fields, all with defaults, are its options, found by name in `losses`.

    A distribution adds one by an entry point of the group `slq.losses`; `--loss NAME:field=value` then trains with it. A loss that reads
    states instead of pooled embeddings says so by a class attribute `reads_states = True`: it is not repeated over `matryoshka_dims`.
    """

    def __call__(self, batch: LossBatch) -> Tensor:
        """The loss of a batch.

        Args:
            batch: see `LossBatch`; must not be changed.

        Returns:
            A scalar with gradient to what it reads.
        """
        ...


losses: Registry[type[Loss]] = Registry("slq.losses", Loss)


@dataclass(frozen=True)
class CombinedLoss:
    """The sum of several losses, in their order."""

    parts: tuple[Loss, ...]

    def __call__(self, batch: LossBatch) -> Tensor:
        """The sum over `parts`; see `Loss`."""
        total = self.parts[0](batch)
        for part in self.parts[1:]:
            total = total + part(batch)
        return total


def create_loss(chosen: NamedOptions, defaults: Mapping[str, Any] | None = None) -> Loss:
    """A loss by its name, with its options.

    Args:
        chosen: the name, and values for fields of the loss.
        defaults: values for those of the fields that the loss has and `chosen` leaves out.

    Raises:
        ConfigError: for an option that the loss does not have, or a value of another type.
        InputError: for an unknown name.
        PluginError: if a plugin's loss is no dataclass, or cannot be made.
    """
    kind = losses.get(chosen.name)
    if not is_dataclass(kind):
        raise PluginError(f"{chosen.name!r} of {losses.group} is no dataclass, so its options are unknown: decorate {kind!r}.")
    names = [each.name for each in fields(kind)]
    check_names(chosen.options, names, f"loss {chosen.name}")
    hints = get_type_hints(kind)
    given = {name: checked(Option("", type=hints[name]), value, f"loss {chosen.name}: {name}") for name, value in chosen.options.items()}
    try:
        return kind(**{name: value for name, value in (defaults or {}).items() if name in names}, **given)
    except TypeError as error:
        raise PluginError(f"{chosen.name!r} of {losses.group} cannot be made ({error}): give every field a default.") from error
