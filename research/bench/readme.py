"""What the README says was measured, written from the result files it names by `python -m research.bench.tables`."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from functools import reduce
from typing import Any

from research.bench.claims import WAYS, points, result, table

ROWS: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "text to image, hit@1": (None, ("explicit.known.t2i.hit@1",)),
    "text to image, hit@5": ("text to image", ("explicit.known.t2i.hit@5",)),
    "image to text, hit@1": (None, ("explicit.known.i2t.hit@1",)),
    "image to text, hit@5": ("image to text", ("explicit.known.i2t.hit@5",)),
    "the same two in a style no training saw, hit@5": ("text to image", ("explicit.held_out.t2i.hit@5", "explicit.held_out.i2t.hit@5")),
    "knowledge: a fact that never names what is shown, hit@5": ("knowledge", ("knowledge.hit@5",)),
    'an image and a change ("but blue"), hit@5': ("composed", ("composed.hit@5",)),
    "a name drawn as an image, hit@5": ("rendered", ("rendered.hit@5",)),
}
"""Row -> the chance of its hit@5, and where its figures stand in the result."""


def miniature() -> str:
    found = result("miniature")
    columns = (found["controls"]["last_token"], found["controls"]["untrained_latents"])
    lines = ["| | chance hit@5 | last token, zero-shot | untrained latents | 5 latent queries |", "|---|---|---|---|---|"]
    for name, (chance, places) in ROWS.items():
        before = [", ".join(f"{_at(column, place)['mean']:.1f}" for place in places) for column in columns]
        figures = [_at(found, place) for place in places]
        better = all(one["mean"] > _at(column, place)["mean"] for one, place in zip(figures, places, strict=True) for column in columns)
        mark = "**" if better else ""
        ours = ", ".join(f"{mark}{one['mean']:.1f} ± {one['sd']:.1f}{mark}" for one in figures)
        lines.append(
            f"| {name} | {'' if chance is None else format(found['chance'][chance]['mean'], '.1f')} | {' | '.join(before)} | {ours} |"
        )
    seeds = " ".join(map(str, found["seeds"]))
    return (
        f"On 500 images of held-out scenes, in percent, mean ± sd over {len(found['seeds'])} seeds of adapting "
        f"({found['adapt_seconds']['mean']:.0f} s each):\n\n" + "\n".join(lines) + "\n\n"
        f"`python -m research.bench.miniature`, {found['hardware'].partition(' (')[0]}, seeds {seeds}, {found['date'][:10]}: "
        "[miniature.json](research/results/miniature.json).\n"
    )


def methods() -> str:
    tuned, kept = result("paper-tuning")["methods"], result("paper-retention")
    latents, lora, full = (tuned[name] for name in ("5 latents", "lora", "full"))
    ahead = [100 * (one["test"][way]["hit@1"]["mean"] - latents["test"][way]["hit@1"]["mean"]) for one in (lora, full) for way in WAYS]
    times = [_rounded(one["learned_numbers"] / latents["learned_numbers"]) for one in (lora, full)]
    before = _answered(kept["before"])
    lost = [100 * (before - _answered(kept["methods"][name]["right"])) for name in ("lora", "full")]
    return _wrapped(
        f"On the miniature LoRA and full fine-tuning, tuned for retrieval, find {min(ahead):.0f} to {max(ahead):.0f} points more (hit@1) "
        f"than five latent queries, with {times[0]:,} and {times[1]:,} times as many learned parameters, and lose {lost[0]:.0f} and "
        f"{lost[1]:.0f} of the {100 * before:.0f} % of questions that the model answers; latent queries lose none, verified by hash."
    )


HARDER = ", hard negatives"
TUNED = ("LoRA, rank 8, nearest, facts", "full, nearest, facts")
SHOWN = ("last token", *(f"{name}{HARDER}" for name in ("latent LoRA, rank 8", "latent LoRA, rank 2", *TUNED)))


def comparison() -> str:
    """The best of each method with the same batches and facts, in a few columns."""
    found = result("method-comparison")
    figures = ("t2i_hit1", "i2t_hit1", "knowledge_hit5", "minimal_pairs_hit1", "retention")
    header = ["on the miniature, in percent", "numbers learned", "text to image, hit@1", "image to text, hit@1", "knowledge, hit@5"]
    header += ["minimal pairs", "questions still right", "weights"]
    rows = []
    for row in sorted((row for row in found["rows"] if row["name"] in SHOWN), key=lambda row: SHOWN.index(row["name"])):
        cells = [points(row[figure]) for figure in figures]
        weights = "changed" if row["weights_changed"] else "identical"
        rows.append([row["name"].replace(", nearest, facts", "").removesuffix(HARDER), f"{row['parameters']:,}", *cells, weights])
    (seeds,) = {row["seeds"] for row in found["rows"] if row["name"] in SHOWN[1:]}
    made = f"{seeds} seeds, `{found['command']}`, {found['hardware'].partition(' (')[0]}, {found['date'][:10]}"
    return table(header, rows) + f"\n{made}: [method-comparison.json](research/results/method-comparison.json).\n"


def training_step() -> str:
    found = result("training-step-internvl3-1b-4-images-cpu-float32")
    times = {way: found["speed_up"][way]["median"] for way in ("prefixes cached", "nothing cached")}
    return _wrapped(
        f"At InternVL3-1B's shape, on a CPU, a training step on cached prefixes is {times['prefixes cached']:.0f} times as fast as the "
        f"published recipe's, with the same gradient; with nothing cached, it is {times['nothing cached']:.1f} times as fast and holds "
        f"{found['held_memory_fraction_nothing_cached']:.0%} of the memory."
    )


def _at(tree: Mapping[str, Any], place: str) -> Mapping[str, float]:
    return reduce(lambda found, key: found[key], place.split("."), tree)


def _answered(by_task: Mapping[str, float | Mapping[str, float]]) -> float:
    """The fraction of questions that are right, over tasks of as many questions each."""
    rights = [one["mean"] if isinstance(one, Mapping) else one for one in by_task.values()]
    return sum(rights) / len(rights)


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 140) + "\n"


def _rounded(number: float) -> int:
    """To two digits."""
    return round(float(f"{number:.1e}"))


TABLES: dict[str, Callable[[], str]] = {
    "miniature": miniature,
    "methods": methods,
    "comparison": comparison,
    "training step": training_step,
}
