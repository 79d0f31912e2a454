"""Items to tensors: images opened and shaped, texts checked and cut, the chat template applied, all of it without the model.

Apart from the model, so that processes of their own can prepare the next batches while it runs.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from threading import RLock
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from slq.data.images import open_image
from slq.data.texts import check_text
from slq.errors import ImageError, InputError, TextError, shorten
from slq.io.processes import check_spawned
from slq.models.families import Family, families
from slq.models.identity import template_source, undated_template
from slq.models.kv import PreparedBatch
from slq.models.preprocessing import Preprocessing
from slq.types import Item
from slq.types.images import MAX_PIXELS

LONGEST_PADDED = int(MAX_PIXELS**0.5)  # pixels of a side of an image that is padded to a square: no more in all than an image may have


class ItemProcessor:
    """A processor of transformers with the preprocessing that was chosen.

    Threads may share one: they take turns at the tokenizer, which keeps from call to call how it pads.

    Attributes:
        processor: transformers' processor.
        preprocessing: the settings that were chosen.
        image_kwargs: what follows from them for the family.
        variable_resolution: whether images of different size have different numbers of tokens.
        tokens_per_tile: how many tokens one tile of an image has, where the processor says so.
    """

    def __init__(self, processor: Any, family: Family, preprocessing: Preprocessing):
        """Set a processor up.

        Args:
            processor: transformers' processor; its tokenizer pads on the left afterwards.
            family: the model's row of `models.families`.
            preprocessing: the settings.

        Raises:
            ModelError: for preprocessing that the family does not have.
        """
        self.processor, self.preprocessing, self._lock = processor, preprocessing, RLock()
        self._pad_to_square = family.pad_to_square if preprocessing.name == "paper" else None
        self._max_aspect_ratio = family.max_aspect_ratio
        with families.naming_plugin(family):
            self._image_options = family.image_options(preprocessing, processor)
        paper = preprocessing.name == "paper"
        self._antialias, newline = (family.antialias, family.image_newline) if paper else (True, True)
        # What is the processor's own goes without saying, so that the other families' adapters state what they always did.
        ours = {"antialias": self._antialias, "image_newline": newline}
        self.image_kwargs = {
            "pad_to_square": self._pad_to_square,
            **self._image_options,
            **{name: on for name, on in ours.items() if not on},
        }
        self.variable_resolution = family.variable_resolution or not (family.single_tile_kwargs and preprocessing.name == "paper")
        self.tokens_per_tile: int | None = getattr(processor, "image_seq_length", None) or getattr(processor, "image_seq_len", None)
        processor.tokenizer.padding_side = "left"
        self._template = undated_template(processor)
        self._behind_image = "" if newline else "\n"  # before an instruction, which stands on a line of its own
        if not newline:
            self._template |= _without_image_newline(processor, self._template.get("chat_template", template_source(processor)))
        self._told: set[int] = set()  # hashes of the texts that were cut and warned of
        self._control_tokens = [token for token in processor.tokenizer.get_added_vocab() if len(token) > 1]

    def message(self, item: Item, opened: bool = True) -> dict[str, Any]:
        """The item as one user turn: its image, then its text, then the instruction if there is one.

        Args:
            item: what is encoded.
            opened: as for `parts`.

        Raises:
            ImageError: for an image that cannot be opened.
            TextError: for a text that is none.
            InputError: for an item without either.
        """
        parts = self.parts(item, opened)
        if self.preprocessing.instruction:
            text = parts.pop()["text"] + "\n" if item.text is not None else self._behind_image
            parts.append({"type": "text", "text": text + self.preprocessing.instruction})
        return {"role": "user", "content": parts}

    def parts(self, item: Item, opened: bool = True) -> list[dict[str, Any]]:
        """An image and a text as parts of a message; see `message` for what is raised.

        Args:
            item: a text, an image, or both.
            opened: False leaves the image out of its part, which then only says where it stands (see `ids_behind_image`).
        """
        parts: list[dict[str, Any]] = []
        if item.image is not None:
            image = {"image": self._resize_image(self._shape_image(open_image(item.image)))} if opened else {}
            parts.append({"type": "image", **image})
        if item.text is not None:
            parts.append({"type": "text", "text": self._truncate(self._escape_control_tokens(self._prescreen(check_text(item.text))))})
        if not parts:
            raise InputError("An item needs a text, an image, or both: this one has neither.")
        return parts

    def as_read(self, item: Item) -> Item:
        """The item with what is read of its text: equal ones are equal input, whatever else their texts held.

        Args:
            item: a text, an image, or both.

        Raises:
            TextError: for a text that is none.
        """
        if item.text is None:
            return item
        return replace(item, text=self._truncate(self._escape_control_tokens(self._prescreen(check_text(item.text)))))

    def is_truncated(self, item: Item) -> bool:
        """Whether only the beginning of an item's text is read; False for what cannot be read at all.

        Args:
            item: a text, an image, or both.
        """
        try:
            text = "" if item.text is None else check_text(item.text)
        except TextError:
            return False
        begin = self._prescreen(text)
        whole = self._escape_control_tokens(begin)
        return len(begin) < len(text) or self._truncate(whole) != whole

    def prepare(self, items: Sequence[Item], generation_prompt: bool = True) -> PreparedBatch:
        """Items to left-padded tensors on the CPU: the user's turn, then the generation prompt (SLQ code) if wanted.

        Args:
            items: texts, images, and both.
            generation_prompt: whether the prompt at which the model would answer comes behind each item.

        Returns:
            The batch.

        Raises:
            InputError: what `message` raises for the first item that is wrong; callers that must go on check items one by one.
        """
        return self.prepare_messages([[self.message(item)] for item in items], generation_prompt)

    def truncated(self, items: Iterable[Item]) -> list[bool]:
        """Which items' texts are cut, with one warning for those of which none was given yet.

        Args:
            items: of a run.
        """
        items = list(items)
        cut = [self.is_truncated(item) for item in items]
        texts = {hash(item.text) for item, is_cut in zip(items, cut, strict=True) if is_cut}
        with self._lock:
            count = len(texts - self._told)
            self._told |= texts
        if count:
            limit = self.preprocessing.max_text_tokens
            warnings.warn(
                f"{count} text(s) had more than {limit} tokens; only their first {limit} were read. Train with a larger --max-length "
                "to read more.",
                stacklevel=3,
            )
        return cut

    def prepare_messages(self, conversations: Sequence[Sequence[Mapping[str, Any]]], generation_prompt: bool = True) -> PreparedBatch:
        """Chat conversations to left-padded tensors, with the generation prompt ready for an answer.

        Args:
            conversations: each a sequence of messages.
            generation_prompt: whether it is added.

        Returns:
            (B, T) ids and mask, and the pixels of the images.

        Raises:
            InputError: if the processor refuses an image.
        """
        options: dict[str, Any] = {"add_generation_prompt": generation_prompt, "processor_kwargs": {"padding": True, **self._image_options}}
        try:
            with self._lock:
                inputs = self.processor.apply_chat_template(
                    list(conversations), **self._template, **options, tokenize=True, return_dict=True, return_tensors="pt"
                )
        except (ValueError, TypeError, ArithmeticError, LookupError, RuntimeError) as error:
            if not any(part.get("type") == "image" for turns in conversations for turn in turns for part in _parts_of(turn)):
                raise
            raise InputError(f"the model's processor refuses an image ({shorten(error)}); scale or crop it") from error
        return PreparedBatch({name: value for name, value in inputs.items() if isinstance(value, Tensor)})

    def ids_behind_image(self, conversation: Sequence[Mapping[str, Any]], generation_prompt: bool = True) -> list[int]:
        """The tokens of a conversation behind its last image, or all of them where it has none; no image is looked at.

        They are what `prepare_messages` gives there if nothing but control tokens stands between the image's own tokens and the text.

        Args:
            conversation: messages whose images need not be opened.
            generation_prompt: whether the generation prompt comes last.
        """
        with self._lock:
            (rendered,) = self.processor.apply_chat_template(
                [list(conversation)], **self._template, add_generation_prompt=generation_prompt, tokenize=False
            )
        image = str(getattr(self.processor, "image_token", ""))
        _, mark, behind = rendered.rpartition(image) if image else ("", "", rendered)
        start, whole = self.token_ids([mark, mark + behind])  # after its token a tokenizer does what it does behind control tokens
        return whole[len(start) :]

    def _shape_image(self, image: Image.Image) -> Image.Image:
        """Padded to a centred square where the family asks for it; see `_resize_image`.

        Raises:
            ImageError: for an image longer than the processor takes.
        """
        grey, side, most = self._pad_to_square, max(image.size), self._max_aspect_ratio
        if most is not None and side > most * min(image.size):
            shape = f"{image.width} x {image.height} pixels, {side / min(image.size):.0f} to 1"
            raise ImageError(f"the image has {shape}, and the model takes at most {most:g} to 1; crop or pad it")
        if grey is None or image.width == image.height:
            return image
        if side > LONGEST_PADDED:  # else a line of 100,000 x 1 pixels becomes a square of 30 GB
            shrunk = [max(1, round(edge * LONGEST_PADDED / side)) for edge in image.size]
            return self._shape_image(image.resize((shrunk[0], shrunk[1]), Image.Resampling.BILINEAR))
        square = Image.new("RGB", (side, side), (grey, grey, grey))
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square

    def _resize_image(self, image: Image.Image) -> Image.Image:
        """Brought to a tile's size without smoothing where the family asks for it; the processor then has nothing left to resize."""
        if self._antialias:
            return image
        tile = self.processor.image_processor.size
        if image.size == (tile["width"], tile["height"]):
            return image
        return _interpolated(image, tile["width"], tile["height"])

    def _escape_control_tokens(self, text: str) -> str:
        """Control tokens that a user's text spells out (`<image>`, `<|im_end|>`), parted by a space so that they stay plain text."""
        for token in self._control_tokens:
            if token in text:
                text = text.replace(token, f"{token[0]} {token[1:]}")
        return text

    def _truncate(self, text: str) -> str:
        """The text's first tokens, cut in the text itself so that template and image tokens are never cut."""
        most = self.preprocessing.max_text_tokens
        if text.isascii() and len(text) < most:  # no tokenizer makes two tokens of one such character; most captions end here
            return text
        offsets = self._tokenize(text, return_offsets_mapping=True)["offset_mapping"]
        return text if len(offsets) <= most else text[: offsets[most - 1][1]]

    def _prescreen(self, text: str) -> str:
        """More than any text is left with: a token holds a few characters at most, and tokenising a whole book only to drop it is slow."""
        return text[: 40 * self.preprocessing.max_text_tokens]

    def count_tokens(self, texts: Sequence[str]) -> list[int]:
        """How many tokens are left of each text once it is cut, without template; what cannot be embedded counts as something.

        Args:
            texts: of any length.
        """
        known = [self._prescreen(str(text)).encode("utf-8", "replace").decode() for text in texts]
        return [min(len(each), self.preprocessing.max_text_tokens) for each in self.token_ids(known)]

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The tokens of each text alone, whole, without template and padding.

        Args:
            texts: of any length.
        """
        return self._tokenize(list(texts), return_attention_mask=False)["input_ids"] if texts else []

    def _tokenize(self, text: str | list[str], **options: bool) -> Any:
        with self._lock:
            return self.processor.tokenizer(text, add_special_tokens=False, verbose=False, **options)

    # A lock cannot be handed to another process, and one that a thread holds while a process is forked is never free there.

    def __getstate__(self) -> dict[str, Any]:
        check_spawned()
        return {name: value for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=RLock())


def _parts_of(turn: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The parts of a turn; none where it is plain text."""
    content = turn.get("content")
    return content if isinstance(content, list) else []


