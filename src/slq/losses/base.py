"""What a loss is given, what it is, and how the loss of a run is composed from the names that were chosen.

Shapes: B queries, C candidates, N vectors of an item before pooling, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import UnionType
from typing import Any, Protocol, Union, get_args, get_origin, get_type_hints, runtime_checkable

from torch import Tensor

from slq.config.fields import NamedOptions, Option, check_names, checked
from slq.errors import PluginError
from slq.registry import ADVICE, Registry


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


def fault_of_loss(name: str, kind: Any) -> str:
    """Why a class cannot be chosen as a loss with options, in words that go on from it; empty if it can.

    Args:
        name: under which it is registered.
        kind: the class.
    """
    if not is_dataclass(kind):
        return "must be a dataclass, whose fields are its options: put @dataclass(frozen=True) above the class"
    if bare := [each.name for each in fields(kind) if each.init and each.default is MISSING and each.default_factory is MISSING]:
        return f"must have a default for every field, and has none for {', '.join(bare)}"
    try:
        hints = get_type_hints(kind)
    except Exception as error:  # a name that is imported for type checkers alone, or misspelt
        return f"must have types of its fields that can be looked up when it runs: {error}"
    if odd := [each.name for each in fields(kind) if not _can_be_checked(hints[each.name])]:
        return f"must have fields of bool, int, float, str or a tuple of one of them, or None beside it: {', '.join(odd)}"
    return ""


def _can_be_checked(hint: Any) -> bool:
    """Whether `checked` can hold a value to a field's type."""
    allowed = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    wanted = next(each for each in allowed if each is not type(None))
    if get_origin(wanted) is tuple:
        wanted = get_args(wanted)[0]
    return isinstance(wanted, type) and get_origin(wanted) is None


losses: Registry[type[Loss]] = Registry("slq.losses", Loss, of="class", check=fault_of_loss)


def loss_of(part: Loss, batch: LossBatch) -> Tensor:
    """The loss of a batch by one part of a combined loss.

    Args:
        part: the loss.
        batch: see `LossBatch`.

    Returns:
        A scalar.

    Raises:
        PluginError: if the loss is a plugin's, and raises an error, or gives no scalar with gradient.
    """
    with losses.naming_plugin(part):
        value = part(batch)
    if plugin := losses.origin(part):
        if not isinstance(value, Tensor) or value.ndim:
            found = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(type(value).__name__)
            raise PluginError(f"{plugin} must give a scalar tensor, and gave {found}. {ADVICE}")
        if batch.queries_BND.requires_grad and not value.requires_grad:
            raise PluginError(f"{plugin} must give a loss with gradient to the states or embeddings, and gave one without. {ADVICE}")
    return value


@dataclass(frozen=True)
class CombinedLoss:
    """The sum of several losses, in their order."""

    parts: tuple[Loss, ...]

    def __call__(self, batch: LossBatch) -> Tensor:
        """The sum over `parts`; see `Loss`."""
        total = loss_of(self.parts[0], batch)
        for part in self.parts[1:]:
            total = total + loss_of(part, batch)
        return total


def create_loss(chosen: NamedOptions, defaults: Mapping[str, Any] | None = None) -> Loss:
    """A loss by its name, with its options.

    Args:
        chosen: the name, and values for fields of the loss.
        defaults: values for those of the fields that the loss has and `chosen` leaves out.

    Raises:
        ConfigError: for an option that the loss does not have, or a value of another type.
        InputError: for an unknown name.
        PluginError: if a plugin's loss cannot be used, or cannot be made.
    """
    kind = losses.get(chosen.name)
    names = [each.name for each in fields(kind) if each.init]  # type: ignore[arg-type]
    check_names(chosen.options, names, f"loss {chosen.name}")
    hints = get_type_hints(kind)
    given = {name: checked(Option("", type=hints[name]), value, f"loss {chosen.name}: {name}") for name, value in chosen.options.items()}
    with losses.naming_plugin(kind):
        return kind(**{name: value for name, value in (defaults or {}).items() if name in names}, **given)
