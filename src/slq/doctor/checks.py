"""The checks: each a function from the subject to what it measured, with what a failure means and what to do about it.

Shapes: B items, N latent queries, D hidden size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from slq.cache import KVCache
from slq.doctor.subject import SEED, Measured, Subject, largest
from slq.encoders.latent import LatentEncoder
from slq.io.provenance import parameter_hash
from slq.models.attention import implementation
from slq.pooling import MeanPooling


class Skipped(Exception):
    """A check that does not apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """A name, what is run, and what a failure means and asks for."""

    name: str
    run: Callable[[Subject], list[Measured]]
    advice: str


def prefix_caching(subject: Subject) -> list[Measured]:
    """The fast path (each item's own tokens, then the latents over them) against its slow twin: final states, and the latents' gradient."""
    model, latents_ND, prompt = subject.model, subject.encoder.queries.latents, subject.encoder.queries.generation_prompt
    if not model.supports_two_pass:
        raise Skipped("this model has no fast path, and takes the slow one")
    with torch.no_grad():
        slow_BND = model.forward_reference(model.prepare(subject.items, prompt), latents_ND)
    states = largest(subject.states - slow_BND) / largest(slow_BND)
    # One item of each kind alone: a slow pass over all that keeps its activations would ask too much memory of a large model.
    prepared = model.prepare(subject.one_of_each, prompt)
    fast_ND = _gradient(model.decode_latents(model.prefill(prepared), latents_ND), latents_ND)
    slow_ND = _gradient(model.forward_reference(prepared, latents_ND), latents_ND)
    gradient = largest((fast_ND - slow_ND).norm()) / largest(slow_ND.norm())
    return [
        Measured("largest difference of final states, relative", states, subject.tolerances.states),
        Measured("difference of the latents' gradient, relative", gradient, subject.tolerances.gradient),
    ]


def _gradient(states_BND: Tensor, latents_ND: Tensor) -> Tensor:
    """Gradient (N, D) of a fixed random projection of the embeddings, so that every dimension counts."""
    embeddings_BD = MeanPooling()(states_BND)
    weights_BD = torch.randn(embeddings_BD.shape, generator=torch.Generator().manual_seed(SEED)).to(embeddings_BD.device)
    return torch.autograd.grad((embeddings_BD * weights_BD).sum(), latents_ND)[0]


@torch.no_grad()
def kept_prefixes(subject: Subject) -> list[Measured]:
    """Prefixes from a cache, where they are kept apart and joined into other batches, against fresh ones."""
    if not subject.model.supports_kv_cache:
        raise Skipped("single prefixes of this model cannot be kept, and none are")
    keeping = LatentEncoder(subject.model, subject.encoder.queries, KVCache())
    keeping.encode_batch(subject.items)  # fills the cache
    return [subject.compare("kept against fresh", keeping.encode_batch(subject.items))]


def batch_of_one(subject: Subject) -> list[Measured]:
    """Every item in a batch of its own against all in one, where most are padded."""
    alone_BD = torch.cat([subject.encode([place]) for place in range(len(subject.items))])
    return [subject.compare("alone against together", alone_BD)]


def order_in_the_batch(subject: Subject) -> list[Measured]:
    """The same batch in another order, put right afterwards."""
    order = torch.randperm(len(subject.items), generator=torch.Generator().manual_seed(SEED))
    return [subject.compare("shuffled against in order", subject.encode(order.tolist())[order.argsort()])]


def mixed_batch(subject: Subject) -> list[Measured]:
    """Texts, images and both in one batch against batches of one kind."""
    apart_BD = torch.cat([subject.encode(kind) for kind in (subject.texts, subject.images, subject.both)])
    return [subject.compare("each kind apart against mixed", apart_BD)]


