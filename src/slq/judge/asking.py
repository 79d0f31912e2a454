"""An answer about an item, such as a hit of a search."""

from __future__ import annotations

from slq.models import FrozenModel
from slq.types import Item

NEW_TOKENS = 128


def ask(model: FrozenModel, item: Item, question: str, max_new_tokens: int = NEW_TOKENS) -> str:
    """Ask the frozen model about an item; adapters play no part.

    The item is read anew. Generation follows the model's own settings, such as a penalty on repeated tokens, for which transformers must
    see every token, and a kept prefix has only their keys and values.

    Args:
        model: the frozen model.
        item: a text, an image, or both.
        question: about it.
        max_new_tokens: where the answer ends at the latest.

    Returns:
        The most likely answer, token by token; empty where the model says nothing.

    Raises:
        InputError: for an item or a question that cannot be used.
        ModelError: if the model's logits are not finite.
    """
    parts = model.item_processor.parts(item)
    if item.text is not None:
        parts.append({"type": "text", "text": "\n"})
    return model.generate([[{"role": "user", "content": [*parts, *model.item_processor.parts(Item(question))]}]], max_new_tokens)[0]
