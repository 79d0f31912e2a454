"""I2I: captions rendered as images find their photographs, and photographs their captions; both sides go through the image path.

A local copy is one of COCO or Flickr30K; the captions are rendered into the user's cache folder.
"""

from __future__ import annotations

from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.coco import COCO, IMAGE_PROMPT, both_ways, described, prompts_told, read_captions
from slq.benchmarks.images import prompted
from slq.benchmarks.rendered import font_hash, rendered_file
from slq.types import Item


def load_rendered(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """Captions as images, five of each image; see `Load`."""
    captions = read_captions(variant, data, "five", revision)
    template = IMAGE_PROMPT if prompts else None
    rendered = {id_: prompted(Item(image=rendered_file(text)), template) for id_, text in captions.texts().items()}
    return BenchmarkData(
        both_ways(captions, rendered, template, ("rendered text to image", "image to rendered text")),
        {},
        captions.revision,
        {"image": IMAGE_PROMPT} if prompts else {},
        f"{described(variant, captions, 'five')}, captions rendered black on white, centred from top to bottom (800 x 400, DejaVu Sans "
        f"{font_hash()}, 40 pt), both ways, {prompts_told(prompts)}{captions.note}.",
    )


I2I = Benchmark(
    BenchmarkInfo(
        name="i2i",
        title="I2I: captions rendered as images",
        shows="whether a caption is understood when it is read off an image; both sides go through the image path",
        protocol="five captions of each image, rendered black on white, 800 x 400, DejaVu Sans at 40 points, wrapped at spaces, centred "
        "from top to bottom; both ways.",
        source="the data of flickr30k or coco; captions are rendered into the cache folder (the font comes with slq[plots])",
        licence="as flickr30k and coco",
        size="5,000 (flickr30k) or 25,000 (coco) rendered captions",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("flickr30k", "coco"),
        layout=COCO.info.layout,
    ),
    load=load_rendered,
)
