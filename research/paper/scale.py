"""Scale: the same methods on models of several sizes (the paper: the gap to other methods grows with the model)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from research.paper import plots
from research.paper.study import Study, say, scores, spread
from research.paper.tuning import METHODS, of_method
from slq.encoders import LastTokenEncoder

COMPARED = ("5 latents", "latents, as in the paper", "lora", "full")


def run(study: Study, models: Sequence[str]) -> dict[str, Any]:
    """Each method on each model, smallest first, and a line for each method."""
    found = []
    for name in dict.fromkeys([study.model_name, *models]):
        other = study if name == study.model_name else study.beside(name)
        say(f"scale: {name}")
        row: dict[str, Any] = {"base_model": name, "weights": sum(each.numel() for each in other.model.model.parameters())}
        row["last token"] = {"test": spread([scores(LastTokenEncoder(other.model), other.sets("test"))])}
        found.append(row | {method: of_method(other, method, METHODS[method]) for method in COMPARED})
    found.sort(key=lambda row: row["weights"])
    sizes = [row["weights"] / 1e6 for row in found]
    for way in study.sets("test"):
        metric = "hit@5" if way.name == "knowledge" else "hit@1"
        points = {name: [row[name]["test"][way.name][metric] for row in found] for name in ("last token", *COMPARED)}
        plots.lines(study.out / f"scale-{way.name.replace(' ', '-')}.png", sizes, points, "million weights", f"{way.name}, {metric} (%)")
    return study.write("scale", {"backbones": found})
