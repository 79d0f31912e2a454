"""A whole adaptation of the miniature, the naive way and ours: wall time of both, and how far apart the weights are at the end.

    python benchmarks/adaptation.py       writes benchmarks/results/adaptation.json

Naive is the recipe of the SLQ release: every step runs picture tower, prefix and latents in one pass, the autograd graph over all of it.
Ours reads every item once and then trains on kept prefixes; reading counts. Same pairs, batches, seed and schedule.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measuring import write_result

from slq.backbone import load_backbone
from slq.data import read_pairs
from slq.demo.run import RECIPE, TRAINING_PICTURES
from slq.miniature.export import write_world
from slq.training import train


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=TRAINING_PICTURES)
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = replace(RECIPE, epochs=options.epochs, seed=options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        write_world(Path(scratch) / "world", "train", options.pictures)
        pairs, backbone = read_pairs(Path(scratch) / "world").pairs, load_backbone()
        seconds, learned = {}, {}
        for way, prefix_split in (("ours", True), ("naive", False)):
            clock = time.perf_counter()
            retriever = train(pairs, backbone, Path(scratch) / way, replace(recipe, prefix_split=prefix_split))
            seconds[way], learned[way] = time.perf_counter() - clock, retriever.queries.latents.detach()
    result = {
        "seconds": {way: round(value, 1) for way, value in seconds.items()},
        "speed_up": round(seconds["naive"] / seconds["ours"], 2),
        "largest_difference_of_weights": (learned["naive"] - learned["ours"]).abs().max().item(),
        "largest_weight": learned["naive"].abs().max().item(),
        "pairs": len(pairs),
        "recipe": {name: value for name, value in recipe.that_decide_the_weights().items() if name != "prefix_split"},
    }
    write_result("adaptation", result, sys.argv, options.seed)


if __name__ == "__main__":
    main()
