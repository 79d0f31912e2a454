"""Filters: which rows of a store a search may find, as trees of values, and as a person writes them: `price<20`, `colour=red,blue`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from slq.errors import InputError

if TYPE_CHECKING:
    from slq.index.store import Row

Scalar = str | int | float | bool
COLUMNS = ("id", "text", "image", "content_hash")  # of a row; any other field of a filter is one of its metadata
_CONDITION = re.compile(r"\s*(?P<field>[^<>=!]*[^<>=!\s])\s*(?P<operator><=|>=|!=|=|<|>)(?P<value>.*)", re.DOTALL)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


@dataclass(frozen=True)
class Eq:
    """A field has this value. A number never equals a text or a bool."""

    field: str
    value: Scalar


@dataclass(frozen=True)
class In:
    """A field has one of these values."""

    field: str
    values: tuple[Scalar, ...]


@dataclass(frozen=True)
class Range:
    """A field lies between two bounds, which belong to it; None for no bound. Numbers and texts, each among themselves."""

    field: str
    low: int | float | str | None = None
    high: int | float | str | None = None


@dataclass(frozen=True)
class And:
    """All parts hold; always without parts."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True)
class Not:
    """The part does not hold; true of a row that lacks the part's field."""

    part: Filter


Filter = Eq | In | Range | And | Not


def matches(filter: Filter, row: Row) -> bool:
    """Whether a row passes a filter: the meaning of filters, for every store.

    Args:
        filter: the tree.
        row: what is asked about.
    """
    match filter:
        case Eq(name, value):
            return _same(_value(row, name), value)
        case In(name, values):
            found = _value(row, name)
            return any(_same(found, value) for value in values)
        case Range(name, low, high):
            return _lies_between(_value(row, name), low, high)
        case And(parts):
            return all(matches(part, row) for part in parts)
        case Not(part):
            return not matches(part, row)


def check_filter(filter: Filter | None) -> None:
    """Refuse what is no filter.

    Args:
        filter: the tree; None passes.

    Raises:
        InputError: for anything but the five kinds of filter with values of their types.
    """
    match filter:
        case None:
            return
        case And(parts) if isinstance(parts, tuple):
            for part in parts:
                check_filter(part) if part is not None else _refuse(part)
        case Not(part) if part is not None:
            check_filter(part)
        case Eq(str(), value) if is_scalar(value):
            return
        case In(str(), values) if isinstance(values, tuple) and all(map(is_scalar, values)):
            return
        case Range(str(), low, high) if all(bound is None or (is_scalar(bound) and not isinstance(bound, bool)) for bound in (low, high)):
            return
        case _:
            _refuse(filter)


def is_scalar(value: object) -> bool:
    """Whether a value can be a row's metadata: a text, a finite number of at most 64 bits, or a bool.

    Args:
        value: of any type.
    """
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return isinstance(value, str) or (isinstance(value, float) and math.isfinite(value))


def as_scalar(text: str) -> Scalar:
    """A text as the number or the truth value that it writes; any other as it is, also one with leading zeros, which is a code.

    Args:
        text: a value of a table's cell, or of a filter.

    Example:
        >>> as_scalar("19.90"), as_scalar("007"), as_scalar("true")
        (19.9, '007', True)
    """
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text) and len(text) <= 18:
        return float(text) if "." in text else int(text)
    return text


def as_scalars(columns: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Columns of a table's row as filters compare them: in a CSV file every value is a text, and what writes a number is one.

    Args:
        columns: values by name.
    """
    return {name: as_scalar(value) if isinstance(value, str) else value for name, value in columns.items()}


def parse_filter(conditions: Sequence[str]) -> Filter | None:
    """Conditions that all hold, as one filter.

    Args:
        conditions: each a field, one of `= != < <= > >=`, and a value; of `=` and `!=` several values, separated by commas.

    Returns:
        The filter; None for no conditions.

    Raises:
        InputError: for what is no condition.

    Example:
        >>> parse_filter(["price<20"])
        And(parts=(Range(field='price', low=None, high=20), Not(part=Eq(field='price', value=20))))
    """
    parts = tuple(part for condition in conditions for part in _parts(condition))
    return And(parts) if len(parts) > 1 else parts[0] if parts else None


def _value(row: Row, name: str) -> Scalar | None:
    return getattr(row, name) if name in COLUMNS else row.metadata.get(name)


def _same(found: Scalar | None, value: Scalar) -> bool:
    return found is not None and isinstance(found, bool) == isinstance(value, bool) and found == value


def _lies_between(found: Any, low: Any, high: Any) -> bool:
    """Whether numbers among numbers, or texts among texts, are in order."""
    if found is None or isinstance(found, bool):
        return False
    bounds = [bound for bound in (low, high) if bound is not None]
    if any(isinstance(bound, str) != isinstance(found, str) for bound in bounds):
        return False
    return (low is None or low <= found) and (high is None or found <= high)


def _refuse(filter: object) -> None:
    raise InputError(f"{filter!r:.300} is not a filter; build one of Eq, In, Range, And and Not, with texts, numbers and bools")


def _parts(condition: str) -> tuple[Filter, ...]:
    match = _CONDITION.fullmatch(condition)
    if match is None or not match["value"].strip():
        raise InputError(f"{condition[:100]!r} is not a filter: write a field, one of = != < <= > >=, and a value, such as 'price<20'.")
    field, operator, text = match["field"], match["operator"], match["value"].strip()
    if operator in ("=", "!="):
        values = tuple(as_scalar(each.strip()) for each in text.split(","))
        one: Filter = In(field, values) if len(values) > 1 else Eq(field, values[0])
        return (one if operator == "=" else Not(one),)
    value = as_scalar(text)
    if isinstance(value, bool):
        raise InputError(f"{condition[:100]!r}: {text} is neither more nor less than anything; use = or !=.")
    between = Range(field, low=value) if operator[0] == ">" else Range(field, high=value)
    return (between,) if operator.endswith("=") else (between, Not(Eq(field, value)))