def _interpolated(image: Image.Image, width: int, height: int) -> Image.Image:
    """Bilinear without smoothing, as torch's `interpolate`: of a large image only the pixels that are read become numbers."""
    pixels = np.asarray(image)
    (top, bottom, down), (left, right, across) = _neighbours(image.height, height), _neighbours(image.width, width)
    upper, lower = (pixels[rows][:, left] * (1 - across)[:, None] + pixels[rows][:, right] * across[:, None] for rows in (top, bottom))
    mixed = upper * (1 - down)[:, None, None] + lower * down[:, None, None]
    return Image.fromarray(np.rint(mixed + 1e-6).astype(np.uint8))  # halves up, whatever the order of the sums


def _neighbours(size: int, wanted: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each wanted place of a side the two places that it lies between, and how far it is towards the second."""
    places = (size / wanted * (np.arange(wanted) + 0.5) - 0.5).clip(min=0)
    before = places.astype(np.int64)
    return before, (before + 1).clip(max=size - 1), places - before


def _without_image_newline(processor: Any, template: str) -> dict[str, str]:
    """What `apply_chat_template` is told so that no line break stands behind an image; nothing for a template that has none there."""
    image = getattr(processor, "image_token", "")
    joined = template.replace(f"{image}\\n", image).replace(f"{image}\n", image) if image else template
    return {} if joined == template else {"chat_template": joined}
