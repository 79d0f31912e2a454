"""The demo, step by step: sample data, adapt, compare before and after, search, write the page."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np

from slq import console
from slq.adapters.files import Adapter
from slq.cache import KVCache
from slq.data import RetrievalSet, read_beir, read_items, read_pairs
from slq.demo.page import Example, Page, ResultCard, ScoreRow, write_page
from slq.encoders import LastTokenEncoder
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.evaluation import Evaluation, bidirectional_sets, evaluate
from slq.index import save_embeddings, search
from slq.io.files import read_jsonl
from slq.io.outputs import OutputFolder
from slq.io.provenance import parameter_hash
from slq.miniature.export import write_sample_data
from slq.models import load_model
from slq.training import TrainConfig, fresh_queries, train
from slq.types import Embeddings, Item

TRAINING_IMAGES = 1500
TEST_IMAGES = 500
# Chosen on the validation split (docs/design/0006-adapting-keeps-knowledge.md): a high rate, then half of the way back, finds both what
# captions name and what they do not.
RECIPE = TrainConfig(epochs=4, learning_rate=0.08, wise_ft_alpha=0.5, validation_size=100)
NEXT_COMMAND = "slq train my.jsonl -m OpenGVLab/InternVL3-1B-hf -o my-adapter"
TOP_K = 5
DATA = "sample-data"  # where in the demo's folder the images and captions are


def run(output: Path, seed: int = 0) -> None:
    """Run the demo into a folder.

    Args:
        output: what an earlier demo wrote there is replaced, anything else is not.
        seed: of the adaptation.

    Raises:
        OutputExistsError: if the folder holds something that no demo wrote.
    """
    # With --json, stdout is for one document alone.
    with redirect_stdout(sys.stderr) if console.settings.json else nullcontext():
        _run(output, replace(RECIPE, seed=seed))


def _run(output: Path, recipe: TrainConfig) -> None:
    started = time.perf_counter()
    folder = OutputFolder.create(output, "demo", overwrite=True, writes=("index.html", DATA, "adapter", "index"))

    _heading("1. Sample data: images with captions")
    _write_data(output)
    model = load_model()
    before_hash = parameter_hash(model.model)

    _heading("2. What the frozen model gives by itself")
    data = output / DATA / "test"
    sets = [*bidirectional_sets(read_pairs(data / "captions.jsonl")), read_beir(data / "knowledge"), read_beir(data / "composed")]
    cache = KVCache()  # the test items' prefixes: the same before and after
    untrained = LatentEncoder(model, fresh_queries(model, recipe), cache)
    zero_shot = LastTokenEncoder(model)
    evaluations = {
        "before": _evaluate(zero_shot, sets, "last token"),
        "untrained": _evaluate(untrained, sets, "untrained latents"),
    }

    _heading(f"3. Learn {recipe.num_latents} latent queries; the model stays as it is")
    clock = time.perf_counter()
    train(read_pairs(output / DATA / "train/captions.jsonl").pairs, model, output / "adapter", recipe)
    adapt_seconds = time.perf_counter() - clock
    if parameter_hash(model.model) != before_hash:
        raise AssertionError("the model's weights changed during training")
    console.result(f"adapted in {adapt_seconds:.0f} s; the model's weights are bit-identical")

    _heading("4. Before and after, on images and phrasings that training never saw")
    encoder = LatentEncoder(model, Adapter.load(output / "adapter").queries, cache)
    evaluations["after"] = _evaluate(encoder, sets, "latent queries")
    scores = _scores(evaluations)
    _show_scores(scores)

    _heading("5. Search a folder of images")
    _searches(encoder, zero_shot, output)

    _write_page(output, recipe, scores, _examples(output, evaluations, sets), adapt_seconds)
    folder.finish()
    _heading("Done")
    console.result(f"Everything took {time.perf_counter() - started:.0f} s. Open {output / 'index.html'} to see the results.")
    console.result(f"The same on a real model and your own pairs:\n  {NEXT_COMMAND}")


def _heading(text: str) -> None:
    console.result(f"\n{text}\n")


def _write_page(output: Path, recipe: TrainConfig, scores: tuple[ScoreRow, ...], examples: tuple[Example, ...], seconds: float) -> None:
    """`index.html`: what was done, the scores, the loss and the examples."""
    adapter = Adapter.load(output / "adapter")
    training = adapter.training
    facts = (
        ("model", "the built-in miniature: InternVL classes, 6.3 million parameters, frozen"),
        ("learned", f"{adapter.queries.num_latents} vectors of {adapter.queries.dim} values and a temperature"),
        ("adapter", f"{(output / 'adapter/adapter.safetensors').stat().st_size / 1024:.0f} KB"),
        ("training set", f"{training['pairs']} images with two captions each, {recipe.epochs} epochs, batch {recipe.batch_size}"),
        ("adapting took", f"{seconds:.0f} seconds"),
        ("searched", f"{TEST_IMAGES} images of held-out scenes"),
        ("examples", "evenly spaced through the test queries, not picked by hand"),
    )
    page = Page(
        title="slq: a frozen multimodal model, turned into a retriever",
        facts=facts,
        scores=scores,
        examples=examples,
        training_curve=_curve(output / "adapter/log.jsonl"),
        next_command=NEXT_COMMAND,
        provenance=f"slq demo, seed {recipe.seed}, {training['date']}, {training['hardware']}, torch {training['torch']}",
        num_latents=adapter.queries.num_latents,
    )
    write_page(page, output / "index.html")


def _write_data(output: Path) -> None:
    with console.progress_bar("rendering images", TRAINING_IMAGES + TEST_IMAGES) as advance:
        for split, count in (("train", TRAINING_IMAGES), ("test", TEST_IMAGES)):
            write_sample_data(output / DATA / split, split, count, progress=advance)


def _evaluate(encoder: Encoder, sets: Sequence[RetrievalSet], name: str) -> list[Evaluation]:
    with console.progress_bar(f"evaluating: {name}") as advance:
        return evaluate(encoder, sets, progress=advance)


def _scores(evaluations: dict[str, list[Evaluation]]) -> tuple[ScoreRow, ...]:
    names_and_notes = (
        ("text to image, hit@5", "captions of held-out scenes"),
        ("image to text, hit@5", "the same, the other way"),
        ("knowledge query to image, hit@5", "facts that never name what the image shows, in unseen phrasings"),
        ("image and change to image, hit@5", 'an image and "but blue": wanted is the same in blue'),
    )
    rows = []
    for place, (name, note) in enumerate(names_and_notes):
        hit = {stage: found[place].metrics["hit@5"] for stage, found in evaluations.items()}
        random = evaluations["after"][place].metrics["random_hit@5"]
        rows.append(ScoreRow(name, hit["before"], hit["untrained"], hit["after"], random, note))
    return tuple(rows)


def _show_scores(scores: tuple[ScoreRow, ...]) -> None:
    header = ("measure", "chance", "last token", "untrained latents", "latent queries", "change")
    rows = [
        [row.name, *map(console.percent, (row.chance, row.before, row.untrained, row.after)), f"{row.change:+.1f} points"] for row in scores
    ]
    console.table(header, rows)


def _encode_images(encoder: Encoder, output: Path) -> Embeddings:
    """Vectors of the test images, as a user would encode a folder."""
    file = read_items(output / DATA / "test/images")
    embedded = encoder.encode(list(file.items.values()), list(file.items))
    return replace(embedded, items=tuple({"image": str(item.image)} for item in file.items.values()))


def _searches(encoder: LatentEncoder, zero_shot: Encoder, output: Path) -> None:
    """Three searches in the terminal: by text, by knowledge, and by an image with text."""
    index = _encode_images(encoder, output)
    save_embeddings(index, output / "index", {"adapter": "../adapter"})
    console.result(f"{len(index.ids)} images encoded in {output / 'index'}")
    captions, composed = _captions(output), read_beir(output / DATA / "test/composed")
    change_id, change = next(iter(composed.queries.items()))
    own = Path(str(change.image)).name

    def names(words: str, image: str) -> bool:
        return re.search(rf"\b{words}\b", captions[image]) is not None

    _search(encoder, index, Item("orange cats"), captions, lambda image: names("orange cats?", image), output)
    knowledge = Item("the animal said to have nine lives")
    _search(encoder, index, knowledge, captions, lambda image: names("cats?", image), output)
    console.result("The same query, encoded by the frozen model's last token instead:")
    _search(zero_shot, _encode_images(zero_shot, output), knowledge, captions, lambda image: names("cats?", image))
    console.result(f"\nThe next image shows: {captions[f'images/{own}']}")
    _search(encoder, index, change, captions, lambda image: image in composed.qrels[change_id], output)


def _search(
    encoder: Encoder,
    index: Embeddings,
    query: Item,
    captions: dict[str, str],
    is_relevant: Callable[[str], bool],
    output: Path | None = None,
) -> None:
    """One search, printed as the command that repeats it (where there is one) and its results; the query's own image is left out."""
    own = Path(str(query.image)).name if query.image is not None else ""
    hits = [hit for hit in search(index, encoder.encode([query]), TOP_K + 1)[0] if hit.id != own][:TOP_K]
    if output is not None:
        image = f" --image {output / DATA / 'test/images' / own}" if own else ""
        console.result(f'\n$ slq search "{query.text}"{image} --collection {output / "index"}')
    for hit in hits:
        mark = "right" if is_relevant(f"images/{hit.id}") else "wrong"
        console.result(f"  {hit.score:.3f}  {mark}  {hit.id}  {captions[f'images/{hit.id}']}")


