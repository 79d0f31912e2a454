"""The built-in miniature, measured: what it answers, what adapting it with latent queries changes, and what stands beside that.

    python -m research.bench.miniature         writes research/results/miniature.json and docs/images/adapting.png

Scores are of scenes that no training saw: 500 images in the styles of training, 500 in the style held out of it. Every fifth image
makes a minimal pair with another, so that the right words in the wrong order are not enough.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console

from research.world_sets import MINIMAL_PAIRS, minimal_pairs
from slq.cache import KVCache
from slq.config.fields import result_settings
from slq.data import RetrievalSet, read_beir, read_pairs
from slq.demo.run import RECIPE, TEST_IMAGES, TRAINING_IMAGES
from slq.encoders import LastTokenEncoder
from slq.encoders.base import Encoder
from slq.encoders.baselines import ONE_WORD
from slq.encoders.latent import LatentEncoder
from slq.evaluation import Evaluation, bidirectional_sets, evaluate, scores_over
from slq.evaluation.metrics import RelevantRanks, from_ranks
from slq.io.files import write_json
from slq.io.provenance import parameter_hash, provenance
from slq.miniature.export import write_sample_data
from slq.miniature.suites import SUITES, score
from slq.miniature.world.minimal_pairs import DIFFERENCES
from slq.models import FrozenModel, load_model
from slq.training import fresh_queries, train

ROOT = Path(__file__).parent.parent.parent
RESULT, CURVE = ROOT / "research" / "results" / "miniature.json", ROOT / "docs" / "images" / "adapting.png"
WAYS = {"t2i": "text to image", "i2t": "image to text"}
TIERS = {"one group": 1, "two groups": 2, "three groups": 3}
CURVE_POINTS = 8

console = Console()
Tree = dict[str, "float | Tree"]  # figures as fractions, by name


def main() -> None:
    """Draw the worlds, adapt once a seed, score, write the result file and the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of adapting, and of drawing questions")
    parser.add_argument("--questions", type=int, default=300, help="questions per understanding suite and seed")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--curve", type=Path, default=CURVE)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(Path(scratch), options.seeds, options.questions)
    write_json(options.out, result)
    plot_curve(result, options.curve)
    console.print_json(json.dumps({name: result[name] for name in ("suites", "explicit", "knowledge")}))
    console.print(f"written to {options.out} and {options.curve}")


def run(scratch: Path, seeds: Sequence[int], num_questions: int) -> dict:
    """All measurements, as they stand in the result file."""
    worlds = Worlds(scratch)
    model = load_model()
    before = parameter_hash(model.model)
    say("questions")
    suites = [{name: suite(model, name, num_questions, seed) for name in SUITES} for seed in seeds]
    cache = KVCache()
    say("controls")
    controls = {
        "last_token": spread([worlds.scores(LastTokenEncoder(model))]),
        "one_word_prompt": spread([worlds.scores(LastTokenEncoder(model, ONE_WORD))]),
        "untrained_latents": spread(
            [worlds.scores(LatentEncoder(model, fresh_queries(model, replace(RECIPE, seed=seed)), cache)) for seed in seeds]
        ),
    }
    adapted, seconds = [], []
    for seed in seeds:
        say(f"adapting, seed {seed}")
        clock = time.perf_counter()
        trained = train(worlds.pairs, model, scratch / f"adapter-{seed}", replace(RECIPE, seed=seed))
        seconds.append(time.perf_counter() - clock)
        adapted.append(worlds.scores(LatentEncoder(model, trained.queries, cache)))
    say("the curve")
    curve = watched(worlds, model, scratch / "curve", cache, seeds[0])
    return {
        "suites": spread(suites),
        **spread(adapted),
        "controls": controls,
        "chance": spread([worlds.chance()]),
        "curve": curve,
        "model_bit_identical": parameter_hash(model.model) == before,
        "adapt_seconds": {"mean": round(statistics.mean(seconds), 1), "sd": round(statistics.pstdev(seconds), 1)},
        "recipe": {name: value for name, value in result_settings(RECIPE).items() if name != "seed"},
        "pairs": len(worlds.pairs),
        "seeds": list(seeds),
        "command": " ".join(["python", "-m", "research.bench.miniature", *sys.argv[1:]]),
        **provenance(),
    }


def say(text: str) -> None:
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {text}")


def suite(model: FrozenModel, name: str, count: int, seed: int) -> Tree:
    """Share of questions of one suite answered right: over all, and by kind."""
    total, kinds = score(model, SUITES[name](count, seed))
    return {"all": total, **kinds}


def spread(runs: Sequence[Mapping]) -> dict:
    """Runs of the same shape to one, each figure as mean and standard deviation in percent (0 for a single run)."""
    combined: dict = {}
    for name, first in runs[0].items():
        values = [one[name] for one in runs]
        if isinstance(first, Mapping):
            combined[name] = spread(values)
        else:
            sd = statistics.stdev(values) if len(values) > 1 else 0.0
            combined[name] = {"mean": round(100 * statistics.mean(values), 2), "sd": round(100 * sd, 2)}
    return combined


