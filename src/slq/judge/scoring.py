"""How likely the model is to say yes when it is asked whether a text is true of an item.

Where the question begins with the item, what was read of it for its embedding is read no more: the kept prefix is cut behind the image, and
only the question's tokens run. Elsewhere, and in families whose prefixes cannot be cached, everything runs in one pass, the reference path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from PIL import Image

from slq.cache import KVCache
from slq.encoders.base import NOT_FINITE
from slq.encoders.reuse import PrefixReuse
from slq.errors import InputError
from slq.models import FrozenModel, ItemKV
from slq.models.chat import fill, first_logits, first_tokens, yes_probabilities
from slq.models.continuation import beginning, next_logits
from slq.types import Item

BATCH_SIZE = 32
PAIRS_AT_ONCE = 256  # whose prefixes are held in memory together


@dataclass(frozen=True)
class Question:
    """What a judge is asked.

    Attributes:
        wording: a text with `{item}` and `{text}` where the two are to stand, each once.

    Raises:
        InputError: for a wording without the two places.

    Example:
        >>> Question("{item}is there {text}?").item_first, Question("is there {text}?{item}").item_first
        (True, False)
    """

    wording: str

    def __post_init__(self) -> None:
        fill(self.wording, {"item": [], "text": []})

    @property
    def item_first(self) -> bool:
        """Whether the item comes before everything else, so that its kept prefix serves."""
        return self.wording.startswith("{item}")


# From plain to explicit; models differ in which they understand, so that `choose_question` tries them all.
QUESTIONS = tuple(
    map(
        Question,
        (
            "{item}is there {text}?",
            "{item}\nIs there {text}? Answer yes or no.",
            "{item}\nDoes this show {text}? Answer yes or no.",
            "{item}\nQuery: {text}\nDoes this match the query? Answer yes or no.",
            "{item}\nText: {text}\nIs the text true of this? Answer yes or no.",
            "is there {text}?{item}",
            "Is there {text} in this? Answer yes or no.\n{item}",
            "Text: {text}\nIs the text true of this? Answer yes or no.\n{item}",
            "Query: {text}\nCandidate: {item}\nDoes the candidate match the query? Answer yes or no.",
        ),
    )
)


@dataclass(frozen=True)
class Scores:
    """What a judge says of pairs.

    Attributes:
        probabilities: (N,) float64 of yes against no, NaN for a pair that could not be judged.
        failures: place of such a pair -> why.
    """

    probabilities: np.ndarray
    failures: Mapping[int, str]


class Judge:
    """A model that is asked one question about items and texts.

    Args:
        model: the frozen model.
        question: what it is asked; see `choose_question`.
        reuse: where prefixes come from, such as `LatentEncoder.reuse`; None reads each item once in every call.
        batch_size: pairs in one pass.

    Raises:
        ModelError: for a model whose tokens do not tell yes from no.
    """

    def __init__(self, model: FrozenModel, question: Question, reuse: PrefixReuse | None = None, batch_size: int = BATCH_SIZE):
        self.model, self.question, self.batch_size = model, question, batch_size
        self.reuse = reuse or PrefixReuse(model, KVCache(0, level="none"), generation_prompt=True)
        self.yes, self.no = first_tokens(model, "yes", "no")

    @cached_property
    def uses_prefixes(self) -> bool:
        """Whether kept prefixes serve.

        They do with the item first, in families whose prefixes can be cached, where nothing but control tokens stands between the tokens of
        an image and the text behind it.
        """
        return self.question.item_first and self.model.supports_kv_cache and all(map(self._continues, (True, False)))

    def scores(self, pairs: Sequence[tuple[Item, str]]) -> Scores:
        """Ask about pairs.

        Args:
            pairs: items, each with the text that it is asked about; those of one item side by side are the quickest.

        Returns:
            One probability a pair. What cannot be judged, such as an item whose image is damaged, takes no other pair with it.
        """
        probabilities, failures = np.full(len(pairs), np.nan), dict[int, str]()
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            places = list(range(start, min(start + PAIRS_AT_ONCE, len(pairs))))
            try:
                probabilities[places] = self._ask([pairs[place] for place in places])
            except InputError:
                failures |= {place: fault for place in places if (fault := self._fault(*pairs[place]))}
                good = [place for place in places if place not in failures]
                if good:
                    probabilities[good] = self._ask([pairs[place] for place in good])
        lost = np.flatnonzero(np.isnan(probabilities)).tolist()
        return Scores(probabilities, {place: failures.get(place, NOT_FINITE) for place in lost})

    def reference(self, pairs: Sequence[tuple[Item, str]]) -> np.ndarray:
        """The same in one pass over items and question, whatever the model allows: what `scores` is compared with.

        Args:
            pairs: as for `scores`.

        Returns:
            (N,) float64, NaN where the model's values are not finite.

        Raises:
            InputError: for the first pair that is wrong.
        """
        found = []
        for start in range(0, len(pairs), self.batch_size):
            conversations = [self._conversation(*pair) for pair in pairs[start : start + self.batch_size]]
            found.append(yes_probabilities(first_logits(self.model, conversations), self.yes, self.no).cpu().numpy())
        return np.concatenate(found) if found else np.zeros(0)

    def _ask(self, pairs: Sequence[tuple[Item, str]]) -> np.ndarray:
        if not self.uses_prefixes:
            return self.reference(pairs)
        prefixes, continuations = self._continued(pairs)
        order = sorted(range(len(pairs)), key=lambda i: prefixes[i].keys.shape[2] + len(continuations[i]))
        probabilities = np.zeros(len(pairs))
        for start in range(0, len(pairs), self.batch_size):
            part = order[start : start + self.batch_size]
            logits_BV = next_logits(self.model, [prefixes[i] for i in part], [continuations[i] for i in part])
            probabilities[part] = yes_probabilities(logits_BV, self.yes, self.no).cpu().numpy()
        return probabilities

    def _continued(self, pairs: Sequence[tuple[Item, str]]) -> tuple[list[ItemKV], list[list[int]]]:
        """Of each pair the beginning of the item's prefix that the question shares, and the question's tokens behind it."""
        # All images are alike here, so that many hits of one query are one and the same to the tokenizer.
        alike = [(item.image is None, repr(item.text), repr(text)) for item, text in pairs]
        behind = {key: self._behind(*pair) for key, pair in dict(zip(alike, pairs, strict=True)).items()}
        whole = self.reuse.prefixes([item for item, _ in pairs], {})
        cut = [beginning(prefix, behind[key][0]) for prefix, key in zip(whole, alike, strict=True)]
        return cut, [behind[key][1] for key in alike]

    def _behind(self, item: Item, text: str) -> tuple[int, list[int]]:
        """How many tokens of the item's prefix the question does not share, and the question's own tokens behind those that it does."""
        processor = self.model.item_processor
        of_item = processor.ids_behind_image([processor.message(item, opened=False)], self.reuse.generation_prompt)
        asked = processor.ids_behind_image(self._conversation(item, text, opened=False))
        shared = 0
        while shared < min(len(of_item), len(asked) - 1) and of_item[shared] == asked[shared]:
            shared += 1
        return len(of_item) - shared, asked[shared:]

    def _conversation(self, item: Item, text: str, opened: bool = True) -> list[dict[str, Any]]:
        parts = self.model.item_processor.parts
        content = fill(self.question.wording, {"item": parts(item, opened), "text": parts(Item(text))})
        return [{"role": "user", "content": content}]

    def _continues(self, asked: bool) -> bool:
        """Whether the tokens behind an image, of the question or of an item alone, are what the processor itself gives."""
        processor, item = self.model.item_processor, Item(image=Image.new("RGB", (64, 64), "white"))
        if asked:
            conversation, prompt = self._conversation(item, "a cat"), True
        else:
            conversation, prompt = [processor.message(item)], self.reuse.generation_prompt
        behind = processor.ids_behind_image(conversation, prompt)
        ids = processor.prepare_messages([conversation], prompt).inputs["input_ids"][0].tolist()
        return ids[len(ids) - len(behind) :] == behind and self.model.model.config.image_token_id not in behind

    def _fault(self, item: Item, text: str) -> str:
        """Why a pair cannot be judged; empty if it can."""
        try:
            self.model.prepare_messages([self._conversation(item, text)])
        except InputError as error:
            return str(error)
        return ""