def _captions(output: Path) -> dict[str, str]:
    lines = (output / DATA / "test/captions.jsonl").read_text(encoding="utf-8").splitlines()
    return {line["image"]: line["caption"][0] for line in map(json.loads, lines)}


def _examples(output: Path, evaluations: dict[str, list[Evaluation]], sets: Sequence[RetrievalSet]) -> tuple[Example, ...]:
    """Evenly spaced queries of each kind, with what came first before and after."""
    captions = _captions(output)
    examples = []
    for kind, place, count in (("explicit", 0, 4), ("knowledge", 2, 6), ("composed", 3, 3)):
        before, after = evaluations["before"][place], evaluations["after"][place]
        for row in np.linspace(0, len(after.query_ids) - 1, count + 2).astype(int)[1:-1]:
            query = sets[place].queries[after.query_ids[row]]
            image = f"{DATA}/test/images/{Path(str(query.image)).name}" if query.image is not None else None
            examples.append(Example(kind, query.text or "", image, _top(before, row, captions), _top(after, row, captions)))
    return tuple(examples)


def _top(evaluation: Evaluation, row: int, captions: dict[str, str]) -> tuple[ResultCard, ...]:
    """The first images of one query, relevant ones marked."""
    query = evaluation.queries[row]
    return tuple(ResultCard(f"{DATA}/test/{id_}", captions[id_], score, id_ in query.ranks) for id_, score in query.top_k[:TOP_K])


def _curve(log: Path) -> tuple[tuple[int, float], ...]:
    return tuple((row["step"], row["loss"]) for row in read_jsonl(log)[0])
