"""How well `slq_karr.leaks` tells queries that name their target from queries that do not.

    python -m research.bench.karr_leaks

On the labelled examples of packages/slq-karr/tests/leaks.jsonl: those it was developed on, and those held out (other targets, labelled
before the first run, which is the one that counts). And on the picture-book world's facts, every one written so as not to name its thing:
how many are suspected; they were looked at during development. Writes research/results/karr-leaks.json with every error.
"""

from __future__ import annotations

import argparse
import json
import sys

from slq_karr.leaks import find_leaks

from research.bench.measuring import ROOT, write_result
from slq import compat  # noqa: F401  (before provenance imports anything of transformers)
from slq.miniature.world.concepts import all_facts

EXAMPLES = ROOT / "packages" / "slq-karr" / "tests" / "leaks.jsonl"


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    examples = [json.loads(line) for line in EXAMPLES.read_text(encoding="utf-8").splitlines()]
    result = {part: measure([each for each in examples if each["part"] == part]) for part in ("development", "held-out")}
    write_result("karr-leaks", {**result, "facts of the picture-book world": suspected_facts()}, sys.argv, seed=0)


def measure(examples: list[dict]) -> dict:
    """Precision and recall of saying "leaks", the same by kind of example, and every error with what was found."""
    found = [find_leaks(each["query"], each["target"]) for each in examples]
    said = [(each, bool(leaks)) for each, leaks in zip(examples, found, strict=True)]
    right = sum(leaks and each["leaks"] for each, leaks in said)
    kinds = sorted({(each["leaks"], each["kind"]) for each in examples}, reverse=True)
    return {
        "examples": len(examples),
        "of which leak": sum(each["leaks"] for each in examples),
        "precision": round(right / sum(leaks for _, leaks in said), 4),
        "recall": round(right / sum(each["leaks"] for each in examples), 4),
        "right by kind": {f"{'leak' if leak else 'clean'}: {kind}": of_kind(said, leak, kind) for leak, kind in kinds},
        "errors": [
            {"target": each["target"], "query": each["query"], "leaks": each["leaks"], "kind": each["kind"], "found": shown(leaks)}
            for each, leaks in zip(examples, found, strict=True)
            if bool(leaks) != each["leaks"]
        ],
    }


def of_kind(said: list[tuple[dict, bool]], leak: bool, kind: str) -> str:
    right = [leaks == leak for each, leaks in said if (each["leaks"], each["kind"]) == (leak, kind)]
    return f"{sum(right)} of {len(right)}"


def suspected_facts() -> dict:
    """Facts that the checker takes for leaks, though their authors named neither the thing nor a synonym."""
    facts = [(fact.concept, text) for fact in all_facts() for text in fact.phrasings]
    suspected = {(name, text): leaks for name, text in facts if (leaks := find_leaks(text, name))}
    return {
        "facts": len(facts),
        "suspected": len(suspected),
        "which": [{"target": name, "query": text, "found": shown(leaks)} for (name, text), leaks in suspected.items()],
    }


def shown(leaks: list) -> list[str]:
    return [f"{leak.word}: {leak.reason}" for leak in leaks]


if __name__ == "__main__":
    main()
