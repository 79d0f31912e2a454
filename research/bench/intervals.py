"""How often intervals and p-values err: simulated results of known truth, images with captions that are found or missed together.

    OMP_NUM_THREADS=1 python -m research.bench.intervals

Writes research/results/intervals.json. A model finds a caption at a rank that depends on its image, on the caption, and on the model's luck
with either; `together` is how much of it is the image's. Two models draw from one distribution, so every difference between them is luck.
For each setting: how often p < 0.05 (should be 5 %), how often the interval of one model's metric holds the truth, and how often the
interval of the difference holds it (should be 95 %), of two equal models and of two that differ.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from research.bench.measuring import console, write_result
from slq.evaluation.statistics import QueryValues, interval, paired_test

METRICS = ("hit@1", "hit@10", "mrr", "ndcg@10")
LARGE = 400_000  # queries that the truth is the mean of
LEAST = 10  # queries found, and missed, below which a metric counts as rare


@dataclass(frozen=True)
class Setting:
    """What is simulated.

    Attributes:
        clusters: images.
        sizes: captions of an image, from the fewest to the most.
        ease: the higher, the better the ranks.
        together: fraction of the variance that an image's captions share.
        alike: fraction of the variance that the two models share.
    """

    clusters: int
    sizes: tuple[int, int] = (5, 5)
    ease: float = 0.5
    together: float = 0.7
    alike: float = 0.5


SETTINGS: Mapping[str, Setting] = {
    "40 images, 5 captions": Setting(40),
    "100 images, 5 captions": Setting(100),
    "100 images, 5 captions, each for itself": Setting(100, together=0.05),
    "100 images, 1 to 9 captions": Setting(100, (1, 9)),
    "20 images, 5 captions": Setting(20),
    "20 images, 1 to 9 captions": Setting(20, (1, 9)),
    "10 images, 5 captions": Setting(10),
    "100 queries, each alone": Setting(100, (1, 1)),
    "40 queries, each alone": Setting(40, (1, 1)),
    "500 images, 5 captions, hardly any missed": Setting(500, ease=3.0),
    "100 images, 5 captions, few missed": Setting(100, ease=2.0),
    "100 images, 5 captions, few found": Setting(100, ease=-1.5),
    "200 images, 5 captions, models much alike": Setting(200, alike=0.9),
}


def values(setting: Setting, generator: np.random.Generator, better: float = 0.0) -> tuple[list[QueryValues], np.ndarray]:
    """Two models on the same queries, the second by `better` easier; and the cluster of each query."""
    low, high = setting.sizes
    sizes = generator.integers(low, high + 1, setting.clusters)
    cluster_Q = np.repeat(np.arange(setting.clusters), sizes)
    image_weight, query_weight = setting.together**0.5, (1 - setting.together) ** 0.5

    def effect() -> np.ndarray:
        return image_weight * generator.standard_normal(setting.clusters)[cluster_Q] + query_weight * generator.standard_normal(
            len(cluster_Q)
        )

    common = effect()
    models = []
    for ease in (setting.ease, setting.ease + better):
        skill = setting.alike**0.5 * common + (1 - setting.alike) ** 0.5 * effect() + ease
        ranks = np.ceil(np.exp(2 - 2 * skill)).clip(1, 1000)  # at skill 1 the answer is first
        found = np.stack([ranks <= 1, ranks <= 10, 1 / ranks, np.where(ranks <= 10, 1 / np.log2(ranks + 1), 0)]).astype(float)
        models.append(QueryValues(found, [str(number) for number in cluster_Q]))
    return models, cluster_Q


def truth(setting: Setting, better: float = 0.0) -> np.ndarray:
    """The expected value of each metric."""
    large = Setting(LARGE, (1, 1), setting.ease + better, setting.together, setting.alike)
    (first, _), _ = values(large, np.random.default_rng(1))
    return first.values_MQ.mean(axis=1)


def rare_metrics(setting: Setting) -> list[str]:
    """Metrics that hang on a handful of queries: fewer than LEAST are expected to be found, or to be missed."""
    queries = setting.clusters * sum(setting.sizes) / 2
    first, ten = truth(setting)[:2] * queries
    found = {"hit@1": min(first, queries - first), "hit@10": min(ten, queries - ten), "mrr": first, "ndcg@10": ten}
    return [metric for metric in METRICS if found[metric] < LEAST]


def simulate(setting: Setting, runs: int, seed: int, better: float = 0.2, flips: int = 2000) -> dict[str, dict[str, float]]:
    """How often each went wrong, or right, in percent."""
    expected, gain = truth(setting), truth(setting, better) - truth(setting)
    counts = {name: np.zeros(len(METRICS)) for name in ("false_positives", "covered", "difference_covered", "disagreements")}
    for run in range(runs):
        generator = np.random.default_rng([seed, run])
        (first, second), _ = values(setting, generator)
        bounds = interval([first])
        counts["covered"] += (bounds[:, 0] <= expected) & (expected <= bounds[:, 1])
        null = paired_test([QueryValues(second.values_MQ - first.values_MQ, first.clusters)], run, flips)
        counts["false_positives"] += null.p_M < 0.05
        counts["disagreements"] += (null.p_M < 0.05) != ((null.bounds_M2[:, 0] > 0) | (null.bounds_M2[:, 1] < 0))
        (first, second), _ = values(setting, generator, better)
        bounds = paired_test([QueryValues(second.values_MQ - first.values_MQ, first.clusters)], run, flips).bounds_M2
        counts["difference_covered"] += (bounds[:, 0] <= gain) & (gain <= bounds[:, 1])
    found = {name: dict(zip(METRICS, (100 * total / runs).round(2).tolist(), strict=True)) for name, total in counts.items()}
    return {"truth": dict(zip(METRICS, (100 * expected).round(1).tolist(), strict=True)), **found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--better", type=float, default=0.2, help="how much easier the second model finds everything, where the two differ")
    parser.add_argument("--flips", type=int, default=2000, help="random signs of a test; `slq compare` takes 10,000")
    options = parser.parse_args()
    result, rare = {}, {}
    for name, setting in SETTINGS.items():
        console.print(name)
        rare[name] = rare_metrics(setting)
        result[name] = {f"seed {seed}": simulate(setting, options.runs, seed, options.better, options.flips) for seed in options.seeds}
    write_result(
        "intervals",
        {"runs": options.runs, "flips": options.flips, "metrics": METRICS, "rare": rare, "settings": result},
        sys.argv,
        options.seeds[0],
    )


if __name__ == "__main__":
    main()
