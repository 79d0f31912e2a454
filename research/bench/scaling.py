"""What training costs as one thing grows: latent queries, tokens of an item, the batch, the items, the epochs.

    python -m research.bench.scaling       writes research/results/scaling-<model>-<device>-<dtype>.json and docs/images/scaling.png

One thing grows while the others stay at 20 latents, 32 images with a caption each, prefixes cached. Three ways stand side by side: naive
(the SLQ release's), two passes with nothing cached, and prefixes cached.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt

from research.bench.measuring import ROOT, agreed_items, console, statistics_of, timed_in_turns, write_result
from research.bench.training_step import Step
from slq.adapters.latents import LatentQueries
from slq.cache import KVCache
from slq.data import read_pairs
from slq.encoders.latent import LatentEncoder
from slq.miniature.export import write_sample_data
from slq.models import FrozenModel, Preprocessing, load_model
from slq.training import PRESETS, TrainConfig, train
from slq.types import Item

WAYS = ("naive", "nothing cached", "prefixes cached")
NUM_LATENTS, IMAGES, SEED = 20, 32, 0
LATENTS = (1, 5, 10, 20, 40, 80)
TOKENS = (16, 32, 64, 128, 256, 512)
BATCHES = (32, 64, 128, 256, 512, 1024, 2048)
ITEMS = (100, 200, 400, 800)
EPOCHS = (1, 2, 4, 8)
TRAINING_IMAGES = 256


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature")
    parser.add_argument("--dtype")
    parser.add_argument("--device")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    model = load_model(
        options.model, dtype=options.dtype, device=options.device, preprocessing=Preprocessing(max_text_tokens=max(TOKENS) + 8)
    )
    # First, for the most memory that the process ever took is measured: it grows with the batch.
    large_batches = {count: large_batch(model, count, options.repeats) for count in BATCHES}
    result = {
        "seconds_a_step": {
            "latent queries": {count: ways(model, count, *pairs(IMAGES), options.repeats) for count in LATENTS},
            "tokens of a text": {count: ways(model, NUM_LATENTS, *texts(count), options.repeats) for count in TOKENS},
        },
        "large_batches": large_batches,
        "reading": {count: reading(model, count, options.repeats) for count in ITEMS},
        "epochs": epochs(model),
    }
    name = f"scaling-{options.model.removeprefix('random:')}-{model.device.type}-{model.identity.dtype}"
    plot(result, ROOT / "docs" / "images" / "scaling.png")
    write_result(name, result, sys.argv, SEED)


def pairs(count: int) -> tuple[list[Item], list[Item]]:
    return agreed_items(count, count, SEED, size=(96, 96))


def texts(tokens: int) -> tuple[list[Item], list[Item]]:
    """Texts of about so many tokens on either side, no two alike."""
    sides = [[Item(f"{words} " + "cat " * tokens) for words in range(start, start + IMAGES)] for start in (100, 200)]
    return sides[0], sides[1]


def ways(model: FrozenModel, num_latents: int, queries: list[Item], candidates: list[Item], repeats: int) -> dict[str, dict]:
    """Seconds of a step of each way."""
    steps = {way: Step(model, way, queries, candidates, num_latents) for way in WAYS}
    seconds = timed_in_turns({way: step.gradient for way, step in steps.items()}, model.device, repeats)
    return {way: statistics_of(its) for way, its in seconds.items()}


def large_batch(model: FrozenModel, count: int, repeats: int) -> dict[str, float]:
    """A step on cached prefixes with as many pairs, in parts of what fits: seconds a pair, and the most memory the process ever took."""
    queries, candidates = pairs(count)
    step = Step(model, "prefixes cached", queries, candidates, NUM_LATENTS, mini_batch_tokens=None)
    (seconds,) = timed_in_turns({"step": step.gradient}, model.device, repeats).values()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"seconds_a_pair": statistics_of([each / count for each in seconds]), "held_bytes": step.held_bytes(), "peak_bytes": peak}


def reading(model: FrozenModel, count: int, repeats: int) -> dict[str, float]:
    """Seconds to read an image and a caption once and keep their prefixes."""
    queries, candidates = pairs(count)

    def read() -> None:
        LatentEncoder(model, LatentQueries.create(NUM_LATENTS, model.dim), KVCache()).prefill([*queries, *candidates])

    (seconds,) = timed_in_turns({"reading": read}, model.device, repeats).values()
    return {"seconds_a_pair": statistics_of([each / count for each in seconds])}


def epochs(model: FrozenModel) -> dict[str, dict[int, float]]:
    """Seconds of whole trainings on images of the miniature's world."""
    recipe = TrainConfig(**PRESETS["paper"], validation_split=0, seed=SEED)
    found: dict[str, dict[int, float]] = {"naive": {}, "prefixes cached": {}}
    with tempfile.TemporaryDirectory() as scratch:
        write_sample_data(Path(scratch) / "world", "train", TRAINING_IMAGES)
        data = read_pairs(Path(scratch) / "world").pairs
        for count in EPOCHS:
            for way in found:
                clock = time.perf_counter()
                chosen = replace(recipe, epochs=count, prefix_caching=way != "naive")
                train(data, model, Path(scratch) / f"{way} {count}", chosen, show_progress=False)
                found[way][count] = round(time.perf_counter() - clock, 2)
                console.print(f"{way}, {count} epoch(s): {found[way][count]} s")
    return found


def plot(result: dict, path: Path) -> None:
    """Four panels: latents, tokens, batch, epochs; seconds on logarithmic axes."""

    def places(found: dict) -> list[int]:
        return [int(count) for count in found]  # texts, where a result was read from its file

    figure, axes = plt.subplots(1, 4, figsize=(15, 3.6), constrained_layout=True)
    colours = dict(zip(WAYS, ("#b3541e", "#7a7a7a", "#1f5f8b"), strict=True))
    for axis, (name, found) in zip(axes, result["seconds_a_step"].items(), strict=False):
        for way in WAYS:
            axis.plot(places(found), [each[way]["median"] for each in found.values()], "o-", color=colours[way], label=way)
        axis.set(xlabel=name, ylabel="seconds a step")
    large = result["large_batches"]
    axes[2].plot(
        places(large), [each["seconds_a_pair"]["median"] * 1000 for each in large.values()], "o-", color=colours["prefixes cached"]
    )
    axes[2].set(xlabel="pairs in a batch", ylabel="milliseconds a pair", ylim=(0, None))
    for way, found in result["epochs"].items():
        axes[3].plot(places(found), list(found.values()), "o-", color=colours[way], label=way)
    axes[3].set(xlabel="epochs", ylabel="seconds in all", ylim=(0, None))
    for axis in axes[:3]:
        axis.set_xscale("log", base=2)
    for axis in axes[:2]:
        axis.set_yscale("log")
    axes[0].legend(frameon=False)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
