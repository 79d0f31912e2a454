"""What README.md and pages of docs say was measured, written from the result files they cite.

    python -m research.bench.tables       fills what stands between `<!-- name -->` and `<!-- end -->`

A test checks that running it would change nothing. What `python -m research.paper` measured stands in claims.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from research.bench import claims, judging_tables, photo_tables, readme
from research.bench.claims import ROOT, day, percent, result, table

BLOCK = re.compile(r"<!-- (?P<name>[a-z -]+) -->\n.*?<!-- end -->", re.DOTALL)


def training_step() -> str:
    found = result("training-step-internvl3-1b-4-images-cpu-float32")
    naive = found["ways"]["naive"]["held_bytes"]
    rows = [
        [
            way,
            f"{one['seconds']:.1f}",
            with_range(found["speed_up"][way], 1),
            f"{one['held_bytes'] / 2**20:,.0f}",
            f"{one['held_bytes'] / naive:.0%}",
            f"{one['cached_bytes'] / 2**20:.0f}",
        ]
        for way, one in found["ways"].items()
    ]
    loss_off, gradient_off = (max(one[what] for one in found["agreement"].values()) for what in ("loss", "gradient"))
    naive_decoder, decoder = (found["decoder_seconds"][way]["median"] for way in ("naive decoder", "vision features cached"))
    told = (
        f"Vision encoder and preparation alone take {found['vision_encoder_and_preparation_seconds']:.1f} s. "
        f"On given features the naive decoder takes {naive_decoder:.1f} s and ours, with nothing cached, {decoder:.1f} s: "
        f"{with_range(found['decoder_speed_up_nothing_cached'], 2)} times faster. "
        f"Losses agree to {loss_off:.0e} and gradients to {gradient_off:.0e}, relative. {day(found)}\n"
    )
    return table(["way", "seconds a step", "times faster", "held, MB", "of naive", "cached, MB"], rows) + "\n" + told


def adaptation() -> str:
    found = result("adaptation")
    rows = [
        [
            schedule,
            way,
            f"{seconds['median']:.0f}",
            with_range(one["speed_up"][way], 1),
            f"{one['largest_difference_of_weights'][way]:.0e}" if way != "naive" else "",
            f"{one['validation_scores'][way]['val/query_to_positive/hit@1']:.0%}",
        ]
        for schedule, one in found.items()
        if schedule.endswith("in a step")
        for way, seconds in one["seconds"].items()
    ]
    header = ["schedule", "way", "seconds", "times faster", "largest difference of a weight", "image to text hit@1, validation"]
    largest = found["one caption in a step"]["largest_weight"]
    return table(header, rows) + f"\nThe largest weight is {largest:.2f}. {day(found)}\n"


def scaling() -> str:
    found = result("scaling-miniature-cpu-float32")
    text = ""
    for name, by_count in found["seconds_a_step"].items():
        ways = list(next(iter(by_count.values())))
        rows = [[way, *[f"{one[way]['median'] * 1000:.0f}" for one in by_count.values()]] for way in ways]
        text += table([f"{name}: milliseconds a step", *by_count], rows) + "\n"
    large = found["large_batches"]
    rows = [
        ["milliseconds a pair", *[f"{one['seconds_a_pair']['median'] * 1000:.1f}" for one in large.values()]],
        ["held, MB", *[f"{one['held_bytes'] / 2**20:,.0f}" for one in large.values()]],
        ["peak of the process, MB", *[f"{one['peak_bytes'] / 2**20:,.0f}" for one in large.values()]],
    ]
    text += table(["pairs in a batch (prefixes cached)", *large], rows) + "\n"
    reading = found["reading"]
    row = ["milliseconds to read a pair", *[f"{one['seconds_a_pair']['median'] * 1000:.1f}" for one in reading.values()]]
    text += table(["items", *reading], [row]) + "\n"
    epochs = found["epochs"]
    rows = [[way, *[f"{seconds:.0f}" for seconds in by_count.values()]] for way, by_count in epochs.items()]
    return text + table(["epochs: seconds in all, 256 images", *next(iter(epochs.values()))], rows) + f"\n{day(found)}\n"


def encoding() -> str:
    rows = []
    for model in ("internvl3-1b", "miniature"):
        found = result(f"encoding-{model}-cpu-float32")
        for kind in ("images", "texts"):
            one = found[kind]
            theirs = one["per_second"]["sentence-transformers"]["median"]
            rows += [
                [
                    f"{model}, {kind}",
                    form,
                    f"{one['per_second'][form]['median']:.3g}",
                    f"{theirs:.3g}",
                    with_range(ratio, 2),
                ]
                for form, ratio in one["over_theirs"].items()
            ]
    header = ["", "ours", "a second", "sentence-transformers", "times as fast (least to most)"]
    return table(header, rows) + f"\n{day(found)}\n"


def preprocessing() -> str:
    found = result("preprocessing")
    rows = [
        [
            way,
            f"{one['pixel_difference']:.1f}",
            f"{one['cosine']['mean']:.3f} (least {one['cosine']['min']:.3f})",
            percent(one["hit@1"]),
            percent(one["hit@5"]),
        ]
        for way, one in found["ways"].items()
    ]
    header = ["", "mean difference of a pixel", "cosine of an image's embedding", "text to image, hit@1", "hit@5"]
    return table(header, rows) + f"\n{day(found)}\n"


def intervals() -> str:
    found = result("intervals")
    rows = []
    for name, by_seed in found["settings"].items():
        counted = [metric for metric in found["metrics"] if metric not in found["rare"][name]]
        cells = []
        for what in ("false_positives", "covered", "difference_covered"):
            means = [sum(one[what][metric] for one in by_seed.values()) / len(by_seed) for metric in counted]
            cells.append(f"{sum(means) / len(means):.1f} ({min(means):.1f} to {max(means):.1f})")
        rows.append([name + (" (*)" if len(counted) < len(found["metrics"]) else ""), *cells])
    header = ["", "p < 0.05 of equal models", "interval of a score holds the truth", "interval of a difference holds it"]
    return table(header, rows) + f"\n{day(found)}\n"


def with_range(ratio: dict[str, float], digits: int) -> str:
    """The median, and in brackets least and most of several turns."""
    median, least, most = (f"{ratio[name]:.{digits}f}" for name in ("median", "min", "max"))
    return median if ratio["min"] == ratio["max"] else f"{median} ({least} to {most})"


PAGES: dict[Path, dict[str, Callable[[], str]]] = {
    ROOT / "README.md": readme.TABLES,
    ROOT / "docs" / "performance.md": {
        "training step": training_step,
        "adaptation": adaptation,
        "scaling": scaling,
        "encoding": encoding,
    },
    ROOT / "docs" / "claims.md": claims.TABLES,
    ROOT / "docs" / "judging.md": judging_tables.TABLES,
    ROOT / "docs" / "photographs.md": photo_tables.TABLES,
    ROOT / "docs" / "design" / "0007-preprocessing.md": {"preprocessing": preprocessing},
    ROOT / "docs" / "design" / "0010-results.md": {"intervals": intervals},
}


def filled(page: Path) -> str:
    """The page with every table as the result files have it."""
    written = page.read_text(encoding="utf-8")
    return BLOCK.sub(lambda block: f"<!-- {block['name']} -->\n{PAGES[page][block['name']]()}<!-- end -->", written)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(filled(page), encoding="utf-8")
