"""What a frozen model does besides embedding: it generates answers, and scores candidates by its own yes and no. Adapters play no part.

Shapes: B batch, V vocabulary.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from slq.errors import InputError, ModelError, shorten
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
    fill(question, {"query": [], "candidate": []})  # which refuses it before anything is opened
    yes, no = first_tokens(model, "yes", "no")
    query_parts, scores = model.item_processor.parts(query), []
    for start in range(0, len(candidates), batch_size):
        conversations = []
        for candidate in candidates[start : start + batch_size]:
            content = fill(question, {"query": query_parts, "candidate": model.item_processor.parts(candidate)})
            conversations.append([{"role": "user", "content": content}])
        scores += yes_probabilities(_check_finite(None, first_logits(model, conversations)), yes, no).tolist()
    return scores


def fill(question: str, places: Mapping[str, Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A question as the content of a message.

    Args:
        question: a text that names each place once, in braces.
        places: parts of a message by name, which stand there.

    Raises:
        InputError: if a place is not there, or more than once.

    Example:
        >>> fill("{image}Is it {text}?", {"image": [{"type": "image"}], "text": [{"type": "text", "text": "blue"}]})[1:]
        [{'type': 'text', 'text': 'Is it '}, {'type': 'text', 'text': 'blue'}, {'type': 'text', 'text': '?'}]
    """
    named = [f"{{{name}}}" for name in places]
    pieces = re.split(f"({'|'.join(map(re.escape, named))})", question)
    if sorted(piece for piece in pieces if piece in named) != sorted(named):
        raise InputError(f"A question to score by needs {' and '.join(named)} in it, each once: {shorten(repr(question))}.")
    parts: list[dict[str, Any]] = []
    for piece in filter(None, pieces):
        parts += places[piece[1:-1]] if piece in named else [{"type": "text", "text": piece}]
    return parts


@torch.no_grad()
def first_logits(model: FrozenModel, conversations: Sequence[Sequence[Mapping[str, Any]]]) -> Tensor:
    """What the model makes of each conversation before its answer's first token: logits (B, V) float32, finite or not.

    Args:
        model: the frozen model.
        conversations: as for `generate`.
    """
    inputs = model.prepare_messages(conversations).to(model.device).inputs
    given = {"max_new_tokens": 1, "do_sample": False, "output_logits": True, "return_dict_in_generate": True}
    with model.lock:
        return model.model.generate(**inputs, **given).logits[0].float()


def yes_probabilities(logits_BV: Tensor, yes: Sequence[int], no: Sequence[int]) -> Tensor:
    """P(yes) / (P(yes) + P(no)) (B,) float64, in which probabilities near 1 still differ.

    Args:
        logits_BV: of the answer's first token.
        yes: the tokens that stand for yes.
        no: those that stand for no.
    """
    likely_BV = logits_BV.double().log_softmax(dim=-1)
    return (likely_BV[:, list(yes)].logsumexp(dim=-1) - likely_BV[:, list(no)].logsumexp(dim=-1)).sigmoid()


def _check_finite(_tokens: Any, logits_BV: Tensor) -> Tensor:
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
