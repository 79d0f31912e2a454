"""Stand-ins for the parts of the photo recipe: a tiny language model and image encoder with random weights, drawings for photographs."""

from __future__ import annotations

import json
import random
from pathlib import Path

import timm
import torch
from tiny_models import chat_ml, decoder, train_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

from slq.miniature.world.language import caption
from slq.miniature.world.scenes import render, sample_scene

CONTROL = ("<|im_start|>", "<|im_end|>")
SPLITS = {"train": 12, "validation": 4, "test": 22}


def write_parts(folder: Path) -> None:
    """A language model, an encoder's weights, and drawings with two captions each."""
    draw = random.Random(0)
    (folder / "images").mkdir()
    with (folder / "captions.jsonl").open("w") as file:
        for number, split in enumerate(name for name, count in SPLITS.items() for _ in range(count)):
            scene = sample_scene(draw, 1 + number % 2)
            render(scene).save(folder / f"images/{number:02}.png")
            row = {"image": f"images/{number:02}.png", "split": split, "captions": [caption(scene), f"we see {caption(scene)} ."]}
            file.write(json.dumps(row) + "\n")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_language(folder / "language")
        save_encoder(folder / "encoder.pth")


def save_language(folder: Path, control: tuple[str, ...] = CONTROL) -> None:
    tokenizer = train_tokenizer("<|endoftext|>", "<|endoftext|>", control, None, {})
    tokenizer.chat_template = chat_ml("")
    model = LlamaForCausalLM(LlamaConfig(**decoder(tokenizer), tie_word_embeddings=True))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=parameter.shape[1] ** -0.5)  # as large as training leaves them: what a token sees shows
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def save_encoder(file: Path) -> None:
    """Random weights with the statistics of what comes in, without which a random encoder sees nothing, under names of their own."""
    model = timm.create_model("test_efficientnet", pretrained=False)
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = None  # the mean over all batches
    model.train()
    with torch.no_grad():
        model(torch.nn.functional.interpolate(torch.randn(32, 3, 4, 4), size=(64, 64)))
    torch.save({f"own.{number}": value for number, value in enumerate(model.state_dict().values())}, file)


def arguments(parts: Path, out: Path, *more: str, **given: object) -> list[str]:
    """The command line of a build from the stand-ins; `given` takes the place of an option, or comes beside them."""
    options: dict[str, object] = {
        "output": out,
        "data": parts / "captions.jsonl",
        "language": parts / "language",
        "encoder": "test_efficientnet",
        "encoder_weights": parts / "encoder.pth",
        **{"size": 64, "epochs": 4, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 0.01, "device": "cpu"},
        **given,
    }
    return ["build", *(text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))), *more]
