"""The command line: `slq train | eval | embed | search | world | demo`. Thin: each command reads its options and calls the library."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from slq.errors import InputError, SlqError

if TYPE_CHECKING:
    from rich.progress import Progress

    from slq.embedder import Embedder
    from slq.errors import Failure

app = typer.Typer(
    name="slq",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="""Turn the multimodal LLM you already run into a retriever, without touching its weights.

A few *latent queries* (20 vectors, 40-150 KB) are learned on your pairs of pictures and captions; the model stays bit-identical.

**First steps, with the built-in miniature model (no download):**

    slq demo                                                  everything at once, with a page of results
    slq world --split train --out world/train                 a training set of pictures and captions
    slq train --pairs world/train/captions.jsonl --out my-adapter
    slq embed world/train/pictures --adapter my-adapter --out my-index
    slq search "a red cat" --index my-index

**With a real model:** add `--backbone OpenGVLab/InternVL3-1B-hf` to `slq train`; the rest stays as it is.""",
)

ADAPTER = Annotated[str, typer.Option("--adapter", "-a", help="Adapter folder or hub repository made by `slq train`.")]
BATCH = Annotated[int, typer.Option(min=1, help="Items embedded at once. Does not change the numbers; lower it if memory is short.")]
DEVICE = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: an accelerator if there is one.")]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]


def main() -> None:
    """Run the command line; errors of this package are shown as one sentence, Ctrl-C ends with code 130."""
    try:
        code = app(standalone_mode=False)  # typer returns the code of an Exit; its own for Ctrl-C is 130
        if code == 130:
            raise KeyboardInterrupt
        if code:
            sys.exit(code)
    except (KeyboardInterrupt, typer.Abort):
        typer.secho("\nStopped. What was finished is saved; `slq train --resume` goes on from the last checkpoint.", err=True)
        sys.exit(130)
    except SlqError as error:
        typer.secho(f"Error: {error}", fg="red", err=True)
        sys.exit(1)
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # click's own usage errors
            error.show()
            sys.exit(error.exit_code)
        raise


@app.command()
def train(
    pairs: Annotated[
        Path,
        typer.Option(
            "--pairs",
            "-p",
            help="JSONL, CSV, TSV or Parquet file, or a folder with captions. Columns: image + caption, or anchor/query + positive "
            "(+ negative). Picture paths are relative to the file.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adapter, the log and the newest checkpoint.")],
    backbone: Annotated[
        str, typer.Option("--backbone", "-b", help="`miniature`, a folder, or a hub id such as OpenGVLab/InternVL3-1B-hf.")
    ] = "miniature",
    revision: Annotated[str | None, typer.Option(help="Commit of the backbone on the hub.")] = None,
    num_latents: Annotated[int, typer.Option("--num-latents", "-n", help="How many latent queries to learn (the paper: 20).")] = 20,
    init: Annotated[
        str, typer.Option(help="Where they start: normal (std 1/sqrt(D)), zeros, or prompt (the generation prompt's embedding).")
    ] = "normal",
    generation_prompt: Annotated[
        bool, typer.Option(help="Put the latents after the prompt at which the backbone would answer (the paper's code), or in its place.")
    ] = True,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Pairs per step; the other pairs of a batch are the negatives.")] = 128,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="Default: 0.1 / sqrt(D).")] = None,
    warmup_steps: Annotated[int, typer.Option(help="Steps of linear warm-up, at most a tenth of the run.")] = 100,
    weight_decay: Annotated[float, typer.Option(help="AdamW weight decay.")] = 0.0,
    orthogonality: Annotated[float, typer.Option(help="Weight of the penalty that keeps the latents' states apart (0: off).")] = 0.0,
    false_negative_margin: Annotated[
        float | None,
        typer.Option(help="Leave out negatives more similar than the positive by this margin (0.1 is usual; default off)."),
    ] = None,
    captions_per_item: Annotated[int, typer.Option(help="Captions drawn per picture and step, where it has several.")] = 1,
    validation: Annotated[float, typer.Option(help="Pairs set aside for validation: a share below 1, or a number.")] = 0.05,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.")] = 100,
    seed: Annotated[int, typer.Option(help="Seed of the start, the order of pairs and the validation split.")] = 0,
    prefix_split: Annotated[
        bool,
        typer.Option(help="Run each item's own tokens once, without gradient, and keep them. Off: the slow twin, same numbers."),
    ] = True,
    cache_gb: Annotated[float | None, typer.Option(help="Memory for kept prefixes. Default: a quarter of what is free. 0: none.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    overwrite: OVERWRITE = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log to TensorBoard files in --out.")] = False,
    device: DEVICE = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16. Default: float32 on the CPU, else bfloat16.")] = None,
) -> None:
    """Learn latent queries on your pairs; the backbone stays frozen.

    Writes `adapter.safetensors` and `adapter_config.json` (what you keep), `log.jsonl` (loss, temperature, gradient norm, items/s and
    validation hit@k per step) and a checkpoint.

        slq train --pairs shop.csv --out shop-adapter --backbone OpenGVLab/InternVL3-1B-hf --epochs 3
    """
    from slq.backbone import load_backbone
    from slq.data import read_pairs
    from slq.runtime import check_free
    from slq.training import TrainingOptions
    from slq.training import train as run

    options = TrainingOptions(
        num_latents=num_latents,
        init=init,
        generation_prompt=generation_prompt,
        epochs=epochs,
        batch_size=batch_size,
        max_steps=max_steps,
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        weight_decay=weight_decay,
        orthogonality=orthogonality,
        false_negative_margin=false_negative_margin,
        captions_per_item=captions_per_item,
        validation=validation,
        save_every=save_every,
        seed=seed,
        prefix_split=prefix_split,
        cache_bytes=None if cache_gb is None else int(cache_gb * 2**30),
        tensorboard=tensorboard,
    )
    file = read_pairs(pairs)
    list_failures(file.failures)
    check_free(out, overwrite or resume, keep=pairs)
    retriever = run(file.pairs, load_backbone(backbone, revision, dtype, device), out, options, resume=resume, overwrite=overwrite)
    size = (out / "adapter.safetensors").stat().st_size / 1024
    typer.echo(f"Adapter of {retriever.queries.num_latents} latent queries saved in {out} ({size:.0f} KB).")
    typer.echo(f"Next: slq embed PICTURES --adapter {out} --out my-index")


@app.command(name="eval")
def evaluate(
    data: Annotated[Path, typer.Option("--data", "-d", help="Pairs (scored both ways), or a folder in BEIR layout.")],
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Adapter folder or hub repository.")] = None,
    backbone: Annotated[
        str, typer.Option("--backbone", "-b", help="Without --adapter: the backbone whose last token is read.")
    ] = "miniature",
    split: Annotated[str, typer.Option(help="Split of a BEIR folder (qrels/SPLIT.tsv).")] = "test",
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write the scores here.")] = None,
    batch_size: BATCH = 32,
    device: DEVICE = None,
) -> None:
    """Score retrieval: hit@k (any answer in the top k), recall@k (share of answers found), MRR, nDCG@10; ties never help.

    Without --adapter the zero-shot last-token readout is scored: what the frozen model gives by itself. In a BEIR folder's queries.jsonl
    a `category` is also scored apart, and `masked` lists corpus ids to leave out of that query's ranking.

        slq eval --data world/test/captions.jsonl --adapter my-adapter --json scores.json
    """
    from slq.backbone import load_backbone
    from slq.data import read_beir, read_pairs
    from slq.evaluate import as_json, both_ways
    from slq.evaluate import evaluate as run
    from slq.methods import LastTokenReadout
    from slq.retriever import Retriever
    from slq.runtime import provenance, replace_file

    sets = [read_beir(data, split)] if (data / "corpus.jsonl").is_file() else both_ways(read_pairs(data))
    embedder: Embedder = (
        Retriever.from_pretrained(adapter, device=device) if adapter else LastTokenReadout(load_backbone(backbone, device=device))
    )
    total = len({id(item) for one in sets for item in (*one.queries.values(), *one.corpus.values())})
    with progress_bar("embedding", total) as advance:
        evaluations = run(embedder, sets, batch_size, advance)
    for one in evaluations:
        list_failures(one.failures)
    table(["protocol", *evaluations[0].metrics], [[one.name, *shares(one.metrics.values())] for one in evaluations])
    if any(one.by_category for one in evaluations):
        names = ["hit@1", "hit@5", "hit@10", "mrr", "queries"]
        named = [
            (name, metrics)
            for one in evaluations
            for name, metrics in [(one.name, one.metrics), *[(f"  {category}", found) for category, found in one.by_category.items()]]
        ]
        table(["category", *names], [[name, *shares(metrics[each] for each in names)] for name, metrics in named])
    if json_file:
        result = {
            "adapter": adapter,
            "backbone": embedder.backbone.identity.to_dict(),
            "fingerprint": embedder.fingerprint,
            "data": str(data),
            "scores": as_json(evaluations),
            "provenance": provenance(),
        }
        replace_file(json_file, lambda path: path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8"))
        typer.echo(f"Scores written to {json_file}.")


@app.command()
def embed(
    items: Annotated[Path, typer.Argument(help="Folder of pictures, or a table with text and/or image columns.")],
    adapter: ADAPTER,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the embeddings.")],
    batch_size: BATCH = 32,
    overwrite: OVERWRITE = False,
    device: DEVICE = None,
) -> None:
    """Embed pictures, texts, or both, for `slq search`.

    Items that cannot be used are listed and left out; they never stop the others.

        slq embed photos/ --adapter my-adapter --out my-index
    """
    from dataclasses import replace

    from slq.data import read_items
    from slq.index import save_embeddings
    from slq.retriever import Retriever
    from slq.runtime import check_free

    file = read_items(items)
    check_free(out, overwrite, keep=items)
    retriever = Retriever.from_pretrained(adapter, device=device)
    with progress_bar("embedding", len(file.items)) as advance:
        embedded = retriever.embed(list(file.items.values()), list(file.items), batch_size, skip_bad=True, progress=advance)
    shown = tuple(
        {
            **({"text": item.text} if item.text else {}),
            **({"image": str(Path(str(item.image)).resolve())} if item.image is not None else {}),
        }
        for item in (file.items[id_] for id_ in embedded.ids)
    )
    embedded = replace(embedded, items=shown, failures=file.failures + embedded.failures)
    list_failures(embedded.failures)
    save_embeddings(embedded, out, {"adapter": str(Path(adapter).resolve()) if Path(adapter).is_dir() else adapter}, overwrite)
    typer.echo(f"{len(embedded.ids)} items embedded in {out}; {len(embedded.failures)} left out.")
    typer.echo(f'Next: slq search "what you look for" --index {out}')


@app.command()
def search(
    text: Annotated[str | None, typer.Argument(help="What to look for, in words. With --picture: what to change about it.")] = None,
    index: Annotated[Path, typer.Option("--index", "-i", help="Folder made by `slq embed`.")] = Path("my-index"),
    picture: Annotated[Path | None, typer.Option("--picture", "-p", help="Search by this picture, alone or with words.")] = None,
    k: Annotated[int, typer.Option("--top", "-k", min=1, help="How many results.")] = 10,
    adapter: Annotated[str | None, typer.Option("--adapter", "-a", help="Default: the one the index was made with.")] = None,
    as_json_lines: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of a table.")] = False,
    device: DEVICE = None,
) -> None:
    """Search by words, by a picture, or by a picture and words together.

    slq search "the animal said to have nine lives" --index my-index

    slq search --picture cat.png --index my-index

    slq search "but blue" --picture cat.png --index my-index
    """
    from slq.index import load_embeddings
    from slq.index import search as run
    from slq.retriever import Retriever
    from slq.types import Item

    if text is None and picture is None:
        raise InputError("Give words to look for, --picture FILE, or both.")
    corpus, about = load_embeddings(index)
    adapter = adapter or about.get("adapter")
    if adapter is None:
        raise InputError(f"{index} does not say which adapter made it: name it with --adapter.")
    retriever = Retriever.from_pretrained(adapter, device=device)
    hits = run(corpus, retriever.embed([Item(text, picture)]), k)[0]
    if as_json_lines:
        for hit in hits:
            typer.echo(json.dumps({"id": hit.id, "score": round(hit.score, 6), **hit.item}, ensure_ascii=False))
        return
    table(["score", "id", "shows"], [[f"{hit.score:.3f}", hit.id, hit.item.get("text") or hit.item.get("image", "")] for hit in hits])


@app.command()
def world(
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", help="Folder for pictures/, captions.jsonl and the BEIR sets beside them; with --contact-sheet a file."
        ),
    ],
    split: Annotated[str, typer.Option(help="train (two captions a picture), validation or test. No content is in two splits.")] = "test",
    count: Annotated[int | None, typer.Option(help="Pictures. Default: 3000 for train, else 500.")] = None,
    seed: Annotated[int, typer.Option(help="Another seed, other scenes of the same split.")] = 0,
    held_out_style: Annotated[bool, typer.Option("--held-out-style", help="Draw in the one style no training ever sees.")] = False,
    contact_sheet: Annotated[bool, typer.Option("--contact-sheet", help="Write one picture with every concept instead.")] = False,
    overwrite: OVERWRITE = False,
) -> None:
    """Write the picture-book world as ordinary files, to train, evaluate and search on without any download.

    Beside captions.jsonl stand three BEIR sets over the same pictures: knowledge/ (facts that never name what is shown), composed/ (a
    picture and a change: "but blue") and drawn/ (names drawn as pictures).

        slq world --split test --out world/test

        slq eval --data world/test/knowledge --adapter my-adapter
    """
    from slq.miniature import export

    if contact_sheet:
        from slq.runtime import writing

        with writing(out):
            export.contact_sheet().save(out)
        typer.echo(f"Contact sheet written to {out}.")
        return
    with progress_bar("drawing", count or export.DEFAULT_COUNTS.get(split, 0)) as advance:
        written = export.write_world(out, split, count, seed, held_out_style, overwrite, advance)
    typer.echo(f"{written} pictures in {out}, beside them captions.jsonl, knowledge/, composed/ and drawn/.")


@app.command()
def demo(
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for everything the demo makes; what an earlier demo left is replaced.")
    ] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Seed of the adaptation.")] = 0,
) -> None:
    """Adapt the built-in miniature, show what that changed, search a folder of pictures, and write a page of results.

    Needs no download and no other file.

        slq demo --out demo
    """
    from slq.demo import run

    run(out, seed)


def list_failures(failures: Sequence[Failure]) -> None:
    """Say what was left out, every one of it, on the error stream."""
    if failures:
        typer.secho(f"{len(failures)} item(s) left out:", fg="yellow", err=True)
        for failure in failures:
            typer.secho(f"  {failure}", err=True)


def shares(values: Iterable[float]) -> list[str]:
    """Cells of metrics: fractions in percent, counts as they are."""
    return [f"{value:.1%}" if isinstance(value, float) else str(value) for value in values]


def table(header: list[str], rows: list[list[Any]]) -> None:
    """Print a table; metrics stand in rows where there are many."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if len(header) > 6:  # too wide for a terminal: turn it round
        header, rows = (
            [header[0], *[row[0] for row in rows]],
            [[name, *[row[i] for row in rows]] for i, name in enumerate(header) if i],
        )
    shown = Table(*header)
    for row in rows:
        shown.add_row(*[escape(str(cell)) for cell in row])
    Console().print(shown)


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Any]:
    """A progress bar that is advanced by calling what it yields."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar: Progress
    with Progress(TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(what, total=total)
        yield lambda count: bar.advance(task, count)


if __name__ == "__main__":
    main()
