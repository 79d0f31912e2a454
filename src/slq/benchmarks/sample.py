"""Sample data as a benchmark, without a download."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

from slq.benchmarks.base import Benchmark, BenchmarkData, BenchmarkInfo
from slq.benchmarks.files import cache_folder, digest, refuse
from slq.data.beir import read_beir
from slq.data.pairs import read_pairs
from slq.data.retrieval import from_pairs
from slq.errors import DataError

SUITES = ("knowledge", "composed", "rendered")


def load_miniature(data: Path | None, variant: str, prompts: bool, revision: str | None) -> BenchmarkData:
    """The test split of the picture-book world, rendered into the cache folder, or into `data` if nothing is there yet; see `Load`."""
    refuse("miniature", prompts, revision)
    folder = _cached_sample_data() if data is None else data
    if data is not None and (not data.exists() or (data.is_dir() and not any(data.iterdir()))):
        _write(data)
    if not (folder / "captions.jsonl").is_file():
        raise DataError(f"{folder} holds no captions.jsonl; give a folder written by `slq sample-data`, or an empty one")
    pairs = read_pairs(folder / "captions.jsonl")
    sets = [
        replace(from_pairs(pairs, "text_to_image"), name="explicit, text to image"),
        replace(from_pairs(pairs, "image_to_text"), name="explicit, image to text"),
        *[replace(read_beir(folder / suite), name=suite) for suite in SUITES],
    ]
    read = [folder / "captions.jsonl", *[folder / suite / name for suite in SUITES for name in ("queries.jsonl", "qrels/test.tsv")]]
    count = len(sets[0].corpus)
    return BenchmarkData(
        tuple(sets),
        {},
        digest(read),
        {},
        f"The miniature's picture-book world, {count:,} images: captions both ways, facts that never name the thing, an image and a "
        "change (its own image masked), names rendered as images.",
    )


def _write(folder: Path) -> None:
    from slq.miniature.export import write_sample_data

    write_sample_data(folder, "test")


def _cached_sample_data() -> Path:
    """The test split in the cache folder, named after the files that draw it, so that another version draws another."""
    total = hashlib.sha256()
    package = Path(str(files("slq.miniature")))
    for file in sorted(file for file in (package / "world").rglob("*") if file.is_file() and "__pycache__" not in file.parts):
        total.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    total.update((package / "export.py").read_bytes())
    folder = cache_folder() / f"miniature-{total.hexdigest()[:16]}"
    if not folder.is_dir():
        from slq.io.files import map_os_errors, write_folder

        with map_os_errors(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
        write_folder(folder, _write, replace=False)  # another process may have drawn the same meanwhile
    return folder


MINIATURE = Benchmark(
    BenchmarkInfo(
        name="miniature",
        title="The picture-book world",
        shows="everything above in small, without a download: captions, knowledge, composed queries, rendered names",
        protocol="500 images of the test split; captions both ways, knowledge by category, composed with the query's own image masked.",
        source="rendered on this machine, as by `slq sample-data`",
        licence="Apache-2.0",
        size="500 images of 96 x 96",
        headline=("hit@1", "hit@5", "hit@10"),
        variants=("test",),
        layout=(
            "    DIR/                      empty or not there yet: the sample data is written into it\n"
            "    DIR/captions.jsonl        or sample data made by `slq sample-data DIR`"
        ),
        local_copy=False,
    ),
    load=load_miniature,
)
