"""Kappa against numbers worked out by hand, published examples, and scikit-learn."""

from __future__ import annotations

import random

import pytest
from slq_karr.agreement import agreement, cohen_kappa, fleiss_kappa

from slq.errors import InputError

# Fleiss (1971) as on Wikipedia's page of the statistic: 10 items, 14 raters, 5 categories; 0.210.
COUNTS = [
    *([0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1]),
    *([7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7]),
]


def pairs(table: dict[tuple[str, str], int]) -> tuple[list[str], list[str]]:
    rows = [pair for pair, count in table.items() for _ in range(count)]
    return [one for one, _ in rows], [other for _, other in rows]


def test_cohen_by_hand():
    # 50 grants: both yes 20, both no 15. p = 0.7; habits 25/50 and 30/50, so e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5; (0.7 - 0.5) / 0.5.
    assert cohen_kappa(*pairs({("y", "y"): 20, ("y", "n"): 5, ("n", "y"): 10, ("n", "n"): 15})) == pytest.approx(0.4)
    # Same p = 0.6, other habits: e = 0.54 and 0.46.
    assert cohen_kappa(*pairs({("y", "y"): 45, ("y", "n"): 15, ("n", "y"): 25, ("n", "n"): 15})) == pytest.approx(0.06 / 0.46)
    assert cohen_kappa(*pairs({("y", "y"): 25, ("y", "n"): 35, ("n", "y"): 5, ("n", "n"): 35})) == pytest.approx(0.14 / 0.54)


@pytest.mark.parametrize(
    ("one", "other", "kappa"),
    [("ab", "ab", 1.0), ("ab", "ba", -1.0), ("aabb", "abab", 0.0), ("", "", None), ("aa", "aa", None), ("aa", "ab", 0.0)],
)
def test_cohen_at_the_edges(one, other, kappa):
    assert cohen_kappa(one, other) == kappa


def test_cohen_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    draw = random.Random(0)
    for size in (2, 7, 100):
        one = [draw.choice(["accept", "edit", "reject"]) for _ in range(size)]
        other = [each if draw.random() < 0.6 else draw.choice(["accept", "reject"]) for each in one]
        assert cohen_kappa(one, other) == pytest.approx(metrics.cohen_kappa_score(one, other))


def test_fleiss_published_example():
    ratings = [[str(label) for label, count in enumerate(row) for _ in range(count)] for row in COUNTS]
    assert fleiss_kappa(ratings) == pytest.approx(0.20993, abs=1e-5)


def test_fleiss_by_hand():
    # aaa: 1, aab: 1/3; mean 2/3. Labels 5 a, 1 b of 6: e = 26/36. (24/36 - 26/36) / (10/36).
    assert fleiss_kappa(["aaa", "aab"]) == pytest.approx(-0.2)
    assert fleiss_kappa(["aaa", "bbb"]) == 1.0
    assert fleiss_kappa(["aaa", "aaa"]) is None and fleiss_kappa([]) is None


def test_fleiss_of_two_pools_their_habits():
    # Scott's pi: p = 3/4, labels 5 a, 3 b of 8, e = 34/64; (48/64 - 34/64) / (30/64). Cohen's own habits give 1/2.
    rows = ["aa", "aa", "ab", "bb"]
    assert fleiss_kappa(rows) == pytest.approx(14 / 30)
    assert cohen_kappa([row[0] for row in rows], [row[1] for row in rows]) == pytest.approx(0.5)


def test_unequal_numbers_are_refused():
    with pytest.raises(InputError, match="2 and 1"):
        cohen_kappa("ab", "a")
    with pytest.raises(InputError, match="two or more reviewers"):
        fleiss_kappa(["aa", "a"])
    with pytest.raises(InputError, match="two or more reviewers"):
        fleiss_kappa(["a", "b"])


def test_agreement_is_of_what_all_decided_then_of_pairs():
    decisions = {"ada": {"q1": "a", "q2": "r", "q3": "a"}, "grace": {"q1": "a", "q2": "r"}, "mary": {"q2": "a", "q9": "a"}}
    everyone, *of_two = agreement(decisions)
    assert everyone.reviewers == ("ada", "grace", "mary") and everyone.items == 1 and everyone.observed == 0.0
    assert everyone.statistic == "Fleiss' kappa" and everyone.kappa == pytest.approx((1 / 3 - 5 / 9) / (4 / 9))
    assert [(each.reviewers, each.items, each.kappa) for each in of_two] == [
        (("ada", "grace"), 2, 1.0),
        (("ada", "mary"), 1, 0.0),
        (("grace", "mary"), 1, 0.0),
    ]


def test_agreement_without_company_or_shared_items():
    assert agreement({}) == agreement({"ada": {"q1": "a"}}) == []
    [row] = agreement({"ada": {"q1": "a"}, "grace": {"q2": "a"}})
    assert (row.items, row.observed, row.kappa) == (0, None, None)
