"""`slq train`: learn latent queries on pairs."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Annotated

import typer

from slq.cli import loading
from slq.cli.leakage import keeping, warn_of_overlap
from slq.cli.shared import OVERWRITE, WORKERS, list_failures

# Fields of TrainConfig and the options that give them.
RENAMED = {
    "add_generation_prompt": "generation_prompt",
    "hidden_state": "readout",
    "multi_vector_sizes": "group",
    "matryoshka_dims": "matryoshka",
    "save_steps": "save_every",
    "cache_memory_gb": "cache_gb",
    "cache_disk_gb": "cache_dir_gb",
    "num_workers": "workers",
}
# Panels of --help.
LATENTS, SCHEDULE, MEMORY = "Latent queries", "Data and schedule", "Memory and speed"
OTHERS = "Other methods, to compare with"


@loading.loads_a_model()
def train(
    pairs: Annotated[
        Path,
        typer.Option(
            "--pairs",
            "-p",
            help="JSONL, CSV, TSV or Parquet file, or a folder with captions. Columns: image + caption, or anchor/query + positive "
            "(+ negative). Image paths are relative to the file. dataset_coco.json: Karpathy's train and restval.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adapter, the log and the newest checkpoint.")],
    test_sets: Annotated[
        list[Path] | None,
        typer.Option(
            "--test-set", help="Pairs or BEIR folder to be tested on later: warns of images that both hold; leakage.json lists them."
        ),
    ] = None,
    model: Annotated[str, typer.Option("--model", "-b", help=loading.MODEL_HELP)] = "miniature",
    paper: Annotated[
        bool,
        typer.Option(
            "--paper", help="The paper's latent queries: --num-latents 20 --init normal --generation-prompt.", rich_help_panel=LATENTS
        ),
    ] = False,
    num_latents: Annotated[
        int | None, typer.Option("--num-latents", "-n", help="How many latent queries to learn. Default: 5.", rich_help_panel=LATENTS)
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Where they start: prompt (the embedding of the prompt at which the model would answer), normal (std 1/sqrt(D)), or "
            "zeros. Default: prompt.",
            rich_help_panel=LATENTS,
        ),
    ] = None,
    generation_prompt: Annotated[
        bool | None,
        typer.Option(help="Put the latents behind that prompt, or in its place. Default: in its place.", rich_help_panel=LATENTS),
    ] = None,
    pooling: Annotated[
        str, typer.Option(help="What of the latents' states is the embedding: their mean, or the last one's.", rich_help_panel=LATENTS)
    ] = "mean",
    readout: Annotated[
        str,
        typer.Option(help="States to read: final, or pre_mlp, without the MLP of the last layer (FreeRet).", rich_help_panel=LATENTS),
    ] = "final",
    modality_specific: Annotated[
        bool,
        typer.Option("--per-modality", help="Learn other latents for items with an image than for words alone.", rich_help_panel=LATENTS),
    ] = False,
    group: Annotated[
        list[int] | None,
        typer.Option(
            help="Train so many leading latents for late interaction too (repeat it for nested groups); see `slq eval`.",
            rich_help_panel=LATENTS,
        ),
    ] = None,
    matryoshka: Annotated[
        list[int] | None,
        typer.Option(
            help="Train so many leading numbers of embeddings to stand alone (repeat it); see `slq eval --dims`.", rich_help_panel=LATENTS
        ),
    ] = None,
    start_share: Annotated[
        float,
        typer.Option(
            help="Move what was learned back by this share of its way from the start, after the last step: 0.5 keeps more of what the "
            "model knew, and most of what was learned (WiSE-FT).",
            rich_help_panel=LATENTS,
        ),
    ] = 0.0,
    method: Annotated[
        str,
        typer.Option(
            help="latents; or, to compare with: lora or full, which tune the decoder's own weights (in a copy) and read its last token.",
            rich_help_panel=OTHERS,
        ),
    ] = "latents",
    lora_rank: Annotated[int, typer.Option(help="Rank of LoRA's matrices.", rich_help_panel=OTHERS)] = 8,
    lora_alpha: Annotated[int, typer.Option(help="LoRA's scale, times the rank.", rich_help_panel=OTHERS)] = 16,
    train_vision_encoder: Annotated[
        bool, typer.Option("--tune-vision", help="With --method full: tune the vision tower too.", rich_help_panel=OTHERS)
    ] = False,
    epochs: Annotated[int, typer.Option(help="Passes over the pairs.", rich_help_panel=SCHEDULE)] = 5,
    batch_size: Annotated[
        int, typer.Option(help="Pairs per step; the other pairs of a batch are the negatives.", rich_help_panel=SCHEDULE)
    ] = 128,
    max_steps: Annotated[int | None, typer.Option(help="Stop after this many steps.", rich_help_panel=SCHEDULE)] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate",
            "--lr",
            help="Default: a tenth of the size of their start for latents, 1e-4 for lora, 1e-5 for full.",
            rich_help_panel=SCHEDULE,
        ),
    ] = None,
    warmup_steps: Annotated[int, typer.Option(help="Steps of linear warm-up, at most a tenth of the run.", rich_help_panel=SCHEDULE)] = 100,
    weight_decay: Annotated[float, typer.Option(help="AdamW weight decay.", rich_help_panel=SCHEDULE)] = 0.0,
    orthogonality: Annotated[
        float, typer.Option(help="Weight of the penalty that keeps the latents' states apart (0: off).", rich_help_panel=LATENTS)
    ] = 0.0,
    false_negative_margin: Annotated[
        float | None,
        typer.Option(
            help="Leave out negatives more similar than the positive by this margin (0.1 is usual; default off).", rich_help_panel=SCHEDULE
        ),
    ] = None,
    positives_per_query: Annotated[
        int, typer.Option(help="Captions drawn per image and step, where it has several.", rich_help_panel=SCHEDULE)
    ] = 1,
    validation: Annotated[
        float, typer.Option(help="Pairs set aside for validation: a share below 1, or a number.", rich_help_panel=SCHEDULE)
    ] = 0.05,
    save_every: Annotated[int, typer.Option(help="Steps between checkpoints.", rich_help_panel=SCHEDULE)] = 100,
    seed: Annotated[
        int, typer.Option(help="Seed of the start, the order of pairs and the validation split.", rich_help_panel=SCHEDULE)
    ] = 0,
    prefix_caching: Annotated[
        bool,
        typer.Option(
            help="Run each item's own tokens once, without gradient, and keep them. Off: the slow twin, same numbers.",
            rich_help_panel=MEMORY,
        ),
    ] = True,
    mini_batch_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens that run at once with gradients; a larger batch is run in parts, with the same gradient. Default: what a quarter "
            "of the device's memory holds, 32,768 at most.",
            rich_help_panel=MEMORY,
        ),
    ] = None,
    cache_gb: Annotated[
        float | None, typer.Option(help="Memory for kept prefixes. Default: a quarter of what is free. 0: none.", rich_help_panel=MEMORY)
    ] = None,
    cache_device_gb: Annotated[
        float, typer.Option(help="Memory of the accelerator for kept prefixes, used first.", rich_help_panel=MEMORY)
    ] = 0.0,
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for prefixes that memory has no room for; later runs find them again. See `slq cache`.", rich_help_panel=MEMORY
        ),
    ] = None,
    cache_dir_gb: Annotated[
        float | None, typer.Option(help="The most that --cache-dir may hold. Default: what the disk holds.", rich_help_panel=MEMORY)
    ] = None,
    cache_level: Annotated[
        str,
        typer.Option(
            help="states: prefixes, or features of images where there is no room; features: those alone; none.", rich_help_panel=MEMORY
        ),
    ] = "states",
    cache_eight_bit: Annotated[
        bool, typer.Option("--cache-eight-bit", help="Keep prefixes in 8 bits: less room, slightly other weights.", rich_help_panel=MEMORY)
    ] = False,
    workers: WORKERS = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint in --out.")] = False,
    overwrite: OVERWRITE = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also log to TensorBoard files in --out.")] = False,
    *,
    wanted: loading.Loading,
) -> None:
    """Learn latent queries on your pairs; the model stays frozen (with --method lora or full a copy of it is tuned).

    Writes `adapter.safetensors` and `slq_adapter.json` (what you keep), `log.jsonl` (loss, temperature, gradient norm, items/s and
    validation hit@k per step) and a checkpoint.

        slq train --pairs shop.csv --out shop-adapter --model OpenGVLab/InternVL3-1B-hf --epochs 3
    """
    given = locals()  # the options by their names
    from slq.config import PRESETS, TrainConfig
    from slq.data import read_pairs
    from slq.io.outputs import OutputFolder
    from slq.training import train as run

    same = {
        field.name: given[RENAMED.get(field.name, field.name)]
        for field in fields(TrainConfig)
        if RENAMED.get(field.name, field.name) in given
    }
    other = {
        "wise_ft_alpha": 1 - start_share,
        "loss": ("info_nce", f"orthogonality:weight={orthogonality}") if orthogonality else ("info_nce",),
        "validation_split" if validation < 1 else "validation_size": validation if validation < 1 else int(validation),
        "cache_level": {"states": "kv", "features": "vision"}.get(cache_level, cache_level),
        "kv_cache_dtype": "int8" if cache_eight_bit else "auto",
        "report_to": ("tensorboard",) if tensorboard else (),
    }
    known = {name: value for name, value in (same | other).items() if value is not None}
    options = TrainConfig(**{**(PRESETS["paper"] if paper else {}), **known})
    file = read_pairs(pairs)
    list_failures(file.failures)
    OutputFolder.check(out, overwrite, keep=pairs, resume="train" if resume else "")
    keep_leakage = keeping(warn_of_overlap(file, test_sets or []), out)
    run(file.pairs, wanted.model(model), out, options, resume=resume, overwrite=overwrite, after_step=keep_leakage)
    if method == "latents":
        size = (out / "adapter.safetensors").stat().st_size / 1024
        typer.echo(f"Adapter of {options.num_latents} latent queries saved in {out} ({size:.0f} KB).")
    else:
        typer.echo(f"Tuned model ({method}) saved in {out}.")
    typer.echo(f"Next: slq embed IMAGES --adapter {out} --out my-index")
