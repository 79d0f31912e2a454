"""Filters as a person writes them."""

from __future__ import annotations

import numpy as np
import pytest

from slq.errors import InputError
from slq.index import Row
from slq.index.filters import And, Eq, In, Not, Range, as_scalar, check_filter, matches, parse_filter


@pytest.mark.parametrize(
    ("conditions", "wanted"),
    [
        ([], None),
        (["colour=red"], Eq("colour", "red")),
        (["colour = red, blue"], In("colour", ("red", "blue"))),
        (["colour!=red"], Not(Eq("colour", "red"))),
        (["price>=2.5"], Range("price", low=2.5)),
        (["price<20"], And((Range("price", high=20), Not(Eq("price", 20))))),
        (["new=true", "price>-1"], And((Eq("new", True), Range("price", low=-1), Not(Eq("price", -1))))),
        (["code=007"], Eq("code", "007")),
        (["in stock=a=b"], Eq("in stock", "a=b")),
    ],
)
def test_conditions_become_a_filter(conditions, wanted):
    assert parse_filter(conditions) == wanted
    check_filter(parse_filter(conditions))


@pytest.mark.parametrize("condition", ["", "price", "<20", "price<", "price=", " = 3", "new>true"])
def test_what_is_no_condition_is_refused(condition):
    with pytest.raises(InputError, match=r"is not a filter|neither more nor less"):
        parse_filter([condition])


def test_a_number_is_one_in_a_cell_and_in_a_filter():
    row = Row("a", np.zeros(1), metadata={"price": as_scalar("19.90")})
    for condition, passes in (("price<20", True), ("price=19.9", True), ("price>19.9", False)):
        found = parse_filter([condition])
        assert found is not None and matches(found, row) == passes