class Worlds:
    """The training pairs, and the test sets that every encoder is scored on."""

    def __init__(self, scratch: Path):
        write_sample_data(scratch / "train", "train", TRAINING_IMAGES)
        write_sample_data(scratch / "known", "test", TEST_IMAGES)
        write_sample_data(scratch / "held_out", "test", TEST_IMAGES, held_out_style=True)
        self.pairs = read_pairs(scratch / "train").pairs
        self.lines = [json.loads(line) for line in (scratch / "known" / "captions.jsonl").read_text().splitlines()]
        self.sets = bidirectional_sets(read_pairs(scratch / "known"))
        self.sets += [replace(read_beir(scratch / "known" / name), name=name) for name in ("knowledge", "composed", "rendered")]
        self.minimal_pairs = minimal_pairs(scratch / "known")
        self.held_out = [replace(one, name=f"held out {one.name}") for one in bidirectional_sets(read_pairs(scratch / "held_out"))]

    def scores(self, encoder: Encoder) -> Tree:
        """Everything that is measured of one encoder, as fractions."""
        found = {one.name: one for one in evaluate(encoder, [*self.sets, self.minimal_pairs, *self.held_out])}
        known, knowledge = {way: found[name] for way, name in WAYS.items()}, found["knowledge"]
        return {
            "explicit": {
                "known": {way: hits(one.metrics) for way, one in known.items()},
                "held_out": {way: hits(found[f"held out {name}"].metrics) for way, name in WAYS.items()},
                "tiers": {tier: {way: self._of_tier(one, groups) for way, one in known.items()} for tier, groups in TIERS.items()},
            },
            "minimal_pairs": {name: found[MINIMAL_PAIRS].by_category[name]["hit@1"] for name in DIFFERENCES},
            "knowledge": {**hits(knowledge.metrics), "by_category": {name: one["hit@5"] for name, one in knowledge.by_category.items()}},
            "composed": hits(found["composed"].metrics),
            "rendered": hits(found["rendered"].metrics),
        }

    def _of_tier(self, one: Evaluation, groups: int) -> Tree:
        """The queries about images of so many groups, against the whole gallery."""
        chosen = [query for query, line in zip(one.queries, self.lines, strict=True) if len(line["concepts"]) == groups]
        return hits(scores_over(chosen, (1, 5)))

    def chance(self) -> Tree:
        """hit@5 of a random ranking."""
        return {one.name: chance_of(one) for one in self.sets}


def hits(metrics: Mapping[str, float]) -> Tree:
    return {name: metrics[name] for name in ("hit@1", "hit@5")}


def chance_of(one: RetrievalSet) -> float:
    relevant = [sum(gain > 0 for gain in one.qrels[query].values()) for query in one.queries]
    anywhere = [RelevantRanks(np.arange(1, count + 1), np.ones(count)) for count in relevant]
    return from_ranks(anywhere, (5,), [len(one.corpus)] * len(relevant))["random_hit@5"]


def watched(worlds: Worlds, model: FrozenModel, out: Path, cache: KVCache, seed: int) -> list[dict[str, float]]:
    """Explicit and knowledge retrieval while adapting, in percent."""
    sets = [one for one in worlds.sets if one.name in (*WAYS.values(), "knowledge")]
    points: list[dict[str, float]] = []

    def look(step: int, total: int, encoder: LatentEncoder) -> None:
        if step % max(1, total // CURVE_POINTS) and step not in (1, total):
            return
        found = {one.name: one.metrics["hit@5"] for one in evaluate(LatentEncoder(model, encoder.queries, cache), sets)}
        points.append({"step": step} | {name: round(100 * value, 2) for name, value in found.items()})

    train(worlds.pairs, model, out, replace(RECIPE, seed=seed), after_step=look)
    return points


def plot_curve(result: dict, image: Path) -> None:
    """Knowledge against explicit retrieval, from the untrained latents to the last step, with the last token beside them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def explicit(point: Mapping[str, float]) -> float:
        return statistics.mean(point[name] for name in WAYS.values())

    figure, axis = pyplot.subplots(figsize=(6, 4.2))
    points = result["curve"]
    axis.plot([explicit(point) for point in points], [point["knowledge"] for point in points], "o-", label="latent queries, by step")
    moved = ", moved back" if RECIPE.wise_ft_alpha < 1 else ""
    for point, text, offset in ((points[0], "", (6, -12)), (points[-2], "", (-8, -12)), (points[-1], moved, (-8, 6))):
        place, side = (explicit(point), point["knowledge"]), "left" if offset[0] > 0 else "right"
        axis.annotate(f"step {point['step']}{text}", place, textcoords="offset points", xytext=offset, ha=side, fontsize=8)
    for name, marker in (("last_token", "s"), ("untrained_latents", "x")):
        control = result["controls"][name]
        known = control["explicit"]["known"]
        place = statistics.mean(known[way]["hit@5"]["mean"] for way in WAYS), control["knowledge"]["hit@5"]["mean"]
        axis.plot(*place, marker, markersize=9, linestyle="none", label=name.replace("_", " "))
    axis.set(xlabel="explicit retrieval, hit@5 (%), mean of both ways", ylabel="knowledge retrieval, hit@5 (%)")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower left", fontsize=8)
    figure.tight_layout()
    figure.savefig(image, dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
