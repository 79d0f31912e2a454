"""The demo, step by step: draw a world, adapt, compare before and after, search, write the page."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from slq.adapters.files import Adapter
from slq.cache import KVCache
from slq.data import RetrievalSet, read_beir, read_items, read_pairs
from slq.demo.page import Example, Page, Score, Shown, write_page
from slq.encoders import LastTokenReadout
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.evaluation import Evaluation, bidirectional_sets, evaluate
from slq.index import save_embeddings, search
from slq.io.provenance import parameter_hash
from slq.miniature.export import write_sample_data
from slq.models import load_model
from slq.runtime import new_folder
from slq.training import TrainConfig, fresh_queries, train
from slq.types import Embeddings, Item

TRAINING_IMAGES = 1500
TEST_IMAGES = 500
# Chosen on the validation split (docs/design/0006-adapting-keeps-knowledge.md): a high rate, then half of the way back, finds both what
# captions name and what they do not.
RECIPE = TrainConfig(epochs=4, learning_rate=0.08, wise_ft_alpha=0.5, validation_size=100)
NEXT_COMMAND = "slq train --model OpenGVLab/InternVL3-1B-hf --pairs my.jsonl --out my-adapter"
TOP = 5

console = Console()


def run(out: Path, seed: int = 0) -> None:
    """Run the demo into a folder; what an earlier demo left there is replaced, anything else is not.

    Raises OutputExistsError if the folder holds something that no demo made.
    """
    started, recipe = time.perf_counter(), replace(RECIPE, seed=seed)
    new_folder(out, overwrite=True, own=("index.html",))  # the world, the adapter and the index list theirs

    console.rule("1. A world of images")
    _draw(out)
    model = load_model()
    before_hash = parameter_hash(model.model)

    console.rule("2. What the frozen model gives by itself")
    world = out / "world/test"
    sets = [*bidirectional_sets(read_pairs(world / "captions.jsonl")), read_beir(world / "knowledge"), read_beir(world / "composed")]
    cache = KVCache()  # the test items' own tokens: the same before and after
    untrained = LatentEncoder(model, fresh_queries(model, recipe), cache)
    zero_shot = LastTokenReadout(model)
    evaluations = {"before": _evaluate(zero_shot, sets, "last token"), "untrained": _evaluate(untrained, sets, "untrained latents")}

    console.rule(f"3. Learn {RECIPE.num_latents} latent queries; the model stays as it is")
    clock = time.perf_counter()
    pairs = read_pairs(out / "world/train/captions.jsonl").pairs
    train(pairs, model, out / "adapter", recipe)
    adapt_seconds = time.perf_counter() - clock
    unchanged = parameter_hash(model.model) == before_hash
    console.print(f"adapted in {adapt_seconds:.0f} s; the model's weights are {'bit-identical' if unchanged else 'CHANGED'}")
    if not unchanged:
        raise AssertionError("the model's weights changed during training")

    console.rule("4. Before and after, on images and phrasings that training never saw")
    encoder = LatentEncoder(model, Adapter.load(out / "adapter").queries, cache)
    evaluations["after"] = _evaluate(encoder, sets, "latent queries")
    scores = _scores(evaluations)
    _show_scores(scores)

    console.rule("5. Search a folder of images")
    _searches(encoder, zero_shot, out)

    _write_page(out, recipe, scores, _examples(out, evaluations, sets), adapt_seconds)
    console.rule("Done")
    console.print(f"Everything took {time.perf_counter() - started:.0f} s. Open [bold]{out / 'index.html'}[/bold] to see the results.")
    console.print("The same on a real model and your own pairs:")
    console.print(f"  {NEXT_COMMAND}", style="bold", soft_wrap=True)


def _write_page(out: Path, recipe: TrainConfig, scores: tuple[Score, ...], examples: tuple[Example, ...], adapt_seconds: float) -> None:
    """`index.html`: what was done, the scores, the loss and the examples."""
    adapter = Adapter.load(out / "adapter")
    about = adapter.training
    facts = (
        ("model", "the built-in miniature: InternVL classes, 6.3 million parameters, frozen"),
        ("learned", f"{adapter.queries.num_latents} vectors of {adapter.queries.dim} numbers and a temperature"),
        ("adapter", f"{(out / 'adapter/adapter.safetensors').stat().st_size / 1024:.0f} KB"),
        ("training set", f"{about['pairs']} images with two captions each, {recipe.epochs} epochs, batch {recipe.batch_size}"),
        ("adapting took", f"{adapt_seconds:.0f} seconds"),
        ("searched", f"{TEST_IMAGES} images of held-out scenes"),
        ("examples", "evenly spaced through the test queries, not picked by hand"),
    )
    page = Page(
        title="slq: a frozen multimodal model, turned into an encoder",
        facts=facts,
        scores=scores,
        examples=examples,
        training_curve=_curve(out / "adapter/log.jsonl"),
        next_command=NEXT_COMMAND,
        provenance=f"slq demo, seed {recipe.seed}, {about['date']}, {about['hardware']}, torch {about['torch']}",
        num_latents=adapter.queries.num_latents,
    )
    write_page(page, out / "index.html")


def _draw(out: Path) -> None:
    with Progress(TextColumn("drawing"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task("drawing", total=TRAINING_IMAGES + TEST_IMAGES)
        for split, count in (("train", TRAINING_IMAGES), ("test", TEST_IMAGES)):
            write_sample_data(out / "world" / split, split, count, progress=lambda done: bar.advance(task, done))


def _evaluate(encoder: Encoder, sets: Sequence[RetrievalSet], what: str) -> list[Evaluation]:
    total = len({id(item) for one in sets for item in (*one.queries.values(), *one.corpus.values())})
    with Progress(TextColumn(f"evaluating: {what}"), BarColumn(), MofNCompleteColumn(), console=console) as bar:
        task = bar.add_task(what, total=total)
        return evaluate(encoder, sets, progress=lambda done: bar.advance(task, done))


def _scores(evaluations: dict[str, list[Evaluation]]) -> tuple[Score, ...]:
    names = (
        "text to image, hit@5",
        "image to text, hit@5",
        "knowledge query to image, hit@5",
        "image and change to image, hit@5",
    )
    notes = (
        "captions of held-out scenes",
        "the same, the other way",
        "facts that never name what is shown, in unseen phrasings",
        'an image and "but blue": wanted is the same in blue',
    )
    rows = []
    for place, (name, note) in enumerate(zip(names, notes, strict=True)):
        hit = {stage: found[place].metrics["hit@5"] for stage, found in evaluations.items()}
        chance = evaluations["after"][place].metrics["chance_hit@5"]
        rows.append(Score(name, hit["before"], hit["untrained"], hit["after"], chance, note))
    return tuple(rows)


def _show_scores(scores: tuple[Score, ...]) -> None:
    table = Table("measure", "chance", "last token", "untrained latents", "latent queries", "change")
    for score in scores:
        values = [f"{value:.1%}" for value in (score.chance, score.before, score.untrained, score.after)]
        table.add_row(score.name, *values, f"{score.change:+.1f} points")
    console.print(table)


def _index(encoder: Encoder, out: Path) -> Embeddings:
    """Embed the test images, as a user would embed a folder."""
    file = read_items(out / "world/test/images")
    embedded = encoder.encode(list(file.items.values()), list(file.items))
    return replace(embedded, items=tuple({"image": str(item.image)} for item in file.items.values()))


def _searches(encoder: LatentEncoder, zero_shot: Encoder, out: Path) -> None:
    """Three searches in the terminal: by words, by knowledge, and by an image with words."""
    index = _index(encoder, out)
    save_embeddings(index, out / "index", {"adapter": str((out / "adapter").resolve())})
    console.print(f"{len(index.ids)} images indexed in {out / 'index'}")
    captions, composed = _captions(out), read_beir(out / "world/test/composed")
    change_id, change = next(iter(composed.queries.items()))
    own = Path(str(change.image)).name

    def shows(words: str, name: str) -> bool:
        return re.search(rf"\b{words}\b", captions[name]) is not None

    _search(encoder, index, Item("orange cats"), captions, lambda name: shows("orange cats?", name), out)
    knowledge = Item("the animal said to have nine lives")
    _search(encoder, index, knowledge, captions, lambda name: shows("cats?", name), out)
    console.print("The same query, read from the frozen model's last token instead:", highlight=False)
    _search(zero_shot, _index(zero_shot, out), knowledge, captions, lambda name: shows("cats?", name))
    console.print(f"\nThe next image shows: {captions[f'images/{own}']}", highlight=False, soft_wrap=True)
    _search(encoder, index, change, captions, lambda name: name in composed.qrels[change_id], out)


def _search(
    encoder: Encoder,
    index: Embeddings,
    query: Item,
    captions: dict[str, str],
    is_right: Callable[[str], bool],
    out: Path | None = None,
) -> None:
    """One search, printed as the command that repeats it (where there is one) and its results; the image asked with is no answer."""
    own = Path(str(query.image)).name if query.image is not None else ""
    hits = [hit for hit in search(index, encoder.encode([query]), TOP + 1)[0] if hit.id != own][:TOP]
    if out is not None:
        image = f" --image {out / 'world/test/images' / own}" if own else ""
        console.print(f'\n$ slq search "{query.text}"{image} --index {out / "index"}', style="bold", soft_wrap=True, highlight=False)
    for hit in hits:
        mark = "[green]right[/green]" if is_right(f"images/{hit.id}") else "wrong"
        console.print(f"  {hit.score:.3f}  {mark}  {hit.id}  {captions[f'images/{hit.id}']}", highlight=False, soft_wrap=True)


def _captions(out: Path) -> dict[str, str]:
    lines = (out / "world/test/captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["image"]: line["caption"][0] for line in map(json.loads, lines)}


def _examples(out: Path, evaluations: dict[str, list[Evaluation]], sets: Sequence[RetrievalSet]) -> tuple[Example, ...]:
    """Evenly spaced queries of each kind, with what came first before and after."""
    captions = _captions(out)
    examples = []
    for kind, place, count in (("explicit", 0, 4), ("knowledge", 2, 6), ("composed", 3, 3)):
        before, after = evaluations["before"][place], evaluations["after"][place]
        for row in np.linspace(0, len(after.query_ids) - 1, count + 2).astype(int)[1:-1]:
            query = sets[place].queries[after.query_ids[row]]
            image = f"world/test/images/{Path(str(query.image)).name}" if query.image is not None else None
            examples.append(Example(kind, query.text or "", image, _top(before, row, captions), _top(after, row, captions)))
    return tuple(examples)


def _top(evaluation: Evaluation, row: int, captions: dict[str, str]) -> tuple[Shown, ...]:
    """The first images of one query, right ones marked."""
    query = evaluation.queries[row]
    return tuple(Shown(f"world/test/{id_}", captions[id_], score, id_ in query.ranks) for id_, score in query.top[:TOP])


def _curve(log: Path) -> tuple[tuple[int, float], ...]:
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return tuple((line["step"], line["loss"]) for line in lines)
