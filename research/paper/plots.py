"""Figures of the experiments; drawn with matplotlib, which is asked for when the first one is due."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from slq.errors import MissingExtraError

WAYS = ("text to image", "image to text")


@contextmanager
def _figure(path: Path, rows: int, columns: int, width: float, height: float) -> Iterator[Any]:
    """Axes to draw on; the figure is written to `path`."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError('Figures need matplotlib: pip install "slq[plots]", then start again; trainings are kept.') from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False)
    try:
        yield axes
        figure.tight_layout()
        figure.savefig(path, dpi=110)
    finally:
        pyplot.close(figure)


def bars(path: Path, found: Mapping[str, Mapping[str, Any]], metric: str, title: str) -> None:
    """One group of bars a encoder: explicit retrieval both ways, and knowledge where it was asked."""
    sets = list(next(iter(found.values())))
    with _figure(path, 1, 1, 8, 3.6) as axes:
        axis = axes[0, 0]
        for place, name in enumerate(sets):
            heights = [100 * scores[name][metric] for scores in found.values()]
            drawn = axis.bar(np.arange(len(found)) + 0.27 * (place - 1), heights, 0.25, label=name)
            axis.bar_label(drawn, [f"{height:.0f}" for height in heights], fontsize=8)
        axis.set_xticks(range(len(found)), [name.replace(", ", ",\n") for name in found])
        axis.set(ylabel=f"{metric} (%)", title=title, ylim=(0, 108))
        axis.legend(fontsize=8, loc="upper right")


