"""The six kinds of knowledge a query may ask for, and how many queries of each a set is to have.

>>> quotas(CATEGORIES, 100)["logic_maths"], sum(quotas(CATEGORIES, 100).values())
(11, 100)
"""

from __future__ import annotations

from collections.abc import Mapping

from slq.errors import InputError

# Fractions of KARR-Bench's 2,915 queries.
CATEGORIES: dict[str, float] = {
    "cultural_symbolism": 0.194,
    "tool_utility": 0.188,
    "contextual_spatial": 0.181,
    "functional": 0.174,
    "encyclopaedic": 0.149,
    "logic_maths": 0.114,
}


def label(category: str) -> str:
    """A category's name for people.

    >>> label("logic_maths")
    'logic and maths'
    """
    labels = {"contextual_spatial": "contextual and spatial", "logic_maths": "logic and maths"}
    return labels.get(category, category.replace("_", " "))


def parse_mix(text: str) -> dict[str, float]:
    """Fractions from `logic_maths=1,functional=2`: weights of any size, categories that are not named get nothing.

    Args:
        text: category=weight, separated by commas.

    Returns:
        Category -> fraction; together they are 1.

    Raises:
        InputError: for an unknown category, a weight that is none, or no weight above 0.
    """
    weights = dict.fromkeys(CATEGORIES, 0.0)
    for part in text.split(","):
        name, _, value = part.partition("=")
        try:
            weights[name.strip()] += float(value)
        except (KeyError, ValueError):
            raise InputError(f"The mix {text!r} is wrong at {part!r}: write category=weight, categories {', '.join(CATEGORIES)}.") from None
    total = sum(weights.values())
    if min(weights.values()) < 0 or not 0 < total < float("inf"):
        raise InputError(f"The mix {text!r} needs weights of 0 and more, one of them above 0.")
    return {name: weight / total for name, weight in weights.items()}


def quotas(mix: Mapping[str, float], count: int) -> dict[str, int]:
    """How many queries each category gets: whole numbers closest to the mix, that add up (largest remainders).

    Args:
        mix: category -> weight.
        count: queries in all.

    Returns:
        Category -> number.
    """
    total = sum(mix.values())
    exact = {name: count * fraction / total for name, fraction in mix.items()}
    whole = {name: int(value) for name, value in exact.items()}
    left = sorted(exact, key=lambda name: whole[name] - exact[name])[: count - sum(whole.values())]
    return {name: value + (name in left) for name, value in whole.items()}
