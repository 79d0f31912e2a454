"""Filters as a person writes them: `price<20`, `colour=red,blue`, `brand!=none`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from slq.errors import InputError
from slq.index.store import And, Eq, Filter, In, Not, Range, Scalar

_CONDITION = re.compile(r"\s*(?P<field>[^<>=!]*[^<>=!\s])\s*(?P<operator><=|>=|!=|=|<|>)(?P<value>.*)", re.DOTALL)
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")


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


def _parts(condition: str) -> tuple[Filter, ...]:
    match = _CONDITION.fullmatch(condition)
    if match is None or not match["value"].strip():
        raise InputError(f"{condition[:100]!r} is no filter: write a field, one of = != < <= > >=, and a value, such as 'price<20'.")
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