def ranges(path: Path, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Explicit and knowledge retrieval of every variant, with the standard deviation over seeds; the first one's value as a line."""
    names = list(found)[::-1]
    panels: list[tuple[str, tuple[str, ...], str]] = [("hit@1, mean of both ways (%)", WAYS, "hit@1")]
    if all("knowledge" in scores for scores in found.values()):
        panels.append(("knowledge, hit@5 (%)", ("knowledge",), "hit@5"))
    with _figure(path, 1, len(panels), 5 * len(panels) + 1, 0.28 * len(names) + 1) as axes:
        for axis, (title, sets, metric) in zip(axes[0], panels, strict=True):
            means = [100 * statistics.mean(found[name][one][metric]["mean"] for one in sets) for name in names]
            sds = [100 * statistics.mean(found[name][one][metric]["sd"] for one in sets) for name in names]
            axis.errorbar(means, range(len(names)), xerr=sds, fmt="o", capsize=3)
            axis.axvline(means[-1], linestyle=":", color="grey")
            axis.set_yticks(range(len(names)), names if axis is axes[0, 0] else [""] * len(names), fontsize=8)
            axis.set_title(title, fontsize=10)
            axis.grid(axis="x", alpha=0.3)


def clouds(path: Path, planes: Mapping[str, tuple[np.ndarray, np.ndarray]], measured: Mapping[str, Any]) -> None:
    """Images and captions of every method in the plane of their main directions."""
    columns = min(3, len(planes))
    rows = -(-len(planes) // columns)
    with _figure(path, rows, columns, 3.4 * columns, 3.2 * rows) as axes:
        for axis, (name, sides) in zip(axes.flat, planes.items(), strict=False):
            for side, label in zip(sides, ("images", "captions"), strict=True):
                axis.plot(side[:, 0], side[:, 1], ".", markersize=3, alpha=0.6, label=label)
            axis.set_title(f"{name}\ngap {measured[name]['distance_of_means']['mean']:.2f}", fontsize=9)
            axis.set(xticks=[], yticks=[])
        for axis in axes.flat[len(planes) :]:
            axis.axis("off")
        axes[0, 0].legend(fontsize=8, markerscale=3)


def trade(path: Path, result: Mapping[str, Any]) -> None:
    """Knowledge against explicit retrieval for the learning rates of every method, the chosen one filled; nothing without knowledge."""
    if "knowledge" not in result["last token"]:
        return
    with _figure(path, 1, 1, 6, 4.2) as axes:
        axis = axes[0, 0]
        for name, method in result["methods"].items():
            tried = _in_view(method["by_rate"], "test")
            explicit, knowledge = ([100 * one[figure] for one in tried.values()] for figure in ("test", "test_knowledge"))
            (line,) = axis.plot(explicit, knowledge, "o-", mfc="white", label=name)
            best = tried[f"{method['learning_rate']:g}"]
            axis.plot(100 * best["test"], 100 * best["test_knowledge"], "o", color=line.get_color())
        zero_shot = result["last token"]
        untouched = statistics.mean(zero_shot[way]["hit@1"] for way in WAYS)
        axis.plot(100 * untouched, 100 * zero_shot["knowledge"]["hit@5"], "k*", markersize=11, label="last token, nothing learned")
        axis.set(xlabel="explicit retrieval, hit@1 (%), mean of both ways", ylabel="knowledge retrieval, hit@5 (%)")
        axis.set_title("from the lowest learning rate to the highest; filled: best on validation", fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def _in_view(tried: Mapping[str, Mapping[str, float]], figure: str) -> dict[str, Mapping[str, float]]:
    """Without the learning rates at which training broke down (less than half of the best): they would squeeze the others together."""
    best = max(one[figure] for one in tried.values())
    return {rate: one for rate, one in tried.items() if 2 * one[figure] >= best}


def kept(path: Path, result: Mapping[str, Any]) -> None:
    """Right answers of the adapted model against the retrieval it was adapted for, for the learning rates of every method."""
    before = 100 * statistics.mean(result["before"].values())
    with _figure(path, 1, 1, 6, 4.2) as axes:
        axis = axes[0, 0]
        axis.axhline(before, linestyle=":", color="grey", label="before adapting")
        for name, tried in result["by_rate"].items():
            seen = _in_view(tried, "explicit")
            explicit, right = ([100 * one[figure] for one in seen.values()] for figure in ("explicit", "right"))
            axis.plot(explicit, right, "o-", mfc="white", label=name)
        axis.set(xlabel="explicit retrieval, hit@1 (%), mean of both ways", ylabel="right answers (%), mean over tasks", ylim=(0, 103))
        axis.set_title("from the lowest learning rate to the highest", fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def blends(path: Path, methods: Mapping[str, Any]) -> None:
    """Knowledge against explicit retrieval from what was learned (filled) to where it began; nothing without knowledge."""
    if not all("test_knowledge" in point for method in methods.values() for point in method["curve"].values()):
        return
    with _figure(path, 1, 1, 6, 4.2) as axes:
        axis = axes[0, 0]
        for name, method in methods.items():
            explicit, knowledge = ([100 * point[figure] for point in method["curve"].values()] for figure in ("test", "test_knowledge"))
            (line,) = axis.plot(explicit, knowledge, "o-", mfc="white", label=name)
            axis.plot(explicit[0], knowledge[0], "o", color=line.get_color())
        axis.set(xlabel="explicit retrieval, hit@1 (%), mean of both ways", ylabel="knowledge retrieval, hit@5 (%)")
        axis.set_title("moved back from what was learned (filled) towards the start, by quarters", fontsize=9)
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def lines(path: Path, x: Sequence[float], found: Mapping[str, Sequence[Mapping[str, float]]], x_label: str, y_label: str) -> None:
    """One line a method over x, with the standard deviation over seeds."""
    with _figure(path, 1, 1, 5.5, 3.6) as axes:
        axis = axes[0, 0]
        for name, points in found.items():
            means, sds = ([100 * each[figure] for each in points] for figure in ("mean", "sd"))
            axis.errorbar(x, means, sds, fmt="o-", capsize=3, label=name)
        axis.set(xlabel=x_label, ylabel=y_label, xscale="log")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)


def maps(path: Path, images: Sequence[np.ndarray], looks: Sequence[Mapping[str, np.ndarray]]) -> None:
    """Each image, and beside it where each latent looks: bright where attention is strong."""
    names = list(looks[0])
    with _figure(path, len(images), 1 + len(names), 1.35 * (1 + len(names)), 1.5 * len(images)) as axes:
        for row, (image, look) in enumerate(zip(images, looks, strict=True)):
            axes[row, 0].imshow(image)
            for axis, name in zip(axes[row, 1:], names, strict=True):
                axis.imshow(image)
                height, width = image.shape[:2]
                axis.imshow(look[name], extent=(0, width, height, 0), alpha=0.65, cmap="inferno", interpolation="bilinear")
                if row == 0:
                    axis.set_title(name, fontsize=8)
            for axis in axes[row]:
                axis.set(xticks=[], yticks=[])
