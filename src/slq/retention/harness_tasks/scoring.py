"""How RealWorldQA and OCRBench score an answer; the harness reads this file by itself, named in the YAML files beside it.

Each takes a row of the data and the model's answers, of which there is one, and returns the metric's value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

_LETTER = re.compile(r"\(?([A-D])\b", re.IGNORECASE)


def realworldqa(row: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    """Equal but for case and a full stop; of a lettered choice the letter alone counts: `B`, `b.`, `(B)` and `B. Two` are one answer.

    Args:
        row: of the data.
        answers: of the model, one.

    >>> realworldqa({"answer": "B"}, ["B. Two"]), realworldqa({"answer": "7"}, ["It is 7"])
    ({'acc': 1.0}, {'acc': 0.0})
    """
    expected, given = row["answer"].strip().casefold(), answers[0].strip()
    letter = _LETTER.match(given)
    if re.fullmatch("[a-d]", expected):
        return {"acc": float(letter is not None and letter[1].casefold() == expected)}
    return {"acc": float(given.casefold().removesuffix(".") == expected.removesuffix("."))}


def ocrbench(row: Mapping[str, Any], answers: Sequence[str]) -> dict[str, float]:
    """Whether any of the accepted answers stands in what was given, without regard to case; in HME100k (formulas) to white space instead.

    Args:
        row: of the data.
        answers: of the model, one.

    Source: Liu et al. 2023, OCRBench.

    >>> ocrbench({"dataset": "IIIT5K", "answer": ["Coffee"]}, ["the sign says COFFEE"])
    {'acc': 1.0}
    """
    expected = [row["answer"]] if isinstance(row["answer"], str) else row["answer"]

    def plain(text: str) -> str:
        text = text.strip().replace("\n", " ")
        return text.replace(" ", "") if row["dataset"] == "HME100k" else text.lower()

    return {"acc": float(any(plain(each) in plain(answers[0]) for each in expected))}
