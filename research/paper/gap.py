"""The modality gap: how far images and captions lie apart, before adapting and after each method (a figure of the paper).

Shapes: N pairs, D hidden size.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from research.paper import plots
from research.paper.study import Study, say, spread
from research.paper.tuning import METHODS, chosen
from slq.encoders import LastTokenEncoder
from slq.encoders.base import Encoder
from slq.encoders.latent import LatentEncoder
from slq.training import fresh_queries


def run(study: Study) -> dict[str, Any]:
    """The gap of every method over all seeds, and a joint image of the first seed's embeddings."""
    untrained = LatentEncoder(study.model, fresh_queries(study.model, study.options(**METHODS["latents"].options)))
    encoders: dict[str, list[Encoder]] = {"last token": [LastTokenEncoder(study.model)], "untrained latents": [untrained]}
    encoders |= {name: [study.load(each) for each in chosen(study, name)] for name in METHODS}
    measured: dict[str, Any] = {}
    clouds: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for name, of_seeds in encoders.items():
        say(f"gap of {name}")
        both = [embedded(each, study) for each in of_seeds]
        measured[name] = spread([gap(*each) for each in both])
        clouds[name] = both[0]
    plots.clouds(study.out / "gap.png", {name: joint_plane(*each) for name, each in clouds.items()}, measured)
    return study.write("gap", {"methods": measured})


def embedded(encoder: Encoder, study: Study) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (N, D) of the test pairs' images, and of one caption of each."""
    pairs = study.pairs("test")
    return encoder.encode([pair.query for pair in pairs]).vectors, encoder.encode([pair.positives[0] for pair in pairs]).vectors


def gap(images_ND: np.ndarray, captions_ND: np.ndarray) -> dict[str, float]:
    """The distance between the means of both sides (the paper's measure), and the mean cosine of a pair and of strangers.

    >>> gap(np.array([[1.0, 0.0]] * 2), np.array([[0.0, 1.0]] * 2))["distance_of_means"] == 2**0.5
    True
    """
    cosines = images_ND @ captions_ND.T
    return {
        "distance_of_means": float(np.linalg.norm(images_ND.mean(axis=0) - captions_ND.mean(axis=0))),
        "cosine_of_pairs": float(np.diag(cosines).mean()),
        "cosine_of_strangers": float((cosines.sum() - np.trace(cosines)) / max(1, cosines.size - len(cosines))),
    }


def joint_plane(images_ND: np.ndarray, captions_ND: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides in the plane of their two main directions together (N, 2)."""
    joined = np.concatenate([images_ND, captions_ND])
    centred = joined - joined.mean(axis=0)
    plane = centred @ np.linalg.svd(centred, full_matrices=False)[2][:2].T
    return plane[: len(images_ND)], plane[len(images_ND) :]
