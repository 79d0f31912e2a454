"""What a model has learned: losses of validation captions, and what it says of twenty test photographs."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from transformers.utils.logging import disable_progress_bar

from research.photo.build import BUILD_FILE, work_folder
from research.photo.captions import CaptionTokens
from research.photo.command import ReportConfig
from research.photo.features import FeatureCache
from research.photo.photographs import TEST, VALIDATION, Photograph, of_split, read_photographs
from research.photo.pretrain import caption_sums
from slq.errors import DataError
from slq.io.device import choose_device, choose_dtype
from slq.io.files import load_json, write_json, write_text
from slq.io.outputs import check_reads
from slq.io.provenance import record
from slq.models import FrozenModel, load_model
from slq.types import Item

SHOWN = 20  # test photographs
LONGEST = 40  # tokens of an answer


def report(config: ReportConfig, command: str) -> dict[str, Any]:
    """Measure a model and write `report.json` and `report.md`.

    Args:
        config: the options.
        command: the command line, for the record.

    Returns:
        What `report.json` holds.

    Raises:
        DataError: if the data are missing or wrong, or have too few photographs.
        ModelError: if the model cannot be loaded.
    """
    assert config.model is not None and config.data is not None and config.output is not None
    check_reads(config.output, [config.model, config.data])
    photographs = read_photographs(config.data)
    validation = of_split(photographs, VALIDATION, least=2)[: config.photographs]
    test = fixed_sample(of_split(photographs, TEST), SHOWN)
    device = choose_device(config.device)
    dtype = str(choose_dtype(config.dtype, device)).removeprefix("torch.")
    disable_progress_bar()  # it loads in a blink
    model = load_model(str(config.model.resolve()), dtype=dtype, device=str(device))
    if model.model.config.model_type != "fast_vlm":
        raise DataError(f"{config.model} is a {model.model.config.model_type} model: name a folder that `build` wrote.")

    features = FeatureCache(work_folder(config.model, config.work) / "features", model.model, model.processor)
    content = {
        "model": config.model.name,
        "validation": caption_loss(model, features, validation),
        "captions": describe(model, test),
        "build": load_json(config.model / BUILD_FILE) if (config.model / BUILD_FILE).is_file() else None,
    }
    found = record(content, command=command, device=str(device))
    config.output.mkdir(parents=True, exist_ok=True)
    write_json(config.output / "report.json", found)
    write_text(config.output / "report.md", markdown(found))
    return found


def caption_loss(model: FrozenModel, features: FeatureCache, photographs: Sequence[Photograph]) -> dict[str, Any]:
    """Loss of the first caption of each photograph, with that photograph and with another one.

    Args:
        model: that reads the captions.
        features: kept ones; what is missing is computed.
        photographs: two at least.

    Returns:
        `own` and `another`: mean loss of a token, in nats; `own_is_lower`: the fraction of captions whose loss is; and how many.
    """
    tokens = CaptionTokens(model.processor)
    features.fill([each.image for each in photographs])
    strangers = [replace(each, image=photographs[other].image) for each, other in deranged(photographs)]
    rows = {"own": [tokens.row(each) for each in photographs], "another": [tokens.row(each) for each in strangers]}
    found: dict[str, Any] = {}
    sums = {}
    for name, given in rows.items():
        sums[name], counts = caption_sums(model.model, tokens, features, given, show_progress=True)
        found[name] = sum(sums[name]) / sum(counts)
    lower = [own < another for own, another in zip(sums["own"], sums["another"], strict=True)]
    return {**found, "own_is_lower": sum(lower) / len(lower), "photographs": len(photographs), "tokens": sum(counts)}


def deranged(photographs: Sequence[Photograph]) -> list[tuple[Photograph, int]]:
    """Each photograph with the number of another one; every number comes once.

    Args:
        photographs: two at least.
    """
    order = list(range(len(photographs)))
    random.Random(0).shuffle(order)
    other = dict(zip(order, [*order[1:], order[0]], strict=True))
    return [(each, other[number]) for number, each in enumerate(photographs)]


def fixed_sample(photographs: Sequence[Photograph], count: int) -> list[Photograph]:
    """The same photographs of a data set every time, whatever the order of its lines.

    Args:
        photographs: of a split.
        count: how many, at most.
    """
    ordered = sorted(photographs, key=lambda each: each.name)
    return random.Random(0).sample(ordered, min(count, len(ordered)))


def describe(model: FrozenModel, photographs: Sequence[Photograph]) -> list[dict[str, str]]:
    """What the model says of photographs, the most likely token at each step, beside one of their captions.

    Args:
        model: that speaks.
        photographs: which.
    """
    answers = model.generate([[model.message(Item(image=each.image))] for each in photographs], max_new_tokens=LONGEST)
    return [{"image": each.name, "model": answer, "reference": each.captions[0]} for each, answer in zip(photographs, answers, strict=True)]


def markdown(found: Mapping[str, Any]) -> str:
    """A report as a page.

    Args:
        found: what `report.json` holds.
    """
    loss = found["validation"]
    lines = [
        f"# {found['model']}",
        "",
        f"Loss of a caption's token: {loss['own']:.3f} with its own photograph, {loss['another']:.3f} with another's "
        f"({loss['photographs']} validation photographs, one caption each). {loss['own_is_lower']:.1%} of the captions are likelier with "
        "their own.",
        "",
        "What the model says of test photographs, good and bad, beside one caption of each:",
        "",
        "| photograph | the model | a caption |",
        "|---|---|---|",
    ]
    cells = [[_cell(each[name]) for name in ("image", "model", "reference")] for each in found["captions"]]
    lines += [f"| {' | '.join(row)} |" for row in cells]
    made = found["provenance"]
    return "\n".join([*lines, "", f"`{found['command']}`, {made['hardware']}, {made['date']}", ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
