"""The benchmarks by name: what each measures, by which protocol, on which data."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from slq.benchmarks import cirr, coco, fashioniq, karr, mmeb, sample
from slq.benchmarks.base import Benchmark, BenchmarkData
from slq.errors import DataError, InputError

_CAPTIONS = "hit@k of text to image and of image to text, where any of an image's captions counts"

_ALL = (
    Benchmark(
        name="coco",
        title="COCO 5K",
        shows="whether captions find their photographs, and photographs their captions",
        protocol=f"Karpathy's test split, 5,000 images; {_CAPTIONS}. Variant five: the first five captions (25,000); all: 25,010.",
        source="royokong/coco_test on the hub; or Karpathy's dataset_coco.json and the images of val2014",
        licence="captions CC BY 4.0; images: Flickr's terms, see the source",
        size="5,000 images, 25,010 captions, about 0.8 GB",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=coco.VARIANTS,
        load=partial(coco.load_captions, "coco"),
    ),
    Benchmark(
        name="flickr30k",
        title="Flickr30K 1K",
        shows="the same as coco, on a smaller and easier gallery",
        protocol=f"Karpathy's test split, 1,000 images, 5,000 captions; {_CAPTIONS}.",
        source="royokong/flickr30k_test on the hub; or Karpathy's dataset_flickr30k.json and flickr30k-images",
        licence="see the source; images: Flickr's terms",
        size="1,000 images, 5,000 captions",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=coco.VARIANTS,
        load=partial(coco.load_captions, "flickr30k"),
    ),
    Benchmark(
        name="i2i",
        title="I2I: captions drawn as images",
        shows="whether a caption is understood when it is read off an image; both sides go through the image path",
        protocol="five captions of each image, drawn black on white, 800 x 400, DejaVu Sans at 40 points, wrapped at spaces; both ways.",
        source="the data of flickr30k or coco; captions are drawn into the cache folder (the font comes with slq[plots])",
        licence="as flickr30k and coco",
        size="5,000 (flickr30k) or 25,000 (coco) drawn captions",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("flickr30k", "coco"),
        load=coco.load_drawn,
    ),
    Benchmark(
        name="cirr",
        title="CIRR",
        shows="whether an image with a change in words finds the changed image",
        protocol="rc2 validation split; the reference image is masked; hit@1/5/10/50 over the gallery is Recall@k, hit@1/2/3 among the "
        "five others of its group is Recall_subset@k.",
        source="royokong/cirr_val and royokong/cirr_imgs on the hub; or github.com/Cuberick-Orion/CIRR, branch cirr_dataset, with NLVR2's "
        "images",
        licence="see the source",
        size="4,181 queries, 2,297 images",
        headline=("hit@1", "hit@5", "hit@10", "hit@50"),
        variants=("val",),
        load=cirr.load_cirr,
    ),
    Benchmark(
        name="fashioniq",
        title="FashionIQ",
        shows="whether an image of a garment with two remarks finds the garment they describe",
        protocol="validation queries of dress, shirt and toptee, each over its own gallery, and the average; the reference image stays. "
        "original: the whole split as gallery; val: only the images that queries name, which inflates; -both: remarks in either order.",
        source="royokong/fashioniq_val and royokong/fashioniq_val_imgs on the hub; or github.com/XiaoxiaoGuo/fashion-iq with the images",
        licence="see the source",
        size="6,016 queries, 15,536 images",
        headline=("hit@10", "hit@50"),
        variants=fashioniq.VARIANTS,
        load=fashioniq.load_fashioniq,
    ),
    Benchmark(
        name="mmeb",
        title="MMEB v1",
        shows="36 tasks made into retrieval: classification, question answering, retrieval and grounding",
        protocol="hit@1 inside each query's own candidates (usually 1,000), shuffled; overall is the mean over the 36 tasks.",
        source="TIGER-Lab/MMEB-eval on the hub, or a copy of it",
        licence="see the source; each task has its own",
        size="36 tasks, usually 1,000 queries each",
        headline=("hit@1",),
        variants=mmeb.VARIANTS,
        load=mmeb.load_mmeb,
    ),
    Benchmark(
        name="karr",
        title="KARR-Bench",
        shows="whether queries that never name the thing find its image by knowledge",
        protocol="both ways, over all and by category; a query's one answer is its own image, unless qrels name several.",
        source="not public: a copy of your own",
        licence="see the source",
        size="2,915 pairs",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test",),
        load=karr.load_karr,
    ),
    Benchmark(
        name="miniature",
        title="The picture-book world",
        shows="everything above in small, without a download: captions, knowledge, composed queries, rendered names",
        protocol="500 images of the test split; captions both ways, knowledge by category, composed with the query's own image masked.",
        source="drawn on this machine, as by `slq world`",
        licence="Apache-2.0",
        size="500 images of 96 x 96",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test",),
        load=sample.load_miniature,
    ),
    Benchmark(
        name="beir",
        title="Your own data",
        shows="what matters to you",
        protocol="every judged query over the whole corpus; the variant is the split; `category` and `masked` are kept to.",
        source="your own folder in BEIR layout",
        licence="yours",
        size="any",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test", "dev", "train"),
        load=sample.load_beir,
    ),
)
BENCHMARKS: dict[str, Benchmark] = {each.name: each for each in _ALL}

# The part of each module's docstring that shows a local copy.
_MODULES = {"coco": coco, "flickr30k": coco, "i2i": coco, "cirr": cirr, "fashioniq": fashioniq, "mmeb": mmeb, "karr": karr}
_OWN_LAYOUTS = {
    "miniature": "    DIR/                      empty or not there yet: the world is drawn into it\n"
    "    DIR/captions.jsonl        or sample data written by `slq sample-data DIR`",
    "beir": "    DIR/corpus.jsonl          _id, text, title, image (a path relative to DIR)\n"
    "    DIR/queries.jsonl         _id, text, image, category, masked (a list of corpus ids)\n"
    "    DIR/qrels/test.tsv        query-id, corpus-id, score",
}


def local_layout(name: str) -> str:
    """What a local copy of a benchmark must look like, file by file.

    >>> local_layout("cirr").splitlines()[0]
    '    DIR/captions/cap.rc2.val.json'
    """
    if name in _OWN_LAYOUTS:
        return _OWN_LAYOUTS[name]
    return "\n".join(line for line in (_MODULES[name].__doc__ or "").splitlines() if line.startswith("    DIR"))


def load_benchmark(
    name: str, data: Path | None = None, variant: str | None = None, prompts: bool = False, revision: str | None = None
) -> BenchmarkData:
    """The sets of a benchmark, with what must stand beside their scores.

    data: a local copy (`slq benchmarks NAME` shows its layout); None: fetched from the hub, at `revision` if one is given. variant: one of
    the benchmark's; default: the first. prompts: put the papers' wording around the items; without, an item is embedded as it is.

    Raises InputError for a name, variant or revision that does not exist, DataError if the data cannot be had or is not as it should
    be, MissingExtraError if reading it needs a package that is not installed.
    """
    benchmark = find(name)
    variant = benchmark.variants[0] if variant is None else variant
    if variant not in benchmark.variants:
        raise InputError(f"{name!r} has no variant {variant!r}; choose one of {', '.join(benchmark.variants)}")
    if data is not None:
        data = Path(data)
        if revision is not None:
            raise InputError(f"a local copy has no revisions, only the hub has; leave out the revision {revision!r} or {data}")
        if not data.is_dir() and (name != "miniature" or data.exists()):
            what = "is a file" if data.exists() else "does not exist"
            raise DataError(f"{data} {what}; give the folder of a local copy, as `slq benchmarks {name}` shows it")
    return benchmark.load(data, variant, prompts, revision)


def find(name: str) -> Benchmark:
    """The benchmark of a name; raises InputError if there is none."""
    if name not in BENCHMARKS:
        raise InputError(f"there is no benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    return BENCHMARKS[name]
