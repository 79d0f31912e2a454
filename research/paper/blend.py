"""Between start and end: what was learned, moved back by a share of its way (WiSE-FT), for every method of `tuning`.

Nothing is trained anew. Every seed is scored at half of the way; the other shares are of the first seed, for the curve.
"""

from __future__ import annotations

from typing import Any

from research.paper import plots
from research.paper.study import Study, Trained, once, quality, say, scores, spread
from research.paper.tuning import METHODS, chosen
from slq.encoders import FineTunedModel
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.training import fresh_queries

HALF, SHARES = 0.5, (0.0, 0.25, 0.5, 0.75, 1.0)


def run(study: Study) -> dict[str, Any]:
    """Scores of every method at half of its way, and its curve from what was learned to where it began."""
    result: dict[str, Any] = {}
    for name in METHODS:
        trainings = chosen(study, name)
        say(f"blending {name}")
        curve = [_scored(study, name, trainings[0], share) for share in SHARES]
        others = [_scored(study, name, each, HALF) for each in trainings[1:]]
        half = [curve[SHARES.index(HALF)], *others]
        result[name] = {
            "half": {split: spread([each[split] for each in half]) for split in ("validation", "test")},
            "curve": {f"{share:g}": _point(each) for share, each in zip(SHARES, curve, strict=True)},
        }
    plots.blends(study.out / "blend.png", result)
    return study.write("blend", {"methods": result})


def blended(study: Study, name: str, trained: Trained, share: float) -> Encoder:
    """What a training learned, moved back by a share of its way."""
    encoder = study.load(trained)
    if isinstance(encoder, FineTunedModel):
        encoder.interpolate(1 - share)
    elif isinstance(encoder, LatentEncoder):
        options = study.options(**METHODS[name].options, seed=trained.measured["options"]["seed"])
        encoder.queries.interpolate(fresh_queries(study.model, options).latents, 1 - share)
    return encoder


def _scored(study: Study, name: str, trained: Trained, share: float) -> dict[str, Any]:
    if share == 0:
        return trained.measured

    def measure() -> dict[str, Any]:
        encoder = blended(study, name, trained, share)
        return {split: scores(encoder, study.sets(split)) for split in ("validation", "test")}

    return once(trained.folder / f"blended-{share:g}.json", measure)


def _point(scored: dict[str, Any]) -> dict[str, float]:
    """Explicit and knowledge retrieval on both splits."""
    found = {split: quality(scored, split) for split in ("validation", "test")}
    known = {f"{split}_knowledge": scored[split]["knowledge"]["hit@5"] for split in found if "knowledge" in scored[split]}
    return found | known
