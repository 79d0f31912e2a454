"""Pre-train the miniature: `python -m research.pretraining --out DIR` (CPU or accelerator, resumes where it stopped).

Writes `weights/` (what `slq` ships), `checkpoint.pt`, `log.jsonl` and `curves.png` under DIR.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

from research.pretraining.architecture import SIZES, build_model, build_processor, train_tokenizer
from research.pretraining.batches import PretrainingBatches
from research.pretraining.objective import Objective
from research.pretraining.optimisers import build_optimisers
from research.pretraining.tasks import corpus
from slq.errors import MissingExtraError
from slq.io.files import append_jsonl, read_jsonl, write_atomic, write_jsonl
from slq.models.processors import InternVLStillProcessor

LOG_FILE, CHECKPOINT_FILE, LOG_EVERY = "log.jsonl", "checkpoint.pt", 20
EASY_SHARE = 10  # a run from scratch spends one step in so many on images of mostly one thing


def rate_factor(step: int, steps: int, warm_up: int) -> float:
    """Linear warm-up, flat, then a linear fall to zero over the last 40 % of the steps."""
    return min(1.0, (step + 1) / warm_up, (steps - step) / (0.4 * steps))


def plot(log: Path, image: Path) -> None:
    """Loss and token accuracy over steps."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError('Curves need matplotlib: pip install "slq[plots]", then start again; nothing is lost.') from error

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines, _ = read_jsonl(log)
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for axis, key in zip(axes, ("loss", "token_accuracy"), strict=True):
        axis.plot([line["step"] for line in lines], [line[key] for line in lines])
        axis.set(xlabel="step", title=key.replace("_", " "))
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(image, dpi=110)
    pyplot.close(figure)


def save_weights(model: InternVLForConditionalGeneration, processor: InternVLStillProcessor, folder: Path) -> None:
    """What ships: bf16 weights (rounded once, here), config, tokenizer, chat template."""
    copy.deepcopy(model).cpu().bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m research.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoint, log and curves")
    parser.add_argument("--start-from", type=Path, help="weights to go on from, with their tokenizer")
    parser.add_argument("--size", choices=sorted(SIZES), default="S", help="S ships; XS is for the study of scale")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=32, help="images per step")
    parser.add_argument("--image-tasks", type=int, default=7, help="tasks asked about each image")
    parser.add_argument("--word-tasks", type=int, default=3, help="tasks of words alone beside each image")
    parser.add_argument(
        "--facts", action=argparse.BooleanOptionalAction, default=True, help="tell facts; without them, the control of what facts do"
    )
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--bf16",
        action=argparse.BooleanOptionalAction,
        help="compute in bfloat16; the default on an accelerator. On a CPU it pays only with AMX (`amx_bf16` in /proc/cpuinfo)",
    )
    parser.add_argument("--workers", type=int, default=1, help="processes that draw images")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--stop-after", type=int, help="stop at this step, as if interrupted")
    options = parser.parse_args()
    if options.bf16 is None:
        options.bf16 = options.device != "cpu"
    return options


