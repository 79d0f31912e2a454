"""Items to tensors: pictures opened and shaped, words checked and cut, the chat template applied, all of it without the model.

Apart from the model, so that processes of their own can prepare the next batches while it runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from slq.backbone.families import Family
from slq.backbone.preprocessing import Preprocessing
from slq.backbone.states import Prepared
from slq.data.pictures import open_picture
from slq.data.texts import check_text
from slq.errors import InputError
from slq.types import Item


class ItemProcessor:
    """A processor of transformers with the preprocessing that was chosen.

    pictures: what follows from the preprocessing for the family. shapes_differ: whether pictures of different size have different numbers
    of tokens. tokens_of_view: how many one view of a picture has, where the processor says so. Raises BackboneError for preprocessing that
    the family does not have.
    """

    def __init__(self, processor: Any, family: Family, preprocessing: Preprocessing):
        self.processor, self.preprocessing = processor, preprocessing
        self._pad_to_square = family.pad_to_square if preprocessing.name == "paper" else None
        self._picture_options = family.picture_options(preprocessing, processor)
        self.pictures = {"pad_to_square": self._pad_to_square, **self._picture_options}
        self.shapes_differ = family.keeps_shape or not (family.one_view and preprocessing.name == "paper")
        self.tokens_of_view: int | None = getattr(processor, "image_seq_length", None) or getattr(processor, "image_seq_len", None)
        processor.tokenizer.padding_side = "left"
        self._control_tokens = [token for token in processor.tokenizer.get_added_vocab() if len(token) > 1]

    def message(self, item: Item) -> dict[str, Any]:
        """The item as one user turn: its picture, then its text, then the instruction if there is one.

        Raises PictureError, TextError, or InputError for an item without either.
        """
        parts = self.parts(item)
        if self.preprocessing.instruction:
            words = parts.pop()["text"] + "\n" if item.text is not None else ""
            parts.append({"type": "text", "text": words + self.preprocessing.instruction})
        return {"role": "user", "content": parts}

    def parts(self, item: Item) -> list[dict[str, Any]]:
        """A picture and a text as parts of a message."""
        parts: list[dict[str, Any]] = []
        if item.image is not None:
            parts.append({"type": "image", "image": self._shape_picture(open_picture(item.image))})
        if item.text is not None:
            parts.append({"type": "text", "text": self._truncate(self._defuse(check_text(item.text)))})
        if not parts:
            raise InputError("An item needs a text, a picture, or both: this one has neither.")
        return parts

    def prepare(self, items: Sequence[Item], generation_prompt: bool = True) -> Prepared:
        """Items to left-padded tensors on the CPU: the user's turn, then the generation prompt (SLQ code) if wanted.

        Raises what `message` raises for the first item that is wrong; callers that must go on check items one by one.
        """
        return self.prepare_messages([[self.message(item)] for item in items], generation_prompt)

    def prepare_messages(self, conversations: Sequence[Sequence[Mapping[str, Any]]], generation_prompt: bool = True) -> Prepared:
        """Chat conversations to left-padded tensors, with the generation prompt ready for an answer."""
        inputs = self.processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=generation_prompt,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True, **self._picture_options},
        )
        return Prepared({name: value for name, value in inputs.items() if isinstance(value, Tensor)})

    def _shape_picture(self, picture: Image.Image) -> Image.Image:
        """Padded to a centred square where the family asks for it; resizing is the processor's."""
        grey, side = self._pad_to_square, max(picture.size)
        if grey is None or picture.width == picture.height:
            return picture
        square = Image.new("RGB", (side, side), (grey, grey, grey))
        square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
        return square

    def _defuse(self, text: str) -> str:
        """Control tokens that a user's text spells out (`<image>`, `<|im_end|>`), parted by a space so that they stay plain text."""
        for token in self._control_tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _truncate(self, text: str) -> str:
        """The text's first tokens, cut in the text itself so that template and picture tokens are never cut."""
        most = self.preprocessing.max_text_tokens
        if text.isascii() and len(text) < most:  # no tokenizer makes two tokens of one such character; most captions end here
            return text
        text = self._beginning(text)
        offsets = self.processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)["offset_mapping"]
        return text if len(offsets) <= most else text[: offsets[most - 1][1]]

    def _beginning(self, text: str) -> str:
        """More than any text is left with: a token holds a few characters at most, and tokenising a whole book only to drop it is slow."""
        return text[: 40 * self.preprocessing.max_text_tokens]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens are left of each text once it is cut, without template; what cannot be embedded counts as something."""
        known = [self._beginning(str(text)).encode("utf-8", "replace").decode() for text in texts]
        if not known:
            return []
        tokens = self.processor.tokenizer(known, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        return [min(len(each), self.preprocessing.max_text_tokens) for each in tokens]

    def template_hash(self) -> str:
        """Hash of the rendered chat template."""
        probe = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "probe"}]}]
        rendered = self.processor.apply_chat_template(probe, add_generation_prompt=True, tokenize=False)
        return hashlib.sha256(rendered.encode()).hexdigest()[:16]
