"""The whole path, measured: what the built-in miniature answers, and what adapting it with latent queries changes.

    python benchmarks/foundation.py            writes benchmarks/results/foundation.json (about 4 minutes on 2 cores)

Three adaptation seeds on one training world; scores on a test world of 500 pictures whose contents are not in it. Beside the latent
queries stand the last-token readout and untrained latents of the same frozen backbone, and chance.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from slq.backbone import load_backbone
from slq.data import read_beir, read_pairs
from slq.demo.run import RECIPE, TEST_PICTURES, TRAINING_PICTURES
from slq.embedder import Embedder
from slq.evaluate import both_ways, evaluate
from slq.methods import LastTokenReadout
from slq.miniature.export import write_world
from slq.miniature.suites import SUITES, score
from slq.prefix_cache import PrefixCache
from slq.retriever import Retriever
from slq.runtime import parameter_hash, provenance
from slq.training import fresh_queries, train

RESULT = Path(__file__).parent / "results" / "foundation.json"
METRICS = ("hit@1", "hit@5", "hit@10", "mrr")
console = Console()


def percent(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation in percent; a single run has no spread."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": round(100 * statistics.mean(values), 2), "sd": round(100 * spread, 2)}


def measure(embedder: Embedder, sets: list) -> dict[str, dict[str, float]]:
    """The metrics of one embedder, by retrieval set."""
    return {one.name: dict(one.metrics) for one in evaluate(embedder, sets)}


def combine(runs: list[dict[str, dict[str, float]]]) -> dict[str, dict[str, dict[str, float]]]:
    return {name: {metric: percent([run[name][metric] for run in runs]) for metric in METRICS} for name in runs[0]}


def main() -> None:
    """Draw, adapt once a seed, score, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--questions", type=int, default=300, help="questions per understanding suite")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(Path(scratch), options.seeds, options.questions)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print_json(json.dumps({name: result[name] for name in ("suites", "text_to_image_hit@5", "times_chance")}))
    console.print(f"written to {options.out}")


def run(scratch: Path, seeds: list[int], num_questions: int) -> dict:
    """All measurements, as they stand in the result file."""
    write_world(scratch / "train", "train", TRAINING_PICTURES)
    write_world(scratch / "test", "test", TEST_PICTURES)
    pairs = read_pairs(scratch / "train").pairs
    knowledge = replace(read_beir(scratch / "test" / "knowledge"), name="knowledge")
    sets = [*both_ways(read_pairs(scratch / "test")), knowledge]
    backbone = load_backbone()
    before = parameter_hash(backbone.model)
    suites = {name: score(backbone, make(num_questions, 0)) for name, make in SUITES.items()}
    cache = PrefixCache()
    last_token = measure(LastTokenReadout(backbone), sets)
    fresh = [measure(Retriever(backbone, fresh_queries(backbone, replace(RECIPE, seed=seed)), cache), sets) for seed in seeds]
    adapted, seconds = [], []
    for seed in seeds:
        clock = time.perf_counter()
        trained = train(pairs, backbone, scratch / f"adapter-{seed}", replace(RECIPE, seed=seed))
        seconds.append(time.perf_counter() - clock)
        adapted.append(measure(Retriever(backbone, trained.queries, cache), sets))
    combined = combine(adapted)
    chance = {name: round(100 * adapted[0][name]["chance_hit@5"], 2) for name in adapted[0]}
    text_to_image = combined["text to image"]["hit@5"]
    return {
        "suites": {
            name: {"all": round(100 * total, 1), **{k: round(100 * v, 1) for k, v in kinds.items()}}
            for name, (total, kinds) in suites.items()
        },
        "text_to_image_hit@5": text_to_image,
        "times_chance": round(text_to_image["mean"] / chance["text to image"], 1),
        "latent_queries": combined,
        "last_token": combine([last_token]),
        "untrained_latents": combine(fresh),
        "chance_hit@5": chance,
        "backbone_bit_identical": parameter_hash(backbone.model) == before,
        "adapt_seconds": [round(value, 1) for value in seconds],
        "recipe": {name: getattr(RECIPE, name) for name in ("num_latents", "init", "learning_rate", "epochs", "batch_size")},
        "pairs": len(pairs),
        "seeds": seeds,
        "command": " ".join(["python", "benchmarks/foundation.py", *sys.argv[1:]]),
        **provenance(),
    }


if __name__ == "__main__":
    main()
