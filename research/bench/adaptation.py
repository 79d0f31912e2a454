"""A whole adaptation of the miniature, the naive way and ours: wall time of both, and how far apart the weights are at the end.

    python -m research.bench.adaptation       writes research/results/adaptation.json

Naive is the recipe of the SLQ release: every step runs vision encoder, prefix and latents in one pass, the autograd graph over all of it,
with a row for every image and caption. Ours reads every item once and then trains on cached prefixes; reading counts. Run once more with
prefixes cached on disk, it finds them there. In 8 bits keys and values are rounded, so its weights are other ones: how far off they are,
and how they score, stands beside. Same pairs, batches, seed and schedule.

Two schedules with the same number of uses of an image and a caption: one caption of an image in a step (the demo's recipe, 4 epochs), and
both captions in a step (2 epochs), where ours runs the image once and naive once for each.
Ours and naive take three turns, the other ways one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from torch import Tensor

from research.bench.measuring import statistics_of, write_result
from slq.config.fields import result_settings
from slq.data import read_pairs
from slq.demo.run import RECIPE, TRAINING_IMAGES
from slq.losses.info_nce import info_nce
from slq.miniature.export import write_sample_data
from slq.models import load_model
from slq.pooling import MeanPooling
from slq.training import TrainConfig, train
from slq.training.batches import ContrastiveBatch
from slq.training.step import ContrastiveStep


class RowForEachCaption(ContrastiveStep):
    """The same loss with an image run once for each of its captions in the batch, as where rows are pairs."""

    def forward(self, batch: ContrastiveBatch, prefetched: object = None) -> Tensor:
        times = batch.positives.sum(dim=1)
        rows = [query for query, count in zip(batch.queries, times.tolist(), strict=True) for _ in range(count)]
        rows_RD, candidates_CD = MeanPooling()(self.trainable.encoder.states([*rows, *batch.candidates])).split(
            [len(rows), len(batch.candidates)]
        )
        queries_BD = rows_RD.new_zeros(len(times), rows_RD.shape[1])
        of_row = times.new_tensor(range(len(times))).repeat_interleave(times)
        queries_BD = queries_BD.index_add(0, of_row, rows_RD) / times[:, None]
        return info_nce(queries_BD, candidates_CD, batch.positives, self.trainable.temperature)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=TRAINING_IMAGES)
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--repeats", type=int, default=3, help="turns of ours and of naive")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    one = replace(RECIPE, epochs=options.epochs, seed=options.seed)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_sample_data(folder / "world", "train", options.images)
        cached = replace(one, cache_dir=folder / "cache", cache_memory_gb=0)
        ways = {
            "ours": one,
            "naive": naive(one),
            "ours, written to disk": cached,
            "ours, found on disk": cached,
            "ours, in 8 bits": replace(one, kv_cache_dtype="int8"),
        }
        both = replace(one, epochs=max(1, options.epochs // 2), positives_per_query=2)
        result = {
            "one caption in a step": compare(folder / "one", ways, options.repeats),
            "both captions in a step": compare(folder / "both", {"ours": both, "naive": naive(both)}, options.repeats),
            "images": options.images,
            "recipe": {name: value for name, value in result_settings(one).items() if name != "prefix_caching"},
        }
    write_result("adaptation", result, sys.argv, options.seed)


def naive(options: TrainConfig) -> TrainConfig:
    """All activations of a batch at once, as the release holds them: in parts they would be computed twice."""
    return replace(options, prefix_caching=False, mini_batch_tokens=10**9)


def compare(folder: Path, ways: dict[str, TrainConfig], repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds of each way and how many times as fast as naive in the same turn; its weights and validation scores beside naive's."""
    pairs, model = read_pairs(folder.parent / "world").pairs, load_model()
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    learned, scores = {}, {}
    for turn in range(repeats):
        for way in ways if turn == 0 else ("ours", "naive"):
            clock = time.perf_counter()
            with patch("slq.training.loop.ContrastiveStep", RowForEachCaption if way == "naive" else ContrastiveStep):
                encoder = train(pairs, model, folder / f"{way} {turn}", ways[way])
            seconds[way].append(time.perf_counter() - clock)
            learned[way], scores[way] = encoder.queries.latents.detach(), encoder.training["final_scores"]
    return {
        "seconds": {way: statistics_of(its) for way, its in seconds.items()},
        "speed_up": {way: statistics_of([a / b for a, b in zip(seconds["naive"], its, strict=False)]) for way, its in seconds.items()},
        "largest_difference_of_weights": {way: (learned["naive"] - each).abs().max().item() for way, each in learned.items()},
        "largest_weight": learned["naive"].abs().max().item(),
        "validation_scores": scores,
    }


if __name__ == "__main__":
    main()
