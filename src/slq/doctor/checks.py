"""The checks: each a function from the context to what it measured, with what a failure means and what to do about it.

What `slq.models.invariance` measures of an unknown family too is measured by the same functions.

Shapes: B items, D hidden size.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from slq.cache import KVCache
from slq.doctor.subject import SEED, Context, Measured, largest
from slq.encoders.latent import LatentEncoder
from slq.io.provenance import parameter_hash
from slq.models.attention import implementation
from slq.models.invariance import relative_difference, two_pass_difference


class Skipped(Exception):
    """A check that does not apply; the message says why."""


@dataclass(frozen=True)
class Check:
    """A name, what is run, and what a failure means and asks for."""

    name: str
    run: Callable[[Context], list[Measured]]
    advice: str


def prefix_caching(context: Context) -> list[Measured]:
    """The two-pass forward (each item's own tokens, then the latents over them) against the reference path: states, and gradient.

    Args:
        context: what is checked.
    """
    model, latents_ND, prompt = context.model, context.encoder.queries.latents, context.encoder.queries.generation_prompt
    if not model.supports_two_pass:
        raise Skipped("this model has no two-pass forward, and takes the reference path")
    with torch.no_grad():
        reference_BND = model.forward_reference(model.prepare(context.items, prompt), latents_ND)
    for states_BND in (reference_BND, context.states):
        largest(states_BND)  # which refuses what is not finite
    states = relative_difference(context.states, reference_BND)
    # One item of each kind alone: a reference pass over all that keeps its activations would ask too much memory of a large model.
    _, gradient = two_pass_difference(model, context.one_of_each, latents_ND, prompt)
    return [
        Measured("largest difference of final states, relative", states, context.tolerances.states),
        Measured("largest difference of the latents' gradient, relative", gradient, context.tolerances.gradient),
    ]


@torch.no_grad()
def cached_prefixes(context: Context) -> list[Measured]:
    """Prefixes from a cache, where they are stored apart and stacked into other batches, against fresh ones.

    Args:
        context: what is checked.
    """
    if not context.model.supports_kv_cache:
        raise Skipped("single prefixes of this model cannot be cached, and none are")
    caching = LatentEncoder(context.model, context.encoder.queries, KVCache())
    caching.encode_batch(context.items)  # fills the cache
    return [context.compare("cached against fresh", caching.encode_batch(context.items))]


def batch_of_one(context: Context) -> list[Measured]:
    """Every item in a batch of its own against all in one, where most are padded.

    Args:
        context: what is checked.
    """
    alone_BD = torch.cat([context.encode([position]) for position in range(len(context.items))])
    return [context.compare("alone against together", alone_BD)]


def order_in_the_batch(context: Context) -> list[Measured]:
    """The same batch in another order, put right afterwards.

    Args:
        context: what is checked.
    """
    order = torch.randperm(len(context.items), generator=torch.Generator().manual_seed(SEED))
    return [context.compare("shuffled against in order", context.encode(order.tolist())[order.argsort()])]


def mixed_batch(context: Context) -> list[Measured]:
    """Texts, images and both in one batch against batches of one kind.

    Args:
        context: what is checked.
    """
    apart_BD = torch.cat([context.encode(kind) for kind in (context.texts, context.images, context.both)])
    return [context.compare("each kind apart against mixed", apart_BD)]


def attention(context: Context) -> list[Measured]:
    """The attention implementation that was loaded against the others that every installation has; restored at the end.

    Args:
        context: what is checked.
    """
    model = context.model.model
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
            measured.append(context.compare(f"{loaded} against {other}", context.encode(range(len(context.items)))))
    finally:
        model.set_attn_implementation(before)
    if not measured:
        raise Skipped("; ".join(reasons))
    return measured


def _implementations(config: Any) -> dict[str, Any]:
    """The attention implementation of a model and of its parts, in the form that `set_attn_implementation` takes."""
    parts = {name: getattr(config, name, None) for name in config.sub_configs}
    return {"": config._attn_implementation, **{name: _implementations(part) for name, part in parts.items() if part is not None}}


def saved_adapter(context: Context) -> list[Measured]:
    """The adapter written to a folder and read back: the same embeddings, bit by bit.

    Args:
        context: what is checked.
    """
    with tempfile.TemporaryDirectory() as folder:
        context.encoder.save_pretrained(Path(folder) / "adapter")
        loaded = LatentEncoder.from_pretrained(Path(folder) / "adapter", context.model)
    with torch.no_grad():
        again_BD = loaded.encode_prepared(context.prepare(context.items))
    return [Measured("largest difference: loaded against saved", largest(again_BD - context.embeddings), 0)]


def generation(context: Context) -> list[Measured]:
    """What the model answers, before anything was embedded and now, when the checks before this one have embedded much.

    Args:
        context: what is checked.
    """
    changed = sum(now != before for now, before in zip(context.answers(), context.answers_before(), strict=True))
    return [Measured("answers that changed by embedding", changed, 0)]


def weights(context: Context) -> list[Measured]:
    """The model's weights, before everything and after, bit by bit; and whether anything would train them.

    Args:
        context: what is checked.
    """
    changed = parameter_hash(context.model.model) != context.weights_before()
    trained = sum(each.grad is not None or each.requires_grad for each in context.model.model.parameters())
    return [
        Measured("hashes that changed", int(changed), 0),
        Measured("parameters with a gradient", trained, 0),
    ]


CHECKS = (
    Check(
        "prefix caching",
        prefix_caching,
        "The two-pass forward gives other values than one pass over item and latents, so training on it learns something else. Take the "
        "reference path: slq train --no-prefix-caching, LatentEncoder(..., prefix_caching=False).",
    ),
    Check(
        "cached prefixes",
        cached_prefixes,
        "A cached prefix gives other values than a fresh one, so training, which caches them, is not to be trusted. Take the reference "
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
    "Something changed the model's weights, or is about to, so neither its answers nor embeddings made earlier hold. Load it again, "
    "and freeze it: model.requires_grad_(False).",
)
