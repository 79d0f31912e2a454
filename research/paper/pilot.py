"""The pilot study (the paper's Fig. 2): what an untrained model gives, read in several ways."""

from __future__ import annotations

from typing import Any

from research.paper import plots
from research.paper.study import Study, say, scores
from slq.encoders import BASELINES


def run(study: Study) -> dict[str, Any]:
    """Scores of every baseline, and a figure of them."""
    say("baselines")
    found = {name: scores(make(study.model), study.sets("test")) for name, make in BASELINES.items()}
    plots.bars(study.out / "pilot.png", found, "hit@5", "untrained encoders")
    return study.write("pilot", {"encoders": found})