def attention(subject: Subject) -> list[Measured]:
    """The attention implementation that was loaded against the others that every installation has; restored at the end."""
    model = subject.model.model
    loaded, reasons, measured = implementation(model), [], []
    before = _implementations(model.config)
    try:
        for other in [each for each in ("eager", "sdpa") if each != loaded]:
            try:
                model.set_attn_implementation(other)
            except (ValueError, ImportError) as error:  # this model does not have it
                reasons.append(str(error).split("\n")[0])
                continue
            if implementation(model) != other:  # transformers only warns about models of the old kind
                reasons.append(f"it cannot be changed to {other} once loaded")
                continue
            measured.append(subject.compare(f"{loaded} against {other}", subject.encode(range(len(subject.items)))))
    finally:
        model.set_attn_implementation(before)
    if not measured:
        raise Skipped("; ".join(reasons))
    return measured


def _implementations(config: Any) -> dict[str, Any]:
    """The attention implementation of a model and of its parts, in the form that `set_attn_implementation` takes."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config._attn_implementation, **{name: _implementations(part) for name, part in parts.items() if part is not None}}


def saved_adapter(subject: Subject) -> list[Measured]:
    """The adapter written to a folder and read back: the same embeddings, bit by bit."""
    with tempfile.TemporaryDirectory() as folder:
        subject.encoder.save_pretrained(Path(folder) / "adapter")
        loaded = LatentEncoder.from_pretrained(Path(folder) / "adapter", subject.model)
    with torch.no_grad():
        again_BD = loaded.encode_prepared(subject.prepare(subject.items))
    return [Measured("largest difference: loaded against saved", largest(again_BD - subject.embeddings), 0)]


def generation(subject: Subject) -> list[Measured]:
    """What the model answers, before anything was embedded and now, when the checks before this one have embedded much."""
    changed = sum(now != before for now, before in zip(subject.answers(), subject.answers_before(), strict=True))
    return [Measured("answers that changed by embedding", changed, 0)]


def weights(subject: Subject) -> list[Measured]:
    """The model's weights, before everything and after, bit by bit; and whether anything would train them."""
    changed = parameter_hash(subject.model.model) != subject.weights_before()
    trained = sum(each.grad is not None or each.requires_grad for each in subject.model.model.parameters())
    return [
        Measured("hashes that changed", int(changed), 0),
        Measured("parameters with a gradient", trained, 0),
    ]


CHECKS = (
    Check(
        "prefix split",
        prefix_caching,
        "The fast path gives other numbers than one pass over item and latents, so training on it learns something else. Take the slow "
        "path: slq train --no-prefix-caching, LatentEncoder(..., prefix_caching=False).",
    ),
    Check(
        "kept prefixes",
        kept_prefixes,
        "A prefix that was kept gives other numbers than a fresh one, so training, which keeps them, is not to be trusted. Take the slow "
        "path: slq train --no-prefix-caching.",
    ),
    Check(
        "batch of one",
        batch_of_one,
        "An item's embedding depends on what else is in its batch: padding is seen, or positions follow the padded length. Try "
        "slq doctor --attn-implementation eager; until this passes, embed with --batch-size 1 and do not train.",
    ),
    Check(
        "order in the batch",
        order_in_the_batch,
        "An item's embedding depends on its place in the batch: items are mixed up or leak into each other. Do not use this model "
        "with its processor as they are; a newer transformers may have it right.",
    ),
    Check(
        "mixed batch",
        mixed_batch,
        "Texts, images and both give other embeddings in one batch than apart: images go to the wrong item, or padding is seen. Embed "
        "each kind in batches of its own, and do not train, where they are mixed.",
    ),
    Check(
        "attention",
        attention,
        "Two implementations of attention that should agree do not; eager is the plain one. Take it for training and embedding alike: slq "
        "train, slq embed and slq search --attn-implementation eager.",
    ),
    Check(
        "saved adapter",
        saved_adapter,
        "What is read back is not what was saved, so embeddings made before and after saving do not fit. Save it again on another disk; "
        "if it fails there too, this is a defect of slq.",
    ),
    Check(
        "generation",
        generation,
        "The model answers otherwise once it has embedded: something stays behind in it. Do not chat and embed with one loaded model.",
    ),
)

# After everything else that runs the model.
WEIGHTS = Check(
    "weights",
    weights,
    "Something changed the model's weights, or is about to, so neither its answers nor embeddings made earlier hold. Load it anew, "
    "and freeze it: model.requires_grad_(False).",
)
