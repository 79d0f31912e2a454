"""Going on from prefixes that were read before: the beginning of each is taken, and other tokens are put behind it.

A prefix up to its last image token is the same whatever is said after it: what was read for an embedding serves a question as well, and
the vision encoder does not run again. So it is wherever prefixes can be cached item by item (`FrozenModel.supports_kv_cache`).

Shapes: B batch, S tokens behind the longest prefix, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from slq.models.frozen import FrozenModel
from slq.models.kv import ItemKV, stack_kv


def beginning(prefix: ItemKV, left_out: int) -> ItemKV:
    """A prefix without its last tokens.

    Args:
        prefix: one item's.
        left_out: how many tokens are left out; all of them text, whose positions grow by one in every component.
    """
    stop = prefix.keys.shape[2] - left_out
    return ItemKV(prefix.keys[:, :, :stop], prefix.values[:, :, :stop], prefix.next_position - left_out)


@torch.no_grad()
def next_logits(model: FrozenModel, prefixes: Sequence[ItemKV], continuations: Sequence[Sequence[int]]) -> Tensor:
    """What the model makes of the token that comes next, behind each prefix and the tokens that continue it.

    Args:
        model: that read the prefixes.
        prefixes: of one item each.
        continuations: token ids behind each prefix, at least one; all of them text.

    Returns:
        Logits (B, V) float32, finite or not: what one pass over all of it gives, up to rounding.
    """
    prefix, longest = stack_kv(prefixes, model.device), max(map(len, continuations))
    padding_B = torch.tensor([longest - len(own) for own in continuations])
    ids_BS = torch.tensor([[model.processor.tokenizer.pad_token_id] * (longest - len(own)) + list(own) for own in continuations])
    steps_BS = torch.arange(longest) - padding_B[:, None]  # padding stands between a prefix and what continues it, so that all end together
    mask = torch.cat([prefix.mask, (steps_BS >= 0).to(prefix.mask)], dim=1)
    with model.lock:
        output = model.model(
            inputs_embeds=model.embedding(ids_BS.to(model.device)),
            attention_mask=mask,
            position_ids=prefix.next_position[..., None] + steps_BS.to(model.device),
            past_key_values=prefix.fork(),
            use_cache=True,
            logits_to_keep=1,
        )
    return output.logits[:, -1].float()
