"""The tables of docs/judging.md, from research/results/judging.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from research.bench.claims import day, percent, result, table


def questions() -> str:
    found = result("judging")["question"]
    rows = [
        [
            f"`{wording.replace(chr(10), ' / ')}`" + (" (chosen)" if wording == found["chosen"] else ""),
            "item" if one["item_first"] else "text",
            area(one),
        ]
        for wording, one in found["test"].items()
    ]
    told = (
        f"Chosen on validation images; on the {found['validation']['images']} of them that had no part in it: {area(found['validation'])}. "
    )
    header = ["question", "first", "AUC: test images, each with its own caption and two others"]
    return table(header, rows) + f"\n{told}A slash is a line break. {day(result('judging'))}\n"


def cost() -> str:
    found = result("judging")["milliseconds_a_hit"]
    ways = ("kept prefixes", "prefixes read first", "reference")
    rows = [[name, *[f"{one[way]['median']:.1f}" for way in ways]] for name, one in found.items()]
    apart = max(one["largest_difference_of_log_odds"] for one in found.values())
    told = f"Kept prefixes and one pass differ by at most {apart:.0e} in the logarithm of the odds. {day(result('judging'))}\n"
    return table(["milliseconds a hit", *ways[:2], "one pass"], rows) + "\n" + told


def order() -> str:
    found = result("judging")["order"]
    rows = [
        [
            f"{name} ({one['judge alone, 10 hits']['queries']})",
            percent(one["judge alone, 10 hits"]["before"]),
            *[changed(one[f"{way}, {hits} hits"]) for way in ("judge alone", "with the similarity") for hits in (10, 50)],
            f"{one['weight']:g}",
        ]
        for name, one in found.items()
    ]
    header = ["queries, hit@1 in percent", "similarity", "judge alone: 10 hits", "50 hits", "both: 10 hits", "50 hits", "weight"]
    return table(header, rows) + f"\nIn brackets the change in points, with its interval. {day(result('judging'))}\n"


def cut_off() -> str:
    rows = []
    for name, one in result("judging")["cut-off"].items():
        for way, label in (("judged", "judged"), ("unjudged", "similarity alone")):
            cells = [figure(one[way][what]) for what in ("precision", "coverage", "told_nothing")]
            rows.append([name, label if one[way]["threshold"] is not None else f"{label}: out of reach, nothing is cut", *cells])
        rows.append([name, "gain of coverage", "", figure(one["gain"]), "judging helps" if one["helps"] else "no gain beyond chance"])
    return table(["queries", "cut by", "precision, %", "coverage, %", "told so, %"], rows) + f"\n{day(result('judging'))}\n"


def rewriting() -> str:
    found = result("judging")["rewriting"]
    rows = [
        [
            f"{name} ({one['fused']['hit@1']['queries']})",
            str(one["refused"]),
            *[cell for metric in ("hit@1", "hit@5") for cell in (percent(one["fused"][metric]["before"]), changed(one["fused"][metric]))],
            *[changed(one["alone"][metric]) for metric in ("hit@1", "hit@5")],
        ]
        for name, one in found["test"].items()
    ]
    header = ["queries", "refused", "hit@1", "with the rewriting", "hit@5", "with the rewriting", "rewriting alone: hit@1", "hit@5"]
    chosen = found["prompt"].replace("\n", " / ")
    return table(header, rows) + f"\nThe prompt that validation queries chose: `{chosen}`. {day(result('judging'))}\n"


def maps() -> str:
    rows = [
        [
            name,
            f"{one['hottest']:.3f}",
            f"{one['random']:.3f}",
            f"{one['difference']:.3f} ({one['bounds'][0]:.3f} to {one['bounds'][1]:.3f})",
            "yes" if one["faithful"] else "no",
            f"{1000 * one['seconds']:.0f}",
        ]
        for name, one in result("judging")["maps"].items()
    ]
    header = ["map", "hottest fifth takes", "a random fifth", "difference", "faithful", "CPU milliseconds"]
    return table(header, rows) + f"\n{day(result('judging'))}\n"


def area(one: Mapping[str, Any]) -> str:
    return f"{one['auc']:.2f} ({one['ci95'][0]:.2f} to {one['ci95'][1]:.2f})"


def changed(one: Mapping[str, Any]) -> str:
    """A score in percent, and its change in points."""
    low, high = (100 * bound for bound in one["ci95"])
    return f"{percent(one['after'])} ({100 * one['gain']:+.1f}: {low:+.1f} to {high:+.1f})"


def figure(one: Mapping[str, Any]) -> str:
    low, high = one["bounds"]
    return f"{100 * one['value']:.0f} ({100 * low:.0f} to {100 * high:.0f})"


TABLES: dict[str, Callable[[], str]] = {
    "judging questions": questions,
    "judging cost": cost,
    "judging order": order,
    "judging cut-off": cut_off,
    "judging rewriting": rewriting,
    "judging maps": maps,
}
