"""Does a set that `slq karr build` makes score as a set that people wrote? On the picture-book world, where there is both.

    python -m research.bench.karr_world         writes research/results/karr-world.json

The world's own knowledge queries were written by hand, card by card. The builder sees nothing but images and captions, and an endpoint
on this machine that answers from the fact sheets in the place of a large model. Both sets are over the same images. The endpoint
knows everything and never errs, so this tests the builder, not what a real model knows.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from slq_karr.build import Built, build
from slq_karr.candidates import read_own_rows
from slq_karr.categories import CATEGORIES
from slq_karr.export import WHOLE, export
from slq_karr.gallery import read_gallery
from slq_karr.limits import Limits
from slq_karr.models import Endpoint
from slq_karr.prompts import load_prompts
from slq_karr.settings import Options

from research.bench.measuring import ROOT, write_result
from slq.data import RetrievalSet, read_beir
from slq.encoders import LastTokenEncoder
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.evaluation import Evaluation, evaluate
from slq.miniature.export import write_sample_data
from slq.models import load_model

sys.path.append(str(ROOT / "packages" / "slq-karr" / "tests"))  # the endpoint that knows the world is also what the builder is tested with
from endpoint import ScriptedEndpoint
from picture_book import CATEGORY_OF, PictureBook


def main() -> None:
    """Draw the world, build a set from its captions, score both, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--count", type=int, default=300, help="queries to build")
    parser.add_argument("--adapter", type=Path, help="also score with this adapter")
    parser.add_argument("--seed", type=int, default=0, help="of the world, and of the order in which images are taken")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = run(Path(scratch), options.images, options.count, options.seed, options.adapter)
    write_result("karr-world", result, sys.argv, options.seed)


def run(scratch: Path, images: int, count: int, seed: int, adapter: Path | None) -> dict[str, Any]:
    """All figures, as they stand in the result file; scores in percent."""
    world, made, out = scratch / "world", scratch / "set", scratch / "out"
    write_sample_data(world, "test", images, seed)
    with ScriptedEndpoint(PictureBook(world)) as server, closing(Endpoint(server.url, "fact sheets")) as network:
        clock = time.perf_counter()
        wanted = Options(count, max_positives=images, seed=seed)
        built = build(world / "captions.jsonl", made, network, load_prompts(), wanted, Limits(concurrency=2))
        seconds = time.perf_counter() - clock
    export(made, out)
    whole = as_in_the_world(read_beir(out / WHOLE), made)
    own = read_beir(world / "knowledge")
    own = replace(own, categories={id_: CATEGORY_OF[category] for id_, category in own.categories.items()})
    model = load_model()
    encoders: dict[str, Encoder] = {"last token, zero-shot": LastTokenEncoder(model)}
    if adapter is not None:
        encoders["adapter"] = LatentEncoder.from_pretrained(str(adapter))
    return {
        "built": account(built, made, seconds, images),
        "same judgements": judgements(whole, own),
        "hit@5": {name: compare(*evaluate(encoder, [whole, own])) for name, encoder in encoders.items()},
    }


def as_in_the_world(built: RetrievalSet, made: Path) -> RetrievalSet:
    """The built set with its images named as the world names them."""
    name = {shown.image: shown.source for shown in read_gallery(made)[0]}
    corpus = {name[id_]: item for id_, item in built.corpus.items()}
    return replace(built, corpus=corpus, qrels={id_: {name[each]: 1 for each in found} for id_, found in built.qrels.items()})


def account(built: Built, made: Path, seconds: float, images: int) -> dict[str, Any]:
    """What the build did, and what it took."""
    lines = [line for line in read_own_rows(made / "requests.jsonl") if "answer" in line]
    asked = Counter(line["stage"] for line in lines)
    rejected = Counter(each.failed for each in built.candidates if each.failed)
    return {
        "images": images,
        "written": len(built.candidates),
        "accepted": len(built.accepted),
        "rejected by": dict(rejected.most_common()),
        "left out": len(built.skipped),
        "by category": dict(Counter(each.category for each in built.accepted).most_common()),
        "requests": dict(asked.most_common()),
        "text tokens a request, at four characters each": {
            stage: {way: round(sum(line[way] for line in lines if line["stage"] == stage) / count) for way in ("tokens_in", "tokens_out")}
            for stage, count in asked.most_common()
        },
        "requests an accepted query": round(asked.total() / len(built.accepted), 1),
        "seconds": round(seconds, 1),
    }


def judgements(built: RetrievalSet, own: RetrievalSet) -> dict[str, int]:
    """Queries that both sets hold in the same words, and how many of them have the same answers in both."""
    answers = {item.text: set(own.qrels[id_]) for id_, item in own.queries.items()}
    both = [id_ for id_, item in built.queries.items() if item.text in answers]
    return {
        "queries in both": len(both),
        "with the same answers": sum(set(built.qrels[id_]) == answers[built.queries[id_].text] for id_ in both),
    }


def compare(built: Evaluation, own: Evaluation) -> dict[str, Any]:
    """hit@5 of both sets, with 95 % intervals, as a whole and by category."""
    return {"built set": percent(built), "the world's own": percent(own)}


def percent(one: Evaluation) -> dict[str, Any]:
    def rounded(metrics: Mapping[str, float]) -> float:
        return round(100 * metrics["hit@5"], 1)

    return {
        "queries": len(one.queries),
        "all": rounded(one.metrics),
        "95 %": [round(100 * end, 1) for end in one.ci95["hit@5"]],
        "mean of categories": round(sum(rounded(found) for found in one.by_category.values()) / len(one.by_category), 1),
        **{name: rounded(one.by_category[name]) for name in CATEGORIES if name in one.by_category},
    }


if __name__ == "__main__":
    main()
