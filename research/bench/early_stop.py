"""What stopping a prefill at its last layer's keys and values saves: the decoder run to its end against one stopped there, turn by turn.

    python -m research.bench.early_stop --backbone random:internvl3-1b --turns 7

Each turn runs both ways in alternating order over the same inputs; features of pictures are computed once, outside the measurement. It
prints, for texts and for pictures, the median CPU time of each way (one thread, so that waiting is not counted) and the median of the
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

from slq.backbone import FrozenBackbone, load_backbone
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
def seconds(backbone: FrozenBackbone, inputs: dict[str, Any], cache: DynamicCache) -> float:
    """CPU seconds of one pass through the model's body."""
    start = process_time()
    with contextlib.suppress(Stopped):
        backbone.model.base_model(**inputs, past_key_values=cache, use_cache=True)
    return process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", default="random:internvl3-1b")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--batch", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    backbone = load_backbone(asked.backbone, device="cpu")
    config = backbone.model.config.get_text_config()
    words = Item("a red cat sits on the green mat and looks at two blue boats under a bridge " * 2)
    picture = Item(image=Image.linear_gradient("L").resize((640, 480)).convert("RGB"))
    for name, item in (("texts", words), ("pictures", picture)):
        prepared = backbone.prepare([item] * asked.batch)
        inputs = backbone._shown(prepared.inputs, backbone.features(prepared))
        ways = {"to the end": DynamicCache, "stopped": StoppingCache}
        for way in ways.values():
            seconds(backbone, inputs, way(config=config))
        found: dict[str, list[float]] = {way: [] for way in ways}
        for turn in range(asked.turns):
            for way in sorted(ways, reverse=bool(turn % 2)):
                found[way].append(seconds(backbone, inputs, ways[way](config=config)))
        saved = median(1 - stopped / whole for whole, stopped in zip(found["to the end"], found["stopped"], strict=True))
        tokens = int(prepared.inputs["attention_mask"].sum())
        print(
            f"{name}: {tokens} tokens, to the end {median(found['to the end']):.2f} s, stopped {median(found['stopped']):.2f} s, "
            f"saved {100 * saved:.1f} %",
            flush=True,
        )


if __name__ == "__main__":
    main()
