"""Where a keyword of the call arrives, in every family: in all attention of the decoder, in no other, and never in generation."""

from __future__ import annotations

import torch
from family_items import ITEMS, SPLITTING, families
from tiny_models import FAMILIES, LAYERS
from tolerance import FORWARD, assert_close
from torch.overrides import TorchFunctionMode


class AttentionSeen(TorchFunctionMode):
    """For each call of torch's attention: the heads and the number of its queries, and the heads of its keys."""

    def __init__(self):
        super().__init__()
        self.queries_and_keys = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key = args[:2]
            self.queries_and_keys.append((tuple(query.shape[1:3]), key.shape[1]))
        return func(*args, **kwargs or {})


@families(SPLITTING)
def test_the_latents_read_keys_of_which_there_is_one_for_several_heads(model, latents):
    config = model.model.get_decoder().config
    assert config.num_attention_heads > config.num_key_value_heads, "or there is nothing to fold"
    states = model.prefill(model.prepare(ITEMS))
    with AttentionSeen() as seen:
        model.decode_latents(states, latents)
    heads, rows = config.num_key_value_heads, len(latents) * config.num_attention_heads // config.num_key_value_heads
    assert seen.queries_and_keys == [((heads, rows), heads)] * config.num_hidden_layers


@families(FAMILIES)
def test_a_keyword_of_the_call_reaches_every_attention_layer_of_the_decoder_and_no_other(model):
    """Where it does not, `verified` must be false: packed rows depend on it."""
    config = model.model.get_decoder().config
    inputs = model.prepare(ITEMS).inputs
    positions, length = model._positions(inputs), inputs["input_ids"].shape[1]
    group = config.num_attention_heads // config.num_key_value_heads
    with AttentionSeen() as plain, torch.no_grad():
        wanted = model.model.base_model(**inputs, position_ids=positions, use_cache=False).last_hidden_state
    with AttentionSeen() as folded, torch.no_grad():
        found = model.model.base_model(**inputs, position_ids=positions, use_cache=False, slq_attention="folded").last_hidden_state
    rows = ((config.num_key_value_heads, group * length), config.num_key_value_heads)
    layers = sum(kind != "linear_attention" for kind in getattr(config, "layer_types", None) or [""] * LAYERS)
    assert folded.queries_and_keys.count(rows) == layers and rows not in plain.queries_and_keys
    stock = [(queries, keys) for queries, keys in plain.queries_and_keys if queries[1] != length]
    assert [each for each in folded.queries_and_keys if each != rows] == stock, "vision layers stay what they were"
    shown = inputs["attention_mask"].bool()
    assert_close(found[shown], wanted[shown], steps=FORWARD)


@families(FAMILIES)
def test_generation_runs_stock_attention(model):
    with AttentionSeen() as seen:
        model.generate([[model.message(item)] for item in ITEMS[:2]], max_new_tokens=1)
    assert {queries[0] for queries, _ in seen.queries_and_keys} == {model.model.get_decoder().config.num_attention_heads}
