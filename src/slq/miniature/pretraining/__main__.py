"""Pre-train the miniature: `python -m slq.miniature.pretraining --out DIR` (CPU or accelerator, resumes where it stopped).

Writes `weights/` (what `slq` ships), `checkpoint.pt`, `log.jsonl` and `curves.png` under DIR.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from transformers import InternVLForConditionalGeneration, PreTrainedTokenizerFast

from slq.backbone.processors import InternVLStillProcessor
from slq.errors import MissingExtraError
from slq.miniature.architecture import build_model, build_processor, train_tokenizer
from slq.miniature.pretraining.batches import IGNORED, PretrainingBatches
from slq.miniature.pretraining.tasks import corpus
from slq.runtime import replace_file

LOG_FILE, CHECKPOINT_FILE, LOG_EVERY = "log.jsonl", "checkpoint.pt", 20


def build_optimisers(model: torch.nn.Module, rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for the rest (embeddings, norms, biases)."""
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = ".layers." in name or ".layer." in name
        (matrices if inside and parameter.ndim == 2 else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=rate, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_factor(step: int, steps: int, warm_up: int) -> float:
    """Linear warm-up, flat, then a linear fall to zero over the last 40 % of the steps."""
    return min(1.0, (step + 1) / warm_up, (steps - step) / (0.4 * steps))


def answer_loss(model: InternVLForConditionalGeneration, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean cross-entropy over answer tokens, and the share predicted right."""
    labels = batch.pop("labels")
    hidden = model.model(**batch, use_cache=False).last_hidden_state
    wanted = labels != IGNORED
    logits = model.lm_head(hidden[wanted]).float()
    loss = torch.nn.functional.cross_entropy(logits, labels[wanted])
    return loss, (logits.argmax(-1) == labels[wanted]).float().mean()


def plot(log: Path, picture: Path) -> None:
    """Loss and token accuracy over steps."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError('Curves need matplotlib: pip install "slq[plots]", then start again; nothing is lost.') from error

    matplotlib.use("Agg")
    from matplotlib import pyplot

    lines = [json.loads(line) for line in log.read_text().splitlines()]
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.2))
    for axis, key in zip(axes, ("loss", "token_accuracy"), strict=True):
        axis.plot([line["step"] for line in lines], [line[key] for line in lines])
        axis.set(xlabel="step", title=key.replace("_", " "))
        axis.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)


def save_weights(model: torch.nn.Module, processor: InternVLStillProcessor, folder: Path) -> None:
    """What ships: bf16 weights (rounded once, here), config, tokenizer, chat template."""
    shipped = build_model(processor.tokenizer)
    shipped.load_state_dict({name: value.cpu() for name, value in model.state_dict().items()})
    shipped.bfloat16().save_pretrained(folder)
    processor.save_pretrained(folder)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m slq.miniature.pretraining", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, checkpoint, log and curves")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=32, help="pictures per step")
    parser.add_argument("--picture-tasks", type=int, default=5, help="tasks asked about each picture")
    parser.add_argument("--word-tasks", type=int, default=3, help="tasks of words alone beside each picture")
    parser.add_argument("--rate", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--warm-up", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw pictures")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument("--stop-after", type=int, help="stop at this step, as if interrupted")
    return parser.parse_args()


def main() -> None:
    """Train, logging every 20 steps; a second call with the same folder goes on from the last checkpoint."""
    options = arguments()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(options.seed)
    shipped = options.out / "weights" / "tokenizer.json"
    # A run that goes on keeps its tokens, even where the tasks' wording has changed since.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(shipped.parent) if shipped.exists() else train_tokenizer(corpus(options.seed))
    processor = build_processor(tokenizer)
    model = build_model(processor.tokenizer).to(options.device).train()
    optimisers = build_optimisers(model, options.rate)
    start = resume(options, model, optimisers)
    batches = PretrainingBatches(processor, options.rows, options.steps, options.seed, options.picture_tasks, options.word_tasks)
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
        seen.append(train_step(options, model, optimisers, batch, done - 1))
        stops = done in (options.steps, options.stop_after)
        if done % LOG_EVERY == 0 or stops:
            log(options, done, seen, options.rows * len(seen) / (time.perf_counter() - clock))
            clock, seen = time.perf_counter(), []
        if done % options.save_every == 0 or stops:
            save_checkpoint(options, done, model, optimisers)
            save_weights(model, processor, options.out / "weights")
            plot(options.out / LOG_FILE, options.out / "curves.png")
        if stops:
            return


def resume(options: argparse.Namespace, model: torch.nn.Module, optimisers: list[torch.optim.Optimizer]) -> int:
    """Take up the last checkpoint and forget what was logged after it; returns the steps already done."""
    checkpoint, log_file = options.out / CHECKPOINT_FILE, options.out / LOG_FILE
    if not checkpoint.exists():
        return 0
    saved = torch.load(checkpoint, map_location=options.device, weights_only=True)
    model.load_state_dict(saved["model"])
    for optimiser, state in zip(optimisers, saved["optimisers"], strict=True):
        optimiser.load_state_dict(state)
    if log_file.exists():
        lines = log_file.read_text(encoding="utf-8").splitlines(keepends=True)
        log_file.write_text("".join(line for line in lines if json.loads(line)["step"] <= saved["step"]), encoding="utf-8")
    return saved["step"]


def train_step(
    options: argparse.Namespace,
    model: InternVLForConditionalGeneration,
    optimisers: list[torch.optim.Optimizer],
    batch: dict[str, torch.Tensor],
    step: int,
) -> tuple[float, float, float]:
    """One update; returns loss, token accuracy and gradient norm."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = options.rate * rate_factor(step, options.steps, options.warm_up)
    batch = {name: value.to(options.device) for name, value in batch.items()}
    # bfloat16 pays on accelerators; on a CPU without matrix units it is slower than float32 (docs/design/0004-miniature.md).
    with torch.autocast(options.device, dtype=torch.bfloat16, enabled=options.device != "cpu"):
        loss, accuracy = answer_loss(model, batch)
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
    return loss.item(), accuracy.item(), norm.item()


def log(options: argparse.Namespace, step: int, seen: list[tuple[float, float, float]], speed: float) -> None:
    """One line with the means since the last one; a loss that is not finite ends the run."""
    loss, accuracy, norm = (sum(values) / len(seen) for values in zip(*seen, strict=True))
    line = {"step": step, "loss": loss, "token_accuracy": accuracy, "gradient_norm": norm, "pictures_per_second": speed}
    with (options.out / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: round(value, 4) for name, value in line.items()}) + "\n")
    print(f"step {step} loss {loss:.3f} right {accuracy:.3f} norm {norm:.2f} {speed:.1f} pictures/s", flush=True)
    if not math.isfinite(loss):
        raise SystemExit("the loss is not finite: lower --rate and start again from the last checkpoint")


def save_checkpoint(options: argparse.Namespace, step: int, model: torch.nn.Module, optimisers: list[torch.optim.Optimizer]) -> None:
    """Everything that a resumed run needs, written whole or not at all."""
    state = {"step": step, "model": model.state_dict(), "optimisers": [optimiser.state_dict() for optimiser in optimisers]}
    replace_file(options.out / CHECKPOINT_FILE, lambda path: torch.save(state, path))


if __name__ == "__main__":
    main()
