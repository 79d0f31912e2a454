"""Images and texts embedded a second: ours beside sentence-transformers with last-token pooling, on the same model and images.

    python -m research.bench.encoding                                                       the miniature
    python -m research.bench.encoding --model random:internvl3-1b --images 8 --texts 64

Writes research/results/encoding-<model>-<device>-<dtype>.json. The model is saved to a folder and loaded by sentence-transformers
itself: its Transformer module, last-token pooling, normalisation. Images are square, since ours would pad them and theirs would not, and
go through the same image processor; what the two read off the last token is compared first. Ours carries the latent queries' tokens on
top.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from research.bench.measuring import agreed_items, statistics_of, timed_in_turns, write_result
from research.bench.roofline import Machine
from slq.adapters.latents import LatentQueries
from slq.encoders import LastTokenEncoder
from slq.encoders.latent import LatentEncoder
from slq.io.provenance import seed_everything
from slq.models import FrozenModel, load_model

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FORMS: dict[str, dict[str, Any]] = {
    "20 latents, as in the paper": {"num_latents": 20},
    "5 latents in the prompt's place": {"num_latents": 5, "generation_prompt": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="miniature", help="of the InternVL family")
    parser.add_argument("--dtype", help="default: float32 on the CPU, bfloat16 elsewhere")
    parser.add_argument("--device")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--texts", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=32, help="images at once")
    parser.add_argument("--workers", type=int, help="processes that prepare images for ours; default: as `slq embed`")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    seed_everything(options.seed)
    model = load_model(options.model, dtype=options.dtype, device=options.device)
    encoders = {name: LatentEncoder(model, LatentQueries.create(dim=model.dim, **form)) for name, form in FORMS.items()}
    with tempfile.TemporaryDirectory() as scratch:
        peer = sentence_transformer(model, Path(scratch))
        images, texts = agreed_items(options.images, options.texts, options.seed, size=(512, 512))
        machine = Machine(model.device)
        result = {
            "same_last_token": same_last_token(model, peer, images[:4], texts[:16]),
            "images": rates(encoders, peer, images, options, machine),
            "texts": rates(encoders, peer, texts, options, machine),
            "batch_size": options.batch_size,
        }
    name = f"encoding-{options.model.removeprefix('random:')}-{model.device.type}-{model.identity.dtype}"
    write_result(name, result, sys.argv, options.seed)


def sentence_transformer(model: FrozenModel, folder: Path) -> SentenceTransformer:
    """The model as sentence-transformers loads it from a folder."""
    # Here, for slq must be first: it lets torch and torchvision of different builds meet.
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
    from transformers import InternVLProcessor, InternVLVideoProcessor

    model.model.save_pretrained(folder)
    own = model.processor
    processor = InternVLProcessor(own.image_processor, own.tokenizer, InternVLVideoProcessor(), own.image_seq_length, own.chat_template)
    processor.save_pretrained(folder)
    module = Transformer(
        str(folder),
        model_kwargs={"dtype": model.model.dtype, "device_map": str(model.device)},
        processor_kwargs={"padding_side": "left"},
        processing_kwargs={"chat_template": {"add_generation_prompt": True}, "image": {"crop_to_patches": False, "resample": 2}},
    )
    module.processor.image_processor = own.image_processor  # it would take torchvision's, which the miniature does without
    pooling = Pooling(model.dim, "lasttoken")
    return SentenceTransformer(modules=[module, pooling, Normalize()], device=str(model.device))


def same_last_token(model: FrozenModel, peer: SentenceTransformer, images: list, texts: list) -> dict[str, float]:
    """Least cosine between what the two read off the last token: near 1 if they do the same work."""
    encoder = LastTokenEncoder(model)
    return {
        name: float(np.sum(encoder.encode(items).vectors * peer.encode(given(items)), axis=1).min())
        for name, items in (("images", images), ("texts", texts))
    }


def given(items: list) -> list:
    """Items as sentence-transformers takes them."""
    return [item.text if item.image is None else item.image for item in items]


def rates(
    encoders: dict[str, LatentEncoder], peer: SentenceTransformer, items: list, options: argparse.Namespace, machine: Machine
) -> dict:
    """Items a second of theirs and of each of ours, ours as a multiple of theirs (median of the ratios of each turn), of the machine."""
    theirs = "sentence-transformers"
    ways = {theirs: lambda: peer.encode(given(items), batch_size=options.batch_size)}
    for name, encoder in encoders.items():
        ways[name] = partial(encoder.encode, items, batch_size=options.batch_size, workers=options.workers)
    seconds = timed_in_turns(ways, next(iter(encoders.values())).model.device, options.repeats)
    per_second = {way: statistics_of([len(items) / each for each in its]) for way, its in seconds.items()}
    ratios = {name: [its / ours for its, ours in zip(seconds[theirs], seconds[name], strict=True)] for name in encoders}
    return {
        "count": len(items),
        "per_second": per_second,
        "over_theirs": {name: statistics_of(each) for name, each in ratios.items()},
        "roofline": {way: machine.used(run, statistics.median(seconds[way])) for way, run in ways.items()},
    }


if __name__ == "__main__":
    main()
