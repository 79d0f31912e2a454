"""What stopping a prefill at its last layer's keys and values saves: the decoder run to its end against one stopped there, turn by turn.

    python -m research.bench.early_stop --model random:internvl3-1b --turns 7

Each turn runs both ways in alternating order over the same inputs; features of images are computed once, outside the measurement. It
prints, for texts and for images, the median CPU time of each way (one thread, so that waiting is not counted) and the median of the
turns' savings.
"""

from __future__ import annotations

import argparse
import contextlib
from statistics import median
from time import process_time
from typing import Any

import torch
from PIL import Image
from transformers import DynamicCache

from slq.models import FrozenModel, load_model
from slq.types import Item


class Stopped(Exception):
    """The last layer has given its keys and values."""


class StoppingCache(DynamicCache):
    def update(self, key_states: Any, value_states: Any, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        updated = super().update(key_states, value_states, layer_idx, *args, **kwargs)
        if layer_idx == len(self.layers) - 1:
            raise Stopped
        return updated


@torch.no_grad()
def seconds(model: FrozenModel, inputs: dict[str, Any], cache: DynamicCache) -> float:
    """CPU seconds of one pass through the model's body."""
    start = process_time()
    with contextlib.suppress(Stopped):
        model.model.base_model(**inputs, past_key_values=cache, use_cache=True)
    return process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="random:internvl3-1b")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(asked.model, device="cpu")
    config = model.model.config.get_text_config()
    words = Item("a red cat sits on the green mat and looks at two blue boats under a bridge " * 2)
    image = Item(image=Image.linear_gradient("L").resize((640, 480)).convert("RGB"))
    for name, item in (("texts", words), ("images", image)):
        prepared = model.prepare([item] * asked.batch)
        inputs = model._with_features(prepared.inputs, model.features(prepared))
        ways = {"to the end": DynamicCache, "stopped": StoppingCache}
        for way in ways.values():
            seconds(model, inputs, way(config=config))
        found: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(asked.turns):
            for way in sorted(ways, reverse=bool(turn % 2)):
                found[way].append(seconds(model, inputs, ways[way](config=config)))
        saved = median(1 - stopped / whole for whole, stopped in zip(found["to the end"], found["stopped"], strict=True))
        tokens = int(prepared.inputs["attention_mask"].sum())
        print(
            f"{name}: {tokens} tokens, to the end {median(found['to the end']):.2f} s, stopped {median(found['stopped']):.2f} s, "
            f"saved {100 * saved:.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
