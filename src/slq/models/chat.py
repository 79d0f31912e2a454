"""What a frozen model does besides embedding: it generates answers, and scores candidates by its own yes and no. Adapters play no part.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slq.errors import InputError, ModelError
from slq.types import Item

if TYPE_CHECKING:
    from slq.models.frozen import FrozenModel

RERANK_QUESTION = "Query: {query}\nCandidate: {candidate}\nDoes the candidate match the query? Answer yes or no."


@torch.no_grad()
def generate(
    model: FrozenModel, conversations: Sequence[Sequence[Mapping[str, Any]]], max_new_tokens: int = 32, temperature: float = 0.0
) -> list[str]:
    """Answers to chat conversations.

    Args:
        model: the frozen model.
        conversations: each a list of messages, as transformers' chat templates take them; `FrozenModel.message` makes one of an item.
        max_new_tokens: where an answer ends at the latest.
        temperature: 0 for the most likely token at each step; above, tokens are drawn with torch's random numbers.

    Returns:
        One answer a conversation, without control tokens and surrounding white space.

    Raises:
        ModelError: if the model's logits are not finite.
    """
    inputs = model.prepare_messages(conversations).to(model.device).inputs
    with model.lock:
        drawn = {"do_sample": True, "temperature": temperature} if temperature else {"do_sample": False}
        tokens = model.model.generate(**inputs, max_new_tokens=max_new_tokens, **drawn, logits_processor=[_check_finite])
    answers = tokens[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in model.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)]


@torch.no_grad()
def score(model: FrozenModel, query: Item, candidates: Sequence[Item], question: str = RERANK_QUESTION, batch_size: int = 8) -> list[float]:
    """How likely the model is to answer yes when asked whether each candidate matches the query.

    Args:
        model: the frozen model.
        query: a text, an image, or both.
        candidates: the same.
        question: what it is asked, with `{query}` and `{candidate}` where the two are to stand.
        batch_size: candidates in one pass.

    Returns:
        For each candidate P(yes) / (P(yes) + P(no)), over the first tokens of both in either case.

    Raises:
        InputError: for a question without the two places, and what `FrozenModel.message` raises.
        ModelError: for a model whose tokens do not tell yes from no, or whose logits are not finite.
    """
    parts = re.split(r"(\{query\}|\{candidate\})", question)
    if sorted(part for part in parts if part.startswith("{")) != ["{candidate}", "{query}"]:
        raise InputError(f"A question to score by needs {{query}} and {{candidate}} in it, each once: {question!r}.")
    yes, no = first_tokens(model, "yes", "no")
    query_parts, scores = model.item_processor.parts(query), []
    for start in range(0, len(candidates), batch_size):
        conversations = []
        for candidate in candidates[start : start + batch_size]:
            places = {"{query}": query_parts, "{candidate}": model.item_processor.parts(candidate)}
            content = [part for text in parts if text for part in places.get(text, [{"type": "text", "text": text}])]
            conversations.append([{"role": "user", "content": content}])
        inputs = model.prepare_messages(conversations).to(model.device).inputs
        given = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        with model.lock:
            output = model.model.generate(**inputs, **given, logits_processor=[_check_finite])
        likely_BV = output.logits[0].float().log_softmax(dim=-1)
        margins_B = likely_BV[:, yes].logsumexp(dim=-1) - likely_BV[:, no].logsumexp(dim=-1)
        scores += margins_B.sigmoid().tolist()
    return scores


def _check_finite(_tokens: Tensor, logits_BV: Tensor) -> Tensor:
    """What transformers calls before it takes a token: of logits that are not finite it would take the first, as if it were an answer."""
    largest_B = logits_BV.amax(dim=-1)  # NaN where any is; -inf is what a token that may not come has
    if not bool(torch.isfinite(largest_B).all()):
        raise ModelError("The model answers nothing: its logits are not finite; load it with dtype float32 or bfloat16.")
    return logits_BV


def first_tokens(model: FrozenModel, *words: str) -> list[list[int]]:
    """For each word, tokens that an answer of it, and of no other, begins with: in either case, with and without a space before it.

    Args:
        model: that answers.
        words: such as yes and no.

    Raises:
        ModelError: if the first tokens of two words are the same.
    """
    spelled = [[form for each in (word, word.capitalize()) for form in (each, f" {each}")] for word in words]
    begin = [{ids[0] for ids in model.item_processor.token_ids(forms)} for forms in spelled]
    found = [sorted(own - set().union(*(other for other in begin if other is not own))) for own in begin]
    if not all(found):
        raise ModelError(f"This model cannot score: its tokens do not tell {' from '.join(words)} at their beginning.")
    return found
