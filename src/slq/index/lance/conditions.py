"""Filters as conditions that LanceDB evaluates itself.

A condition is SQL, and no text of a user enters it: names and values stand there as numbers of 63 bits that hash them, bounds of a range as
numbers. What cannot be said so is left to Python, which then looks at all rows: ranges of texts, whole numbers beyond what a float holds.
"""

from __future__ import annotations

from dataclasses import dataclass

from slq.index.filters import COLUMNS, And, Eq, Filter, In, Not, Range
from slq.index.lance.rows import fact_hash, name_hash


@dataclass(frozen=True)
class Condition:
    """What LanceDB can tell of a filter.

    Attributes:
        sql: true of all rows that pass the filter, and maybe of more.
        is_exact: whether it is true of no others, rows that are odd left aside.
    """

    sql: str
    is_exact: bool


ALL, NONE = Condition("true", True), Condition("false", True)
_UNKNOWN = Condition("true", False)


def condition(filter: Filter) -> Condition:
    """A filter as a condition; see `slq.index.filters.matches` for its meaning.

    Args:
        filter: the tree.
    """
    match filter:
        case Eq(name, value):
            return Condition(f"array_has(facts, {fact_hash(name, value)})", True)
        case In(name, values):
            if not values:
                return NONE
            hashes = ", ".join(str(fact_hash(name, value)) for value in values)
            return Condition(f"array_has_any(facts, make_array({hashes}))", True)
        case Range():
            return _range(filter)
        case And(parts):
            found = [condition(part) for part in parts]
            sql = " and ".join(f"({each.sql})" for each in found) or ALL.sql
            return Condition(sql, all(each.is_exact for each in found))
        case Not(part):
            inner = condition(part)
            return Condition(f"not ({inner.sql})", True) if inner.is_exact else _UNKNOWN


def or_odd(sql: str) -> str:
    """A condition that rows with numbers that no float holds pass in any case; Python looks at them.

    Args:
        sql: of a condition.
    """
    return f"is_odd or ({sql})"


def _range(filter: Range) -> Condition:
    bounds = [bound for bound in (filter.low, filter.high) if bound is not None]
    texts = [bound for bound in bounds if isinstance(bound, str)]
    if texts and len(texts) < len(bounds):
        return NONE  # nothing lies between a text and a number
    if not bounds or texts:
        return _UNKNOWN
    if filter.field in COLUMNS:
        return NONE  # which hold texts
    if any(float(bound) != bound for bound in bounds):
        return _UNKNOWN
    number = f"array_element(numbers, cast(array_position(names, {name_hash(filter.field)}) as bigint))"
    parts = [f"{number} >= {_literal(filter.low)}"] if filter.low is not None else []
    parts += [f"{number} <= {_literal(filter.high)}"] if filter.high is not None else []
    return Condition(f"coalesce({' and '.join(parts)}, false)", True)


def _literal(bound: int | float | str | None) -> str:
    return f"cast({float(bound or 0) + 0.0!r} as double)"  # -0.0 would be less than 0.0