def main() -> None:
    """Train, logging every 20 steps; a second call with the same folder goes on from the last checkpoint."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    processor = build_processor(find_tokenizer(options))
    model = build_model(processor.tokenizer, options.size)
    if options.start_from is not None:
        load_weights(model, options)
    objective = Objective(model).to(options.device).train()
    optimisers = build_optimisers(objective, options.rate)
    start = resume(options, objective, optimisers)
    easy_steps = options.steps // EASY_SHARE if options.start_from is None else 0
    batches = PretrainingBatches(
        processor, options.rows, options.steps, options.seed, options.image_tasks, options.word_tasks, easy_steps, options.facts
    )
    loader = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, options.steps),
        num_workers=options.workers,
        prefetch_factor=4 if options.workers else None,
    )
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f}M parameters, step {start} of {options.steps}")
    clock, seen = time.perf_counter(), []
    for done, batch in enumerate(loader, start + 1):
        seen.append(train_step(options, objective, optimisers, batch, done - 1))
        stops = done in (options.steps, options.stop_after)
        if done % LOG_EVERY == 0 or stops:
            log(options, done, seen, options.rows * len(seen) / (time.perf_counter() - clock))
            clock, seen = time.perf_counter(), []
        if done % options.save_every == 0 or stops:
            save_checkpoint(options, done, objective, optimisers)
            save_weights(model, processor, options.out / "weights")
            plot(options.out / LOG_FILE, options.out / "curves.png")
        if stops:
            return


def load_weights(model: InternVLForConditionalGeneration, options: argparse.Namespace) -> None:
    """Fill the model with the weights that the run starts from; they must be of its size."""
    given = InternVLForConditionalGeneration.from_pretrained(options.start_from, dtype=torch.float32).state_dict()
    if {name: value.shape for name, value in given.items()} != {name: value.shape for name, value in model.state_dict().items()}:
        raise SystemExit(f"the weights in {options.start_from} are not of size {options.size}: give the --size they were made with")
    model.load_state_dict(given)


def find_tokenizer(options: argparse.Namespace) -> PreTrainedTokenizerFast:
    """Its own tokens for a run that goes on or starts from weights, even where the tasks' wording has changed since; else new ones."""
    for folder in (options.out / "weights", options.start_from):
        if folder is not None and (folder / "tokenizer.json").exists():
            return PreTrainedTokenizerFast.from_pretrained(folder)
    if options.start_from is not None:
        raise SystemExit(f"{options.start_from} has no tokenizer.json: weights mean nothing without the tokens they were trained on")
    return train_tokenizer(corpus(options.seed))


def resume(options: argparse.Namespace, objective: Objective, optimisers: list[torch.optim.Optimizer]) -> int:
    """Take up the last checkpoint and forget what was logged after it; returns the steps already done."""
    checkpoint, log_file = options.out / CHECKPOINT_FILE, options.out / LOG_FILE
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint, map_location=options.device, weights_only=True)
    objective.load_state_dict(saved["objective"])
    for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    if log_file.exists():
        write_jsonl(log_file, [row for row in read_jsonl(log_file)[0] if row["step"] <= saved["step"]])
    return saved["step"]


def train_step(
    options: argparse.Namespace,
    objective: Objective,
    optimisers: list[torch.optim.Optimizer],
    batch: dict[str, torch.Tensor],
    step: int,
) -> dict[str, float]:
    """One update; returns what to log."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = options.rate * rate_factor(step, options.steps, options.warm_up)
    batch = {name: value.to(options.device) for name, value in batch.items()}
    with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.bf16):
        loss, measured = objective(batch)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(objective.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return {name: value.item() for name, value in measured.items()} | {"gradient_norm": norm.item()}


def log(options: argparse.Namespace, step: int, seen: list[dict[str, float]], speed: float) -> None:
    """One line with the means since the last one; a loss that is not finite ends the run."""
    means = {name: sum(values[name] for values in seen) / len(seen) for name in seen[0]}
    line = {"step": step, **means, "images_per_second": speed}
    append_jsonl(options.out / LOG_FILE, {name: round(value, 4) for name, value in line.items()})
    print(" ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
    if not math.isfinite(means["loss"]):
        raise SystemExit("the loss is not finite: lower --rate and start again from the last checkpoint")


def save_checkpoint(options: argparse.Namespace, step: int, objective: Objective, optimisers: list[torch.optim.Optimizer]) -> None:
    """Everything that a resumed run needs, written whole or not at all."""
    state = {"step": step, "objective": objective.state_dict(), "optimisers": [optimiser.state_dict() for optimiser in optimisers]}
    write_atomic(options.out / CHECKPOINT_FILE, lambda path: torch.save(state, path))


if __name__ == "__main__":
    main()
