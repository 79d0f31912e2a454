"""What counts as a usable text."""

from __future__ import annotations

from slq.errors import TextError


def check_text(text: object) -> str:
    """Return a text unchanged if it can be encoded; any script and length is fine, the model truncates.

    Args:
        text: what should be one.

    Raises:
        TextError: if it is not a str, is empty or only white space, or cannot be written as UTF-8.
    """
    if not isinstance(text, str):
        raise TextError(f"a text must be a str, not {type(text).__name__}; convert it first")
    if not text:
        raise TextError("the text is empty; give it some words or leave it out")
    if text.isspace():
        raise TextError("the text is only white space; give it some words or leave it out")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError(
            f"the text holds half of a surrogate pair at character {error.start + 1}, which UTF-8 cannot write; "
            "decode it again from its source"
        ) from None
    return text
