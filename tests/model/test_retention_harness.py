"""Tasks in the harness's own format, over the miniature's questions: the same weights answer, and the scores are the suites' own."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import torch

from slq.adapters.latents import LatentQueries
from slq.encoders.latent import LatentEncoder
from slq.errors import InputError
from slq.miniature.suites import SUITES, Question, score
from slq.models import FrozenModel
from slq.retention import QuestionRunner, load_tasks, retention
from slq.retention.harness import OWN_TASKS, _conversation, _generate_until, _of_whole_texts

tasks_of_harness = pytest.importorskip("lm_eval.tasks", reason='lm-evaluation-harness is not installed: pip install "slq[retention]"')
MMMU = Path(tasks_of_harness.__file__).parent / "mmmu" / "_template_yaml"

SETTINGS = "{until: [], do_sample: false, max_gen_toks: 12}"
DRAWN = """
output_type: generate_until
doc_to_image: [image]
doc_to_text: "<image>{{question}}"
doc_to_target: answer
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 3.0}
"""
WORDS = DRAWN.replace("doc_to_image: [image]\n", "").replace("<image>", "")


def write_task(folder: Path, name: str, rows: list[dict[str, Any]], yaml: str, settings: str = SETTINGS) -> None:
    """A task of one split over a Parquet file with these rows; images are in the columns image and image."""
    from datasets import Dataset, Features, Image, List, Value, disable_progress_bars

    disable_progress_bars()
    kinds = {"image": Image(), "image_1": Image(), "image_2": Image()}
    columns = {
        key: kinds.get(key) or (List(Value("string")) if isinstance(value, list) else Value("string")) for key, value in rows[0].items()
    }
    file = folder / f"{name}.parquet"
    Dataset.from_list(rows, features=Features(columns)).to_parquet(file)
    data = f"dataset_path: parquet\ndataset_name: null\ndataset_kwargs: {{data_files: {{test: {file}}}}}\ntest_split: test\n"
    (folder / f"{name}.yaml").write_text(f"task: {name}\n{yaml}\n{data}generation_kwargs: {settings}\n", encoding="utf-8")


def rows_of(asked: list[Question]) -> list[dict[str, Any]]:
    return [{"image": one.item.image, "question": one.item.text, "answer": one.answer} for one in asked]


def mmmu_rows(asked: list[Question]) -> list[dict[str, Any]]:
    """A choice between two images, and an open question about one."""
    shown = {"image_1": asked[0].item.image, "image_2": asked[1].item.image}
    choice = {"question": "which is <image 1>?", "question_type": "multiple-choice", "options": "['a cat', 'a <image 2>']", "answer": "B"}
    opened = {"question": f"<image 1> {asked[0].item.text}", "question_type": "open", "options": "[]", "answer": asked[0].answer}
    return [choice | shown, opened | shown | {"image_2": None}]


@pytest.fixture(scope="module")
def suites() -> dict[str, list[Question]]:
    return {name: suite(12, 3) for name, suite in SUITES.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, suites: dict[str, list[Question]]) -> Path:
    """All local tasks: scanning the harness's own 14,000 takes seconds, so it is done once."""
    folder = tmp_path_factory.mktemp("tasks")
    write_task(folder, "drawn_spatial", rows_of(suites["spatial"]), DRAWN)
    write_task(folder, "drawn_reading", rows_of(suites["reading"]), DRAWN)
    words = [{key: value for key, value in row.items() if key != "image"} for row in rows_of(suites["knowledge"])]
    write_task(folder, "worded_knowledge", words, WORDS)
    (folder / "drawn.yaml").write_text("group: drawn\ntask: [drawn_spatial, drawn_reading]\n", encoding="utf-8")
    signs = [
        {"image": one.item.image, "question": one.item.text, "dataset": "IIIT5K", "question_type": "-", "answer": [one.answer.upper(), "-"]}
        for one in suites["reading"]
    ]
    write_task(folder, "signs_as_ocrbench", signs, f"include: {OWN_TASKS / 'ocrbench.yaml'}")
    seen = [{"image": one.item.image, "question": one.item.text, "answer": one.answer.title()} for one in suites["spatial"]]
    write_task(folder, "seen_as_realworldqa", seen, f"include: {OWN_TASKS / 'realworldqa.yaml'}")
    write_task(folder, "mmmu_drawn", mmmu_rows(suites["spatial"]), f"include: {MMMU}\nvalidation_split: null")
    write_task(folder, "sampled", rows_of(suites["spatial"]), DRAWN, "{until: [], do_sample: true}")
    (folder / "likelihoods.yaml").write_text(
        (folder / "drawn_spatial.yaml").read_text().replace("drawn_spatial", "likelihoods", 1).replace("generate_until", "loglikelihood")
    )
    (folder / "unfetched.yaml").write_text("task: unfetched\n" + DRAWN + "dataset_path: slq-tests/not-there\ntest_split: test\n")
    return folder


@pytest.fixture(scope="module")
def tasks(folder: Path) -> dict[str, Any]:
    names = ["drawn_spatial", "drawn", "worded_knowledge", "signs_as_ocrbench", "seen_as_realworldqa", "mmmu_drawn", "sampled"]
    return {task.name: task for task in load_tasks(names, folders=[folder])}


