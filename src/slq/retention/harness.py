"""Tasks of lm-evaluation-harness (MMMU, and any other whose model answers in words), asked of a FrozenModel through our own QuestionRunner.

The harness reads the data, words the questions and scores the answers; the very weights that encode give them. Tasks of ours in its format,
for RealWorldQA and OCRBench, which it does not have, are in `harness_tasks`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

from slq.errors import Failure, InputError
from slq.io.provenance import isolated_rng
from slq.models.processor import ItemProcessor
from slq.retention.ask import Answer, Conversation, QuestionRunner, RetentionTask
from slq.types import Item

OWN_TASKS = Path(__file__).with_name("harness_tasks")
IMAGE = "<image>"  # where an image stands, in the harness's words
MAX_NEW_TOKENS = 256  # the harness's own, where a task does not say
WHOLE_TEXT = 1 << 20  # tokens; a question that is cut as items are would be another question


class HarnessTask:
    """One task or group of the harness, with its data loaded.

    Args:
        name: the task's or group's.
        parts: the harness's tasks by name.
        limit: of each part only the first so many questions.
        seed: for those that choose at random when an answer cannot be read, as MMMU does.
    """

    def __init__(self, name: str, parts: Mapping[str, Any], limit: int | None, seed: int):
        self.name, self.parts, self.limit, self.seed = name, parts, limit, seed
        self.metadata: Mapping[str, Any] = {
            "source": f"lm-evaluation-harness {version('lm-eval')}",
            "versions": {part: (one.config.metadata or {}).get("version") for part, one in parts.items()},
            "data": sorted({str(one.config.dataset_path) for one in parts.values()}),
            "seed": seed,
            "limit": limit,
        }

    def __len__(self) -> int:
        return sum(min(len(one.eval_docs), self.limit or len(one.eval_docs)) for one in self.parts.values())

    def ask(self, runner: QuestionRunner) -> list[Answer]:
        """Ask all questions through the harness; see `RetentionTask.ask`."""
        from lm_eval import evaluate

        with isolated_rng(self.seed):
            result = evaluate(lm=_model(runner), task_dict={"tasks": self.parts}, limit=self.limit, bootstrap_iters=0, log_samples=True)
        return [_answer(part, self.parts[part], sample) for part in self.parts for sample in _of_first_filter(result["samples"][part])]


def harness_tasks(names: Sequence[str], seed: int, limit: int | None, folders: Sequence[Path] = ()) -> dict[str, RetentionTask]:
    """Load tasks and groups of the harness, with their data.

    Args:
        names: of tasks and groups.
        seed: for tasks that choose at random.
        limit: of each part only the first so many questions; None for all.
        folders: further tasks in the harness's format.

    Returns:
        Name -> task.

    Raises:
        InputError: for a name that it does not have, for data that cannot be loaded, and for a task that is not answered in words.
    """
    from lm_eval.tasks import TaskManager

    if missing := [folder for folder in folders if not folder.is_dir()]:
        raise InputError(f"There is no folder {missing[0]} of tasks: name one that holds YAML files in the harness's format.")
    manager = TaskManager(include_path=[OWN_TASKS, *folders])
    found: dict[str, RetentionTask] = {}
    for name in names:
        if name not in manager.all_tasks:
            near = get_close_matches(name, [*manager.all_tasks, "knowledge", "spatial", "reading"], 3)
            advice = f"did you mean {' or '.join(near)}?" if near else "`lm-eval ls tasks` lists the harness's."
            raise InputError(f"There is no task {name!r}: {advice}")
        try:
            parts = manager.load([name])["tasks"]
        except Exception as error:  # whatever a data set's own loading raises
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            advice = "check the connection to the hub, or the task's dataset_path"
            raise InputError(f"The data of the task {name!r} cannot be loaded: {reason.rstrip('.')}; {advice}.") from error
        for part, one in parts.items():
            if one.OUTPUT_TYPE != "generate_until":
                raise InputError(f"The task {part!r} is scored by likelihoods, not by answers in words, so it cannot be asked here.")
            if one.config.num_fewshot is None:
                one.set_config(key="num_fewshot", value=0)
            one.set_fewshot_seed(seed=seed)
        found[name] = HarnessTask(name, parts, limit, seed)
    return found


def _model(runner: QuestionRunner) -> Any:
    """The model as a model of the harness; the class is made here because its base is an extra."""
    from lm_eval.api.model import LM

    class AskedModel(LM):
        MULTIMODAL = True

        def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
            return _generate_until(runner, [request.args for request in requests])

        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            raise NotImplementedError("only tasks that are answered in words are asked")

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise NotImplementedError("only tasks that are answered in words are asked")

    return AskedModel()


def _generate_until(runner: QuestionRunner, requests: Sequence[Sequence[Any]]) -> list[str]:
    """Answers to the harness's requests (text, settings, and images where there are any), those with the same bound asked together.

    A question that cannot be put is a failure with an empty answer.
    """
    processor = _of_whole_texts(runner.model.item_processor)
    by_bound: dict[int, dict[int, Conversation]] = {}
    for place, (text, settings, *media) in enumerate(requests):
        if settings.get("do_sample"):
            raise InputError("A task that samples its answers cannot be compared text for text: set do_sample: false in it.")
        bound = settings.get("max_gen_toks") or settings.get("max_new_tokens") or MAX_NEW_TOKENS
        try:
            conversation = _conversation(processor, text, media[0].get("visual") if media else None)
        except InputError as error:
            runner.failures.append(Failure(f"question {place}", str(error)))
            continue
        by_bound.setdefault(bound, {})[place] = conversation
    answers = [""] * len(requests)
    for bound, asked in by_bound.items():
        for place, given in zip(asked, runner.ask(list(asked.values()), bound), strict=True):
            answers[place] = _until(given, requests[place][1].get("until") or ())
    return answers


def _conversation(processor: ItemProcessor, text: str, images: Any) -> Conversation:
    """One user turn, each image where the text has its place, or before the text where it has none.

    Raises InputError if the places are not as many as the images, and what `ItemProcessor.parts` raises.
    """
    shown = [] if images is None else list(images) if isinstance(images, (list, tuple)) else [images]
    pieces = text.split(IMAGE) if IMAGE in text else [*[""] * len(shown), text]
    if len(pieces) - 1 != len(shown):
        raise InputError(f"it has {len(shown)} images and {len(pieces) - 1} places for them")
    content: list[dict[str, Any]] = []
    for piece, image in zip_longest(pieces, shown):
        content += processor.parts(Item(piece.strip())) if piece.strip() else []
        content += processor.parts(Item(image=image)) if image is not None else []
    if not content:
        raise InputError("it has neither text nor images")
    return [{"role": "user", "content": content}]


def _of_whole_texts(processor: ItemProcessor) -> ItemProcessor:
    """The same preparing of images, and texts that are not cut."""
    other = copy.copy(processor)
    other.preprocessing = replace(processor.preprocessing, max_text_tokens=WHOLE_TEXT)
    return other


def _until(given: str, stops: str | Sequence[str]) -> str:
    """An answer up to the first of the texts that end it."""
    for stop in [stops] if isinstance(stops, str) else stops:
        given = given.split(stop)[0] if stop else given
    return given


def _of_first_filter(samples: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """A question's answer stands once for each of a task's filters; the first is taken."""
    return [sample for sample in samples if sample["filter"] == samples[0]["filter"]]


def _answer(part: str, task: Any, sample: Mapping[str, Any]) -> Answer:
    metric = sample["metrics"][0]
    score = sample[metric]
    if not isinstance(score, (int, float)):
        raise InputError(f"The task {part!r} does not score questions one by one: its {metric} of one is a {type(score).__name__}.")
    question, given = sample["arguments"][0][0], sample["resps"][0][0]
    kind = task.config.task_alias or part
    return Answer(f"{part}/{sample['doc_id']}", kind, question, str(sample["target"]), given, float(score))