def test_scores_are_those_of_the_suites_and_nothing_changes_by_embedding(tasks, suites, model: FrozenModel):
    asked = [tasks["drawn"], tasks["worded_knowledge"]]
    encoder = LatentEncoder(model, LatentQueries.create(4, model.dim, generator=torch.Generator().manual_seed(0)))
    steps: list[int] = []
    report = retention(model, model, asked, encoder=encoder, progress=steps.append)
    assert report.same_weights and report.changed == 0 and report.embedded == 36
    assert sum(steps) == 2 * sum(map(len, asked)) == 72 and not report.before.failures
    drawn, knowledge = report.tasks
    assert knowledge.before == knowledge.after and knowledge.before.right == score(model, suites["knowledge"])[0] < 1
    by_part = {
        part: [one.score for one in report.before.answers["drawn"] if one.kind == part] for part in ("drawn_spatial", "drawn_reading")
    }
    assert {part: sum(scores) / len(scores) for part, scores in by_part.items()} == {
        f"drawn_{name}": score(model, suites[name])[0] for name in ("spatial", "reading")
    }
    assert drawn.before.right == sum(map(sum, by_part.values())) / 24
    first = report.before.answers["drawn"][0]
    assert (first.id, first.question) == ("drawn_spatial/0", f"<image>{suites['spatial'][0].item.text}")
    assert (first.expected, first.given) == (suites["spatial"][0].answer,) * 2
    assert asked[0].metadata["versions"] == {"drawn_spatial": 3.0, "drawn_reading": 3.0}


def test_our_tasks_in_its_format(tasks, suites, model: FrozenModel):
    report = retention(model, None, [tasks["signs_as_ocrbench"], tasks["seen_as_realworldqa"]])
    assert [one.before.right for one in report.tasks] == [score(model, suites[name])[0] for name in ("reading", "spatial")]


@pytest.fixture(scope="module", autouse=True)
def scanned_once() -> Iterator[None]:
    """The harness's index of a folder is made once: it reads its own 14,000 tasks each time."""
    scan = tasks_of_harness.TaskManager
    made = lru_cache(lambda folders: scan(include_path=list(folders)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks_of_harness, "TaskManager", lambda include_path: made(tuple(include_path)))
        yield


def test_limits_are_of_each_part(folder):
    (task,) = load_tasks(["drawn"], limit=5, folders=[folder])
    assert len(task) == 10 and task.metadata["limit"] == 5


def test_mmmu_is_asked_in_the_harness_words(tasks, suites, model: FrozenModel):
    """Two images in one question, lettered choices, and an open question, by the harness's own MMMU code."""
    report = retention(model, None, [tasks["mmmu_drawn"]])
    choice, opened = report.before.answers["mmmu_drawn"]
    assert not report.before.failures
    assert "which is <image>?" in choice.question and "(B) a <image>" in choice.question and choice.expected == "B"
    assert opened.given and opened.score == float(opened.expected in opened.given)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mmmu_vall", "no task 'mmmu_vall': did you mean mmmu_val"),
        ("knowlege", "did you mean knowledge"),
        ("xxxxxxxxxxxx", "lm-eval ls tasks"),
        ("likelihoods", "scored by likelihoods, not by answers in words"),
        ("unfetched", "The data of the task 'unfetched' cannot be loaded"),
    ],
)
def test_what_cannot_be_asked_is_refused(name, message, folder):
    with pytest.raises(InputError, match=message):
        load_tasks([name], folders=[folder])


def test_other_refusals(tasks, model: FrozenModel, tmp_path):
    with pytest.raises(InputError, match="There is no folder"):
        load_tasks(["drawn"], folders=[tmp_path / "none"])
    with pytest.raises(InputError, match="set do_sample: false"):
        retention(model, None, [tasks["sampled"]])


def test_images_stand_where_the_words_say(model: FrozenModel, items):
    images = [items[4].image, items[5].image]
    processor = model.item_processor

    def kinds(text: str, shown: Any) -> list[str]:
        ((message),) = _conversation(processor, text, shown)
        return [part["text"] if part["type"] == "text" else "IMAGE" for part in message["content"]]

    assert kinds("<image>a <image> b", images) == ["IMAGE", "a", "IMAGE", "b"]
    assert kinds("what is it?", images) == ["IMAGE", "IMAGE", "what is it?"]
    assert kinds("<image>", images[0]) == ["IMAGE"] and kinds("words", None) == ["words"]
    for text, shown, message in (("<image>a", images, "2 images and 1 places"), (" ", None, "neither words nor images")):
        with pytest.raises(InputError, match=message):
            _conversation(processor, text, shown)


def test_long_questions_are_not_cut(model: FrozenModel):
    long = "word " * 500 + "end"
    ((message,),) = [_conversation(_of_whole_texts(model.item_processor), long, None)]
    assert message["content"][0]["text"] == long
    assert model.preprocessing.max_text_tokens == 128


def test_one_question_that_cannot_be_put_leaves_the_others(model: FrozenModel, suites):
    asked = suites["knowledge"][:2]
    settings = {"until": ["\n\n"], "max_gen_toks": 12}
    requests = [(asked[0].item.text, settings), ("<image>", settings), (asked[1].item.text, {**settings, "max_gen_toks": 11})]
    runner = QuestionRunner(model)
    answers = _generate_until(runner, requests)
    alone = model.generate([[model.message(one.item)] for one in asked], 12)
    assert answers == [alone[0], "", alone[1]]
    assert [str(failure) for failure in runner.failures] == ["question 1: it has 0 images and 1 places for them"]
    stopped = _generate_until(QuestionRunner(model), [(asked[0].item.text, {"until": [alone[0][1:]], "max_gen_toks": 12})])
    assert stopped == [alone[0][0]]
